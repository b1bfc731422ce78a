//! Where `simulate` and `replay` send their readings: a file, stdout, or a running instance.

use crate::{cli::Output, failure::Failure};
use anyhow::{Context, Result, bail};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufWriter, ErrorKind, Write},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Bytes of lines that are sent to an instance at once, at most.
const BODY_MAX: usize = 256 * 1024;
/// So long is a busy instance asked again, and one that went away.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether anything of ours has gone to stdout, so that a document after it would be a second one.
static PRINTED: AtomicBool = AtomicBool::new(false);

/// A place for JSON lines.
pub struct Sink {
    to: To,
    lines: String,
    count: u64,
    sent: Sent,
}

/// What has become of the readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Lines that were written, or posted.
    pub readings: u64,
    /// Of these, what an instance refused.
    pub rejected: u64,
}

/// Whether there is any use in going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    /// More can be sent.
    On,
    /// Whoever read stdout has closed it.
    NoFurther,
}

enum To {
    Writer { name: String, writer: Box<dyn Write> },
    Instance(Instance),
}

struct Instance {
    url: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
    has_answered: bool,
}

impl Sink {
    /// Opens a file, `-` for stdout, or the address of a running instance.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn open(to: &str) -> Result<Sink> {
        let to = if is_url(to) {
            To::Instance(Instance::new(to)?)
        } else if to == "-" {
            // Stdout belongs to the readings from here on.
            PRINTED.store(true, Ordering::Relaxed);
            To::Writer { name: "stdout".to_owned(), writer: Box::new(BufWriter::new(std::io::stdout())) }
        } else {
            let file = File::create(Path::new(to)).with_context(|| format!("create {to}"))?;
            To::Writer { name: to.to_owned(), writer: Box::new(BufWriter::new(file)) }
        };
        Ok(Sink { to, lines: String::new(), count: 0, sent: Sent::default() })
    }

    /// Adds one line, which `write` appends without its end.
    ///
    /// # Errors
    /// Lines could not be sent.
    pub fn line(&mut self, write: impl FnOnce(&mut String)) -> Result<Goes> {
        write(&mut self.lines);
        self.lines.push('\n');
        self.count += 1;
        // A reading with every optional key takes less than 4 KiB.
        if self.lines.len() + 4096 > BODY_MAX { self.flush() } else { Ok(Goes::On) }
    }

    /// Sends what has come together.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn flush(&mut self) -> Result<Goes> {
        if self.count == 0 {
            return Ok(Goes::On);
        }
        match &mut self.to {
            To::Writer { name, writer } => {
                let written = writer.write_all(self.lines.as_bytes()).and_then(|()| writer.flush());
                match written {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Goes::NoFurther),
                    written => written.with_context(|| format!("write {name}"))?,
                }
            }
            To::Instance(instance) => self.sent.rejected += instance.post(&self.lines)?,
        }
        self.sent.readings += self.count;
        self.count = 0;
        self.lines.clear();
        Ok(Goes::On)
    }

    /// What was sent.
    pub fn sent(&self) -> Sent {
        self.sent
    }
}

/// Whether an argument is the address of an instance.
pub fn is_url(to: &str) -> bool {
    to.starts_with("http://") || to.starts_with("https://")
}

impl Instance {
    fn new(url: &str) -> Result<Instance> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        Ok(Instance { url: url.trim_end_matches('/').to_owned(), client: client()?, runtime, has_answered: false })
    }

    /// Posts lines until they are durable; how many were refused.
    fn post(&mut self, lines: &str) -> Result<u64> {
        let url = format!("{}/api/readings", self.url);
        let patience = std::time::Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(500);
        loop {
            let wait = match self.runtime.block_on(post(&self.client, &url, lines)) {
                Ok((StatusCode::ACCEPTED, body, _)) => {
                    self.has_answered = true;
                    return Ok(body["rejected"].as_u64().unwrap_or(0));
                }
                Ok((StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _, retry_after)) => {
                    self.has_answered = true;
                    retry_after.unwrap_or(pause)
                }
                Ok((status, body, _)) => {
                    let title = body["detail"].as_str().or(body["title"].as_str()).unwrap_or_default();
                    bail!("POST {url}: {status} {title}");
                }
                // Sent again, the readings are found to be duplicates if they had come through.
                Err(error) if self.has_answered && std::time::Instant::now() < patience => {
                    eprintln!("{}: {}; trying again in {:.1} s", self.url, cause(&error), pause.as_secs_f64());
                    pause
                }
                Err(error) => return Err(no_answer(&self.url, &error).into()),
            };
            if std::time::Instant::now() + wait > patience {
                return Err(Failure::dependency(
                    "MW-0041",
                    format!("POST {url}: the instance has been too busy for {} s", PATIENCE.as_secs()),
                )
                .into());
            }
            std::thread::sleep(wait);
            pause = (pause * 2).min(Duration::from_secs(8));
        }
    }
}

/// One request: status, body, and after how long to ask again.
async fn post(
    client: &Client,
    url: &str,
    lines: &str,
) -> Result<(StatusCode, Value, Option<Duration>), reqwest::Error> {
    let request = client.post(url).header("content-type", "application/x-ndjson").body(lines.to_owned());
    let answer = request.send().await?;
    let status = answer.status();
    let seconds = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let body = answer.text().await?;
    Ok((status, serde_json::from_str(&body).unwrap_or(json!({})), seconds.map(Duration::from_secs)))
}

/// A client for requests to an instance.
///
/// # Errors
/// The system has no randomness or the like.
pub fn client() -> Result<Client> {
    // Fails only where a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(Duration::from_secs(30)).build().context("make an HTTP client")
}

/// Nothing answers at an address.
pub fn no_answer(url: &str, error: &reqwest::Error) -> Failure {
    Failure::dependency("MW-0040", format!("no Millwright answers at {url}: {}", cause(error)))
        .hint("start one with `millwright up`, or give the address that it prints")
}

/// The innermost cause, which names what the system said.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Writes a result to stdout; a reader that has gone away is no failure.
///
/// # Errors
/// It cannot be written.
pub fn print(text: &str) -> Result<()> {
    PRINTED.store(true, Ordering::Relaxed);
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write stdout"),
    }
}

/// Whether anything has gone to stdout.
pub fn has_printed() -> bool {
    PRINTED.load(Ordering::Relaxed)
}

/// Says what was sent: a JSON document on stdout where the readings have not taken it, all else on stderr.
///
/// # Errors
/// Stdout cannot be written to.
pub fn tell_summary(summary: &str, output: Output, to: &str) -> Result<()> {
    if output == Output::Json && to != "-" {
        return print(&format!("{summary}\n"));
    }
    eprintln!("{summary}");
    Ok(())
}
