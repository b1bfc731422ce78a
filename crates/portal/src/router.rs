//! Every route, the role it asks for, and the document that tells of both.

use crate::{
    alarm_routes, alerts, app::App, dead_letters, guard, intake, ledger, machines, ops, pages, problem, readings,
    simulate, stream,
};
use alarm::Role;
use axum::{
    Router,
    extract::Request,
    http::{Method, StatusCode},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::get,
};
use problem::Problem;
use std::any::Any;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::{
    OpenApi as _,
    openapi::{Content, OpenApi, Ref, ResponseBuilder, extensions::Extensions},
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Who may use which route. As long as nobody has to sign in everybody on loopback is an admin; the document tells what
/// each route will ask for. A route without an entry does not start.
const ROLES: [(Method, &str, Role); 38] = [
    (Method::GET, "/livez", Role::Viewer),
    (Method::GET, "/readyz", Role::Viewer),
    (Method::GET, "/metrics", Role::Viewer),
    (Method::POST, "/api/readings", Role::Operator),
    (Method::GET, "/api/machines", Role::Viewer),
    (Method::GET, "/api/machines/{machineId}", Role::Viewer),
    (Method::PUT, "/api/machines/{machineId}", Role::Engineer),
    (Method::POST, "/api/machines/{machineId}/confirm", Role::Engineer),
    (Method::POST, "/api/machines/{machineId}/maintenance", Role::Engineer),
    (Method::DELETE, "/api/machines/{machineId}/maintenance", Role::Engineer),
    (Method::GET, "/api/machines/{machineId}/logs", Role::Viewer),
    (Method::GET, "/api/machines/{machineId}/status", Role::Viewer),
    (Method::GET, "/api/machines/{machineId}/chart", Role::Viewer),
    (Method::GET, "/api/machines/{machineId}/events", Role::Viewer),
    (Method::GET, "/api/classes", Role::Viewer),
    (Method::GET, "/api/alerts", Role::Viewer),
    (Method::GET, "/api/alerts/{id}", Role::Viewer),
    (Method::GET, "/api/alarms", Role::Viewer),
    (Method::GET, "/api/alarms/{id}", Role::Viewer),
    (Method::POST, "/api/alarms/{id}/ack", Role::Operator),
    (Method::POST, "/api/alarms/{id}/shelve", Role::Operator),
    (Method::POST, "/api/alarms/{id}/unshelve", Role::Operator),
    (Method::POST, "/api/alarms/{id}/out-of-service", Role::Engineer),
    (Method::POST, "/api/alarms/{id}/return-to-service", Role::Engineer),
    (Method::POST, "/api/alarms/{id}/comment", Role::Operator),
    (Method::GET, "/api/audit", Role::Viewer),
    (Method::GET, "/api/ledger", Role::Viewer),
    (Method::GET, "/api/dead-letters", Role::Viewer),
    (Method::GET, "/api/dead-letters/{id}", Role::Viewer),
    (Method::POST, "/api/dead-letters/{id}/replay", Role::Engineer),
    (Method::GET, "/api/events", Role::Viewer),
    (Method::GET, "/ws", Role::Viewer),
    (Method::POST, "/train-model", Role::Engineer),
    (Method::POST, "/simulate/{machineId}", Role::Operator),
    (Method::GET, "/openapi.json", Role::Viewer),
    (Method::GET, "/api-docs", Role::Viewer),
    (Method::GET, "/", Role::Viewer),
    (Method::GET, "/web/{file}", Role::Viewer),
];

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Millwright",
        description = "Which machine is about to fail, why, and what to do. Lists are newest first and carry \
                       `next_cursor`; `from` and `to` take RFC 3339 or `-1h`; every error is an RFC 9457 problem."
    ),
    components(schemas(Problem))
)]
struct Document;

/// The router, with its own document at `/openapi.json`.
pub(crate) fn router(app: App) -> Router {
    let (router, mut document) = routes().split_for_parts();
    name_roles(&mut document);
    name_operations(&mut document);
    name_problems(&mut document);
    let document: std::sync::Arc<str> = document.to_json().expect("a document is JSON").into();
    let openapi = move || {
        let document = document.clone();
        async move { crate::answer::json(StatusCode::OK, document.to_string()) }
    };
    router
        .route("/openapi.json", get(openapi))
        .route("/api-docs", get(pages::api_docs))
        .route("/", get(pages::index))
        .route("/web/{file}", get(pages::file))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), guard::check))
        .with_state(app)
}

/// Routes that the document tells of.
fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(intake::readings))
        .routes(routes!(machines::list))
        .routes(routes!(machines::get, machines::put))
        .routes(routes!(machines::confirm))
        .routes(routes!(machines::begin_maintenance, machines::end_maintenance))
        .routes(routes!(machines::classes))
        .routes(routes!(readings::logs))
        .routes(routes!(readings::status))
        .routes(routes!(readings::chart))
        .routes(routes!(readings::events))
        .routes(routes!(alerts::list))
        .routes(routes!(alerts::get))
        .routes(routes!(alarm_routes::list))
        .routes(routes!(alarm_routes::get))
        .routes(routes!(alarm_routes::ack))
        .routes(routes!(alarm_routes::shelve))
        .routes(routes!(alarm_routes::unshelve))
        .routes(routes!(alarm_routes::out_of_service))
        .routes(routes!(alarm_routes::return_to_service))
        .routes(routes!(alarm_routes::comment))
        .routes(routes!(alarm_routes::audit))
        .routes(routes!(ledger::ledger))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::get))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(stream::events))
        .routes(routes!(stream::ws))
        .routes(routes!(ops::train_model))
        .routes(routes!(simulate::simulate))
        .routes(routes!(ops::livez))
        .routes(routes!(ops::readyz))
        .routes(routes!(ops::metrics))
}

/// Writes into the document what each route will ask for.
fn name_roles(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let operations = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::DELETE, &mut item.delete),
            (Method::PATCH, &mut item.patch),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            let role = role_of(&method, path).expect("a test holds that every route has a role");
            let extensions = operation.extensions.get_or_insert_with(Extensions::default);
            extensions.insert("x-role".to_owned(), role.as_str().into());
        }
    }
}

/// Gives each operation an id of its own, as a generator of clients needs it: the handlers' names repeat.
fn name_operations(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let operations = [
            ("get", &mut item.get),
            ("put", &mut item.put),
            ("post", &mut item.post),
            ("delete", &mut item.delete),
            ("patch", &mut item.patch),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            let words = path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
            operation.operation_id = Some(words.fold(method.to_owned(), |id, word| id + "_" + word));
        }
    }
}

/// Says of each operation that whatever else it answers is a problem: what all share (a body that is not JSON or too
/// large, a foreign Host, a bug of ours) is told once.
fn name_problems(document: &mut OpenApi) {
    let problem = ResponseBuilder::new()
        .description("Any other status is a problem that says why")
        .content("application/problem+json", Content::new(Some(Ref::from_schema_name("Problem"))))
        .build();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.insert("default".to_owned(), problem.clone().into());
        }
    }
}

fn role_of(method: &Method, path: &str) -> Option<Role> {
    ROLES.iter().find(|(of, at, _)| of == method && *at == path).map(|(.., role)| *role)
}

async fn no_route(request: Request) -> Problem {
    Problem::missing("no_such_route", format!("there is no {}; /api-docs tells what there is", request.uri().path()))
}

async fn no_method(request: Request) -> Problem {
    let detail =
        format!("{} does not take {}; the header Allow tells what it takes", request.uri().path(), request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no_such_method", detail)
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("of another kind"), "a request panicked");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a bug of ours; the log says where").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_has_an_id_of_its_own() {
        let (_, mut document) = routes().split_for_parts();
        name_operations(&mut document);
        let mut ids = BTreeSet::new();
        for item in document.paths.paths.values() {
            for operation in [&item.get, &item.put, &item.post, &item.delete, &item.patch].into_iter().flatten() {
                let id = operation.operation_id.clone().unwrap();
                assert!(ids.insert(id.clone()), "{id} is there twice");
            }
        }
        assert!(ids.contains("get_api_machines_machineId_logs"), "{ids:?}");
    }

    #[test]
    fn every_operation_tells_of_problems() {
        let (_, mut document) = routes().split_for_parts();
        name_problems(&mut document);
        let document = serde_json::to_value(&document).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let schema = &operation["responses"]["default"]["content"]["application/problem+json"]["schema"];
                assert_eq!(schema["$ref"], "#/components/schemas/Problem", "{method} {path}");
            }
        }
    }

    #[test]
    fn every_route_of_the_document_has_a_role() {
        let (_, document) = routes().split_for_parts();
        let mut named = BTreeSet::new();
        for (path, item) in &document.paths.paths {
            let methods = [
                (Method::GET, item.get.is_some()),
                (Method::PUT, item.put.is_some()),
                (Method::POST, item.post.is_some()),
                (Method::DELETE, item.delete.is_some()),
                (Method::PATCH, item.patch.is_some()),
            ];
            for (method, _) in methods.into_iter().filter(|(_, there)| *there) {
                assert!(role_of(&method, path).is_some(), "{method} {path} has no role");
                named.insert((method.to_string(), path.clone()));
            }
        }
        let pages = ["/openapi.json", "/api-docs", "/", "/web/{file}"];
        let others: Vec<_> = ROLES
            .iter()
            .filter(|(method, path, _)| {
                !pages.contains(path) && !named.contains(&(method.to_string(), (*path).to_owned()))
            })
            .collect();
        assert!(others.is_empty(), "roles of routes that are not there: {others:?}");
    }
}
