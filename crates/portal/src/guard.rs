//! Who is let in by name, and what every answer carries.
//!
//! A web page of another site can make a browser send requests to loopback, and a name that its owner points at 127.0.0.1
//! makes them look like its own: so `Host` must be a loopback name with our port, and `Origin`, where there is one, the
//! same.

use crate::{app::App, problem::Problem};
use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::net::IpAddr;

/// No script, style, font or connection but our own, and none inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Lets a request in or not, and adds the headers that every answer has.
pub(crate) async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = match named_well(&request, app.port) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn named_well(request: &Request, port: u16) -> Result<(), Problem> {
    let text = |name: HeaderName| match request.headers().get(name) {
        Some(value) => value.to_str().map(Some).map_err(|_| refused("Host and Origin must be ASCII")),
        None => Ok(None),
    };
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => text(header::HOST)?,
    };
    let Some(host) = host else { return Err(Problem::bad("no_host", "the request names no Host")) };
    if !is_ours(host, port) {
        return Err(refused(&format!("Host `{host}` is neither localhost nor a loopback address with port {port}")));
    }
    if let Some(origin) = text(header::ORIGIN)? {
        let named = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if !named.is_some_and(|named| named.eq_ignore_ascii_case(host)) {
            return Err(refused(&format!("Origin `{origin}` is another site than Host `{host}`")));
        }
    }
    Ok(())
}

fn refused(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "not_this_host", detail)
}

/// Whether an authority is a loopback name or address with our port or none.
fn is_ours(authority: &str, port: u16) -> bool {
    let Ok(parsed) = authority.parse::<Authority>() else { return false };
    if authority.contains('@') {
        return false;
    }
    // `host:` and `host:99999` have no number for a port, which must not read as none.
    let named_port = authority.rsplit_once(':').filter(|(_, after)| !after.contains(']'));
    if named_port.is_some() && parsed.port_u16() != Some(port) {
        return false;
    }
    let name = parsed.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_with_our_port_are_ours() {
        for ours in
            ["localhost:8080", "127.0.0.1:8080", "127.1.2.3:8080", "[::1]:8080", "LOCALHOST", "127.0.0.1", "[::1]"]
        {
            assert!(is_ours(ours, 8080), "{ours}");
        }
        for other in [
            "",
            "example.com:8080",
            "localhost.example.com",
            "localhost:8081",
            "localhost:",
            "127.0.0.1:99999",
            "user@localhost:8080",
            "192.168.0.1:8080",
            "[::2]:8080",
            "::1",
            "localhost/..",
        ] {
            assert!(!is_ours(other, 8080), "{other}");
        }
    }
}
