//! The registry: which machines there are, and what people say of them.

mod edit;

use crate::{
    alarm_routes::{Keys, command},
    alarms::view,
    answer::{self, Answer, object, time},
    app::{App, LOCAL, LOCAL_ROLE},
    params::{Machine, Object, Params, now_us},
    problem::Problem,
};
use alarm::{Action, Audit};
use axum::extract::State;
use catalog::{Class, MachineId, Severity, Text};
use engine::Live;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};
use store::{AlarmRow, MachineRow, NewAudit, NewEvent};

/// Silence after which a machine's values are stale, where its class does not say.
const STALE_US: i64 = 30_000_000;

/// Machines, by id.
#[utoipa::path(
    get,
    path = "/api/machines",
    tag = "machines",
    params(
        ("limit" = Option<u64>, Query, description = "Default and at most 1000"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "`machines`, `next_cursor`", body = Object),
        (status = 400, description = "Bad query", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(State(app): State<App>, params: Params) -> Answer {
    params.only(&["limit", "cursor"])?;
    let limit = if params.get("limit").is_some() { params.limit()? } else { crate::params::LIMIT_MAX };
    // A cursor is the name of the last machine shown, marked so that another list's is not taken for one.
    let after = match params.get("cursor") {
        Some(cursor) => {
            let bad = || {
                Problem::bad("bad_cursor", "cursor is not one of ours: pass next_cursor of the page before as it is")
            };
            Some(cursor.strip_prefix("m.").ok_or_else(bad)?.to_owned())
        }
        None => None,
    };
    let mut machines: BTreeMap<String, (Option<MachineRow>, Option<Arc<Live>>)> = BTreeMap::new();
    for row in app.parts.store.registry().await? {
        let entry = machines.entry(row.machine_id.clone()).or_default();
        entry.0 = Some(row);
    }
    // The registry follows the first reading by one commit.
    for live in app.parts.live.all() {
        let entry = machines.entry(live.machine.to_string()).or_default();
        entry.1 = Some(live);
    }
    let now_us = now_us();
    let mut rest = machines.into_iter().filter(|(id, _)| after.as_ref().is_none_or(|after| id > after));
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let next = rest.next().and(page.last()).map(|(id, _)| format!("m.{id}"));
    let mut rows = Vec::with_capacity(page.len());
    for (id, (row, live)) in &page {
        rows.push(entry(&app, id, row.as_ref(), live.as_deref(), now_us).await?);
    }
    Ok(answer::page("machines", &rows, next.as_deref()))
}

/// A machine in a list.
async fn entry(
    app: &App,
    id: &str,
    row: Option<&MachineRow>,
    live: Option<&Live>,
    now_us: i64,
) -> Result<Map<String, Value>, Problem> {
    let none = MachineRow::new(id, live.map_or("", |live| &live.class.id));
    let row = row.unwrap_or(&none);
    let last_seen_us = match live {
        Some(live) => Some(live.last_seen_us),
        None => app.parts.history.newest(id).await?,
    };
    let worst: Option<Severity> =
        live.and_then(|live| live.conditions.iter().map(|condition| condition.severity).max());
    let conditions: Vec<&str> =
        live.into_iter().flat_map(|live| &live.conditions).map(|condition| condition.condition.as_str()).collect();
    Ok(object([
        ("machine_id", id.into()),
        ("class", row.class.as_str().into()),
        ("name_en", row.name_en.as_deref().into()),
        ("name_ko", row.name_ko.as_deref().into()),
        ("site", row.site.as_deref().into()),
        ("line", row.line.as_deref().into()),
        ("cell", row.cell.as_deref().into()),
        ("criticality", row.criticality.as_deref().into()),
        ("confirmed", row.confirmed.into()),
        ("state", live.map_or("unknown", |live| live.state.as_str()).into()),
        ("last_seen", time(last_seen_us)),
        ("stale", (app.parts.live.is_stale() || live.is_none_or(|live| is_stale(live, now_us))).into()),
        ("severity", worst.map(Severity::as_str).into()),
        ("conditions", conditions.into()),
    ]))
}

/// Whether nothing has come from a machine for longer than its class bears.
pub(crate) fn is_stale(live: &Live, now_us: i64) -> bool {
    now_us - live.arrived_us > live.class.no_data_us.unwrap_or(STALE_US)
}

/// One machine as people describe it.
#[utoipa::path(
    get,
    path = "/api/machines/{machineId}",
    tag = "machines",
    params(("machineId" = String, Path, description = "Machine")),
    responses(
        (status = 200, description = "The machine and the hash of the catalogue in force", body = Object),
        (status = 404, description = "No such machine", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(State(app): State<App>, Machine(machine): Machine) -> Answer {
    let row = known(&app, &machine).await?;
    let hash = app.parts.catalogue.borrow().hash().to_owned();
    Ok(answer::value(&describe(&app, &row, &hash).await?))
}

/// Describe a machine, or change what is said of it.
///
/// Keys that are absent stay as they are, `null` takes a value away. Parameters, limits and attributes are checked
/// against the machine's class; they are in force from the next batch of readings on.
#[utoipa::path(
    put,
    path = "/api/machines/{machineId}",
    tag = "machines",
    params(("machineId" = String, Path, description = "Machine")),
    request_body(content = Object, description = "`class`, `name_en`, `name_ko`, `site`, `line`, `cell`, `criticality`, `asset_no`, `parameters`, `limits`, `attributes`, `confirmed`"),
    responses(
        (status = 200, description = "The machine and the hash of the catalogue that is in force from here", body = Object),
        (status = 422, description = "A bad key or value; `problems` names each", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn put(State(app): State<App>, Machine(machine): Machine, Object(body): Object) -> Answer {
    let _alone = app.machines.lock().await;
    let before = app.parts.store.registered(&machine).await?;
    let bound = bound(&app, &machine);
    let catalogue = app.parts.catalogue.borrow().clone();
    let (row, changed) = edit::edit(&catalogue, &machine, before.as_ref(), bound.as_deref(), body)?;
    let next = Arc::new(edit::in_force(&catalogue, &machine, &row)?);
    let why = if changed.is_empty() { "nothing".to_owned() } else { changed.join(", ") };
    write(&app, row.clone(), "machine_changed", Some(why)).await?;
    let hash = next.hash().to_owned();
    // The same catalogue again would be a switch for nothing.
    if hash != catalogue.hash() {
        app.parts.catalogue.send_replace(next);
    }
    Ok(answer::value(&describe(&app, &row, &hash).await?))
}

/// Confirm a machine: from here it raises no-data and notifies.
#[utoipa::path(
    post,
    path = "/api/machines/{machineId}/confirm",
    tag = "machines",
    params(("machineId" = String, Path, description = "Machine")),
    responses(
        (status = 200, description = "The machine", body = Object),
        (status = 404, description = "No such machine", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn confirm(State(app): State<App>, Machine(machine): Machine) -> Answer {
    let _alone = app.machines.lock().await;
    let mut row = known(&app, &machine).await?;
    if !row.confirmed {
        row.confirmed = true;
        write(&app, row.clone(), "machine_confirmed", None).await?;
    }
    let hash = app.parts.catalogue.borrow().hash().to_owned();
    Ok(answer::value(&describe(&app, &row, &hash).await?))
}

/// Begin a maintenance window, or plan one: while it lasts, alarms of the machine are suppressed by design.
#[utoipa::path(
    post,
    path = "/api/machines/{machineId}/maintenance",
    tag = "machines",
    params(("machineId" = String, Path, description = "Machine")),
    request_body(content = Object, description = "`reason`, and `to` (RFC 3339) or `minutes`; it begins at `from` where that lies ahead, else at once"),
    responses(
        (status = 200, description = "Its alarms as they are from here", body = Object),
        (status = 404, description = "No such machine", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Bad key or value", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn begin_maintenance(
    State(app): State<App>,
    Machine(machine): Machine,
    Object(body): Object,
) -> Answer {
    let row = known(&app, &machine).await?;
    let mut keys = Keys::new(body);
    let planned_us = keys.time("from").filter(|from_us| *from_us > now_us());
    let (until_us, reason) = (keys.until("to", "minutes", planned_us.unwrap_or_else(now_us)), keys.text("reason"));
    let action = keys.end(Action::BeginMaintenance { until_us, reason })?;
    match planned_us {
        Some(from_us) => shown(app.alarms.plan(&row.machine_id, from_us, command(action)).await?),
        None => maintenance(&app, &row.machine_id, action).await,
    }
}

/// End a maintenance window early; where none stands, call off the next one that is planned.
#[utoipa::path(
    delete,
    path = "/api/machines/{machineId}/maintenance",
    tag = "machines",
    params(("machineId" = String, Path, description = "Machine")),
    responses(
        (status = 200, description = "Its alarms as they are from here", body = Object),
        (status = 404, description = "No such machine", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There is no window", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn end_maintenance(State(app): State<App>, Machine(machine): Machine) -> Answer {
    let row = known(&app, &machine).await?;
    maintenance(&app, &row.machine_id, Action::EndMaintenance).await
}

async fn maintenance(app: &App, machine: &str, action: Action) -> Answer {
    shown(app.alarms.maintenance(machine, command(action)).await?)
}

fn shown(alarms: Vec<AlarmRow>) -> Answer {
    let alarms: Vec<_> = alarms.iter().map(|row| answer::raw(view(row))).collect();
    Ok(answer::page("alarms", &alarms, None))
}

/// The machine classes in force: channels, parameters, attributes, laws, with their names.
#[utoipa::path(get, path = "/api/classes", tag = "machines", responses((status = 200, description = "`classes`", body = Object)))]
pub(crate) async fn classes(State(app): State<App>) -> Answer {
    let catalogue = app.parts.catalogue.borrow().clone();
    let classes: Vec<Value> = catalogue.classes().map(|class| class_json(class)).collect();
    Ok(answer::value(&json!({
        "classes": classes,
        "default_class": catalogue.default_class().id,
        "catalogue_hash": catalogue.hash(),
    })))
}

fn class_json(class: &Class) -> Value {
    let text = |text: &Text| json!({ "en": text.en, "ko": text.ko });
    let channels = class.channels.iter().map(|channel| {
        json!({
            "id": channel.id, "unit": channel.unit, "scale": channel.scale, "name": text(&channel.name),
            "display": channel.display, "optional": channel.optional,
        })
    });
    let derived = class.derived.iter().map(|derived| {
        json!({ "id": derived.id, "unit": derived.unit, "expression": derived.text, "name": text(&derived.name) })
    });
    let parameters = class.parameters.iter().map(|parameter| {
        json!({
            "id": parameter.id, "default": parameter.default, "unit": parameter.unit, "range": parameter.range,
            "name": text(&parameter.name),
        })
    });
    let attributes = class
        .attributes
        .iter()
        .map(|attribute| json!({ "id": attribute.id, "values": attribute.values, "name": text(&attribute.name) }));
    let laws = class.laws.iter().map(|law| {
        let limits: Vec<String> = law
            .levels
            .iter()
            .flat_map(|level| level.logic.terms.iter().map(|term| law.limit_key(level, term)))
            .collect();
        json!({
            "id": law.id, "failure_type": law.failure_type, "notice": law.notice, "name": text(&law.name),
            "action": law.action.as_ref().map(text), "source": law.source, "limits": limits,
        })
    });
    json!({
        "id": class.id,
        "name": text(&class.name),
        "source": class.source,
        "channels": channels.collect::<Vec<_>>(),
        "derived": derived.collect::<Vec<_>>(),
        "parameters": parameters.collect::<Vec<_>>(),
        "attributes": attributes.collect::<Vec<_>>(),
        "laws": laws.collect::<Vec<_>>(),
    })
}

/// The class that a machine has, where it was seen.
pub(crate) fn bound(app: &App, machine: &MachineId) -> Option<String> {
    let live = app.parts.live.get(machine).map(|live| live.class.id.clone());
    live.or_else(|| app.parts.history.class_of(machine))
}

/// The registry's row; of a machine that was seen and is not in the registry yet, what its readings say.
async fn known(app: &App, machine: &MachineId) -> Result<MachineRow, Problem> {
    if let Some(row) = app.parts.store.registered(machine).await? {
        return Ok(row);
    }
    let class = bound(app, machine).ok_or_else(|| no_such_machine(machine))?;
    Ok(MachineRow::new(machine, &class))
}

pub(crate) fn no_such_machine(machine: &MachineId) -> Problem {
    Problem::missing("no_such_machine", format!("there is no machine `{machine}`: nothing was received of it"))
}

/// Writes a row with its audit line and its event; alarms follow its criticality, followers are told.
async fn write(app: &App, row: MachineRow, action: &str, why: Option<String>) -> Result<(), Problem> {
    let hash = app.parts.catalogue.borrow().hash().to_owned();
    let audit = Audit {
        at_us: now_us(),
        by: LOCAL.to_owned(),
        role: Some(LOCAL_ROLE),
        action: action.to_owned(),
        from: String::new(),
        to: String::new(),
        why,
        until_us: None,
        alert_id: None,
        annunciates: false,
    };
    let data = Value::Object(describe(app, &row, &hash).await?).to_string();
    let event = NewEvent { kind: "machine".to_owned(), data };
    let line = NewAudit { subject: format!("machine:{}", row.machine_id), audit, notify: Vec::new() };
    Ok(app.alarms.register(vec![row], vec![line], vec![event]).await?)
}

/// A machine with everything that people say of it.
async fn describe(app: &App, row: &MachineRow, hash: &str) -> Result<Map<String, Value>, Problem> {
    let live = app.parts.live.get(&row.machine_id);
    let mut value = entry(app, &row.machine_id, Some(row), live.as_deref(), now_us()).await?;
    value.extend(object([
        ("asset_no", row.asset_no.as_deref().into()),
        ("parameters", json!(row.parameters)),
        ("limits", json!(row.limits)),
        ("attributes", json!(row.attributes)),
        ("first_seen", time(row.first_seen_us)),
        ("source", row.source.as_deref().into()),
        ("catalogue_hash", hash.into()),
    ]));
    Ok(value)
}
