//! The webhook against real servers of this machine.

use super::*;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use std::sync::Mutex;

type Requests = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A target: answers in turn, the last one again and again.
struct Target {
    url: String,
    requests: Requests,
}

type Answer = fn() -> Response;

impl Target {
    async fn start(answers: Vec<Answer>) -> Target {
        let requests = Requests::default();
        let answer = move |State(requests): State<Requests>, headers: HeaderMap, body: Bytes| async move {
            let mut requests = requests.lock().unwrap();
            let answer = answers[requests.len().min(answers.len() - 1)];
            requests.push((headers, body));
            answer()
        };
        let router = Router::new().route("/hook", post(answer)).with_state(requests.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Target { url, requests }
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn webhook(url: &str, allow_private: bool) -> Webhook {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = WebhookOptions { url: url.into(), secret: Some("geheim".into()), allow_private };
    Webhook::new(options).unwrap()
}

fn message() -> Message {
    Message {
        machine_id: "machine-001".into(),
        condition: "overstrain".into(),
        failure_type: "Overstrain".into(),
        severity: "critical".into(),
        priority: Some(2),
        kind: "raised".into(),
        state: "unacknowledged".into(),
        timestamp: "2025-11-07T15:10:01Z".into(),
        text: wire::AlertText { en: "too much strain".into(), ko: "공구 과부하".into() },
        action: None,
        alert: None,
    }
}

#[tokio::test]
async fn a_message_is_signed_and_carries_its_key() {
    let target = Target::start(vec![|| StatusCode::NO_CONTENT.into_response()]).await;
    let key = Uuid::from_u128(7);
    assert_eq!(webhook(&target.url, true).send(key, &message()).await, Sent::Ok);
    let requests = target.requests.lock().unwrap();
    let (headers, body) = &requests[0];
    let header = |name: &str| headers[name].to_str().unwrap();
    assert_eq!(serde_json::from_slice::<Message>(body).unwrap(), message());
    assert_eq!(header("idempotency-key"), key.to_string());
    assert_eq!(header("content-type"), "application/json");
    let timestamp = header("x-millwright-timestamp");
    assert!((now_s() - timestamp.parse::<i64>().unwrap()).abs() < 10);
    let mut mac = Hmac::<Sha256>::new_from_slice(b"geheim").unwrap();
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(header("x-millwright-signature"), format!("sha256={hex}"));
}

#[test]
fn the_signature_is_that_of_the_documentation() {
    // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
    let expected = "sha256=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
    assert_eq!(signature("secret", "1700000000", "{\"a\":1}"), expected);
}

#[tokio::test]
async fn a_server_error_is_tried_again() {
    let target =
        Target::start(vec![|| StatusCode::INTERNAL_SERVER_ERROR.into_response(), || StatusCode::OK.into_response()])
            .await;
    let webhook = webhook(&target.url, true);
    let first = webhook.send(Uuid::nil(), &message()).await;
    assert_eq!(first, Sent::Later(None, "the target answered 500 Internal Server Error".into()));
    assert_eq!(webhook.send(Uuid::nil(), &message()).await, Sent::Ok);
}

#[tokio::test]
async fn statuses_say_later_or_never() {
    let answers: [(Answer, Option<u64>, bool); 5] = [
        (|| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "17")]).into_response(), Some(17), true),
        (|| (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "soon")]).into_response(), None, true),
        (|| StatusCode::REQUEST_TIMEOUT.into_response(), None, true),
        (|| StatusCode::GONE.into_response(), None, false),
        (|| StatusCode::UNAUTHORIZED.into_response(), None, false),
    ];
    for (answer, after, later) in answers {
        let target = Target::start(vec![answer]).await;
        match webhook(&target.url, true).send(Uuid::nil(), &message()).await {
            Sent::Later(said, _) => assert!(later && said == after),
            Sent::Never(_) => assert!(!later),
            Sent::Ok => panic!("no success"),
        }
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let after = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", text.parse().unwrap());
        retry_after(&headers, 784_111_700)
    };
    assert_eq!(after("120"), Some(120));
    assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(77));
    assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
    assert_eq!(after("-1"), None);
    assert_eq!(after("later"), None);
}

#[tokio::test]
async fn redirects_are_refused() {
    let elsewhere = Target::start(vec![|| StatusCode::OK.into_response()]).await;
    let target =
        Target::start(vec![|| (StatusCode::TEMPORARY_REDIRECT, [("location", "/hook")]).into_response()]).await;
    let sent = webhook(&target.url, true).send(Uuid::nil(), &message()).await;
    assert!(matches!(sent, Sent::Never(_)), "{sent:?}");
    assert_eq!((target.count(), elsewhere.count()), (1, 0));
}

#[tokio::test]
async fn private_targets_are_refused_before_a_byte_is_sent() {
    let target = Target::start(vec![|| StatusCode::OK.into_response()]).await;
    let port = target.url.rsplit(':').next().unwrap().to_owned();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "2130706433", "0x7f.1", "169.254.169.254"] {
        let sent = webhook(&format!("http://{host}:{port}"), false).send(Uuid::nil(), &message()).await;
        assert!(matches!(&sent, Sent::Never(why) if why.contains("is private")), "{host}: {sent:?}");
    }
    assert_eq!(target.count(), 0);
    let named = target.url.replace("127.0.0.1", "localhost");
    assert_eq!(webhook(&named, true).send(Uuid::nil(), &message()).await, Sent::Ok);
}

#[tokio::test]
async fn a_stuck_target_is_left_after_five_seconds() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let began = std::time::Instant::now();
    let sent = webhook(&url, true).send(Uuid::nil(), &message()).await;
    assert!(matches!(sent, Sent::Later(None, _)), "{sent:?}");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let endless: Answer = || {
        let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 8192])));
        Body::from_stream(chunks).into_response()
    };
    let target = Target::start(vec![endless]).await;
    let began = std::time::Instant::now();
    assert_eq!(webhook(&target.url, true).send(Uuid::nil(), &message()).await, Sent::Ok);
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn nobody_there_is_later() {
    let sent = webhook("http://127.0.0.1:9/", true).send(Uuid::nil(), &message()).await;
    assert!(matches!(&sent, Sent::Later(None, why) if !why.contains("127.0.0.1:9/")), "{sent:?}");
}

#[test]
fn what_is_no_web_address_is_refused_and_secrets_are_not_printed() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for url in ["ftp://example.com/token", "example.com/token", "file:///etc/token", ""] {
        let options = WebhookOptions { url: url.into(), secret: None, allow_private: false };
        let Err(error) = Webhook::new(options) else { panic!("{url}") };
        assert!(matches!(error, Error::Url(_)) && !error.to_string().contains("token"), "{error}");
    }
    let options = WebhookOptions {
        url: "https://hooks.example.com/T0/secret".into(),
        secret: Some("geheim".into()),
        allow_private: false,
    };
    let printed = format!("{options:?}");
    assert!(!printed.contains("geheim") && !printed.contains("secret\"") && printed.contains("hooks.example.com"));
    assert!(Webhook::new(options).is_ok());
}
