//! Bodies of readings: read within a budget of memory and time, unpacked within bounds.

use crate::problem::Problem;
use axum::{
    body::Bytes,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use flate2::bufread::MultiGzDecoder;
use futures_util::StreamExt;
use std::{io::Read, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest body, as it is sent.
const BODY_MAX: usize = 16 * 1024 * 1024;
/// Largest body once it is unpacked.
const UNPACKED_MAX: usize = 64 * 1024 * 1024;
/// Bodies in hand take at most so much together, with what is made of them.
const BUDGET: usize = 512 * 1024 * 1024;
/// So long a body waits for its share.
const PATIENCE: Duration = Duration::from_secs(5);
/// No part of a body may take longer.
const CHUNK_TIME: Duration = Duration::from_secs(20);
/// zstd asks for a window of at most 2^26 bytes, 64 MiB.
const WINDOW_LOG_MAX: u32 = 26;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Plain,
    Gzip,
    Zstd,
}

impl Coding {
    /// What the headers say.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Coding, Problem> {
        let Some(coding) = headers.get(header::CONTENT_ENCODING) else { return Ok(Coding::Plain) };
        match coding.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Coding::Plain),
            "gzip" | "x-gzip" => Ok(Coding::Gzip),
            "zstd" => Ok(Coding::Zstd),
            other => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "bad_encoding",
                format!("content-encoding `{other}` is none of gzip, zstd, identity"),
            )),
        }
    }
}

/// Memory for bodies in hand, in KiB.
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Budget {
        Budget(Arc::new(Semaphore::new(BUDGET / 1024)))
    }
}

impl Budget {
    /// Waits for room; the room is given back when the permit is dropped.
    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let kib = u32::try_from(bytes.min(BUDGET).div_ceil(1024)).unwrap_or(u32::MAX);
        match tokio::time::timeout(PATIENCE, self.0.clone().acquire_many_owned(kib)).await {
            Ok(Ok(room)) => Ok(room),
            _ => {
                let detail = "too many bodies at once: nothing of this one was taken";
                Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).after(1))
            }
        }
    }
}

/// Reads a body whole, once there is room for it.
pub(crate) async fn read(
    request: Request,
    coding: Coding,
    budget: &Budget,
) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > BODY_MAX) {
        return Err(too_large("the body", BODY_MAX));
    }
    let sent = length.unwrap_or(BODY_MAX);
    // What is decoded takes no more than the text, what is encoded less.
    let room = match coding {
        Coding::Plain => budget.room(3 * sent),
        Coding::Gzip | Coding::Zstd => budget.room(sent + 2 * UNPACKED_MAX),
    };
    let room = room.await?;

    let mut chunks = request.into_body().into_data_stream();
    let mut first = Bytes::new();
    let mut body = Vec::new();
    loop {
        let chunk = tokio::time::timeout(CHUNK_TIME, chunks.next()).await.map_err(|_| {
            Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "slow",
                "the body stopped coming for 20 s: nothing of it was taken",
            )
        })?;
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|error| Problem::bad("cut_off", format!("the body was cut off: {error}")))?;
        if first.len() + body.len() + chunk.len() > BODY_MAX {
            return Err(too_large("the body", BODY_MAX));
        }
        // A body of one chunk is not copied.
        if first.is_empty() && body.is_empty() {
            first = chunk;
            continue;
        }
        if body.is_empty() {
            body.reserve_exact(length.unwrap_or(2 * (first.len() + chunk.len())));
            body.extend_from_slice(&std::mem::take(&mut first));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((if body.is_empty() { first } else { body.into() }, room))
}

/// Unpacks a body.
pub(crate) fn unpack(coding: Coding, body: &[u8]) -> Result<Vec<u8>, Problem> {
    let broken = |error: std::io::Error| Problem::bad("bad_encoding", format!("the body cannot be unpacked: {error}"));
    let mut unpacked = Vec::new();
    let limit = UNPACKED_MAX as u64 + 1;
    match coding {
        Coding::Plain => unpacked.extend_from_slice(body),
        Coding::Gzip => {
            MultiGzDecoder::new(body).take(limit).read_to_end(&mut unpacked).map_err(broken)?;
        }
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(broken)?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(broken)?;
            decoder.take(limit).read_to_end(&mut unpacked).map_err(broken)?;
        }
    }
    if unpacked.len() > UNPACKED_MAX {
        return Err(too_large("the unpacked body", UNPACKED_MAX));
    }
    Ok(unpacked)
}

fn too_large(what: &str, max: usize) -> Problem {
    let detail = format!("{what} is larger than {} MiB: nothing of it was taken", max / (1024 * 1024));
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn code(result: Result<Vec<u8>, Problem>) -> String {
        serde_json::to_value(result.unwrap_err()).unwrap()["code"].as_str().unwrap().to_owned()
    }

    #[test]
    fn packed_bodies_are_unpacked() {
        let text = b"{}\n".repeat(1000);
        assert_eq!(unpack(Coding::Gzip, &gzip(&text)).unwrap(), text);
        assert_eq!(unpack(Coding::Zstd, &zstd::encode_all(&text[..], 3).unwrap()).unwrap(), text);
        assert_eq!(
            unpack(Coding::Gzip, &[gzip(b"a"), gzip(b"b")].concat()).unwrap(),
            b"ab",
            "members follow each other"
        );
    }

    #[test]
    fn what_does_not_unpack_is_refused() {
        assert_eq!(code(unpack(Coding::Gzip, b"no gzip")), "bad_encoding");
        assert_eq!(code(unpack(Coding::Zstd, b"no zstd")), "bad_encoding");
        let packed = gzip(b"cut off in the middle");
        assert_eq!(code(unpack(Coding::Gzip, &packed[..packed.len() - 6])), "bad_encoding");
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let spaces = vec![b' '; UNPACKED_MAX + 1];
        assert_eq!(code(unpack(Coding::Gzip, &gzip(&spaces))), "too_large");
        assert_eq!(code(unpack(Coding::Zstd, &zstd::encode_all(&spaces[..], 1).unwrap())), "too_large");
    }
}
