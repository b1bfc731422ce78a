//! A generic webhook: HMAC-SHA256 signature over timestamp and body, idempotency key, checked target, no redirects.

use crate::{Error, Message, Sent, address::is_public};
use hmac::{Hmac, Mac};
use reqwest::{
    Client, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    redirect::Policy,
};
use sha2::Sha256;
use std::{
    fmt::{Debug, Formatter, Write},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use uuid::Uuid;

/// For one attempt, from resolving the name to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Of an answer so much is read.
const ANSWER_BYTES: usize = 64 << 10;

/// A generic webhook: HMAC-SHA256 signature over timestamp and body, idempotency key, checked target, no redirects.
pub struct Webhook {
    client: Client,
    url: Url,
    secret: Option<String>,
    allow_private: bool,
}

/// How a webhook is set up. Its secret, and the path of its address, which may be one, are not printed.
#[derive(Clone)]
#[expect(missing_docs, reason = "each is the key of that name in the configuration")]
pub struct WebhookOptions {
    pub url: String,
    pub secret: Option<String>,
    /// Private, loopback and link-local targets are allowed.
    pub allow_private: bool,
}

/// An address that is not allowed.
#[derive(Debug, thiserror::Error)]
#[error("target {0} is private")]
struct Private(IpAddr);

/// Resolves names to addresses that were checked: what is connected to is what was checked.
struct CheckedResolver {
    allow_private: bool,
}

impl Webhook {
    /// Checks the options.
    ///
    /// # Errors
    /// The address is no web address, or there is no TLS to be had.
    pub fn new(options: WebhookOptions) -> Result<Webhook, Error> {
        let WebhookOptions { url: text, secret, allow_private } = options;
        let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(url) = url else { return Err(Error::Url(redacted(&text))) };
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(Error::Client("no TLS provider is installed".into()));
        }
        let mut builder = Client::builder()
            .timeout(TIMEOUT)
            .redirect(Policy::none())
            // A proxy would resolve the name itself, unchecked.
            .no_proxy()
            .user_agent(concat!("millwright/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(CheckedResolver { allow_private }));
        if url.scheme() == "http" {
            // A host without certificates can still speak plain HTTP.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| Error::Client(chain(&error)))?;
        Ok(Webhook { client, url, secret, allow_private })
    }

    /// Sends one message under its idempotency key.
    pub(crate) async fn send(&self, key: Uuid, message: &Message) -> Sent {
        if let Err(private) = self.check_literal() {
            return Sent::Never(private.to_string());
        }
        let body = serde_json::to_string(message).expect("a message has string keys");
        let timestamp = now_s().to_string();
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", key.to_string())
            .header("X-Millwright-Timestamp", &timestamp);
        if let Some(secret) = &self.secret {
            request = request.header("X-Millwright-Signature", signature(secret, &timestamp, &body));
        }
        match request.body(body).send().await {
            Ok(answer) => judge(answer).await,
            Err(error) => match private_in(&error) {
                Some(private) => Sent::Never(private.to_string()),
                None => Sent::Later(None, chain(&error.without_url())),
            },
        }
    }

    /// An address written in the URL is connected to without being resolved.
    fn check_literal(&self) -> Result<(), Private> {
        let host = self.url.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            Ok(address) if !self.allow_private && !is_public(address) => Err(Private(address)),
            _ => Ok(()),
        }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One private address is enough: a name that has both is no mistake.
            if let Some(private) = found.iter().find(|found| !allow_private && !is_public(found.ip())) {
                return Err(Private(private.ip()).into());
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// What an answer means.
async fn judge(answer: Response) -> Sent {
    let status = answer.status();
    let retry_after = retry_after(answer.headers(), now_s());
    drain(answer).await;
    let why = format!("the target answered {status}");
    match status {
        status if status.is_success() => Sent::Ok,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Sent::Later(retry_after, why)
        }
        status if status.is_server_error() => Sent::Later(retry_after, why),
        status if status.is_redirection() => Sent::Never(format!("{why}: redirects are not followed")),
        _ => Sent::Never(why),
    }
}

/// Reads an answer to its end, so that the connection can be used again; one that is too long is cut off.
async fn drain(mut answer: Response) {
    let mut read = 0;
    while read <= ANSWER_BYTES
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        read += chunk.len();
    }
}

/// `Retry-After` in seconds from now: a number or an HTTP date.
fn retry_after(headers: &HeaderMap, now_s: i64) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(u64::try_from(date.timestamp().as_second() - now_s).unwrap_or(0))
}

/// `sha256=` and the HMAC of "timestamp.body" in lowercase hexadecimal.
fn signature(secret: &str, timestamp: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length will do");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().fold(String::from("sha256="), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The private address that an error is about.
fn private_in(error: &reqwest::Error) -> Option<&Private> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(private) = error.downcast_ref() {
            return Some(private);
        }
        cause = error.source();
    }
    None
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// An address without what may be a secret in it.
fn redacted(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) => format!("{}://{}/***", url.scheme(), url.host_str().unwrap_or_default()),
        Err(_) => url.split(['/', '?', '#', '@']).next().unwrap_or_default().to_owned(),
    }
}

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

impl Debug for WebhookOptions {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookOptions")
            .field("url", &redacted(&self.url))
            .field("secret", &self.secret.as_ref().map(|_| "***"))
            .field("allow_private", &self.allow_private)
            .finish()
    }
}

#[cfg(test)]
mod tests;
