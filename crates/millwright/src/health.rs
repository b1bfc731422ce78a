//! `millwright health`: asks a running instance how it is.

use crate::{cli::Output, failure::Failure, sink};
use anyhow::{Context, Result};
use serde_json::json;

/// Runs the command.
///
/// # Errors
/// Nothing answers, or the instance is not ready.
pub fn run(url: &str, output: Output) -> Result<()> {
    let url = url.trim_end_matches('/');
    if !sink::is_url(url) {
        return Err(Failure::usage("MW-0042", format!("`{url}` is no address"))
            .hint("give e.g. http://127.0.0.1:8080")
            .into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let client = sink::client()?;
    let asked = runtime.block_on(async {
        let answer = client.get(format!("{url}/readyz")).send().await?;
        Ok((answer.status(), answer.text().await?))
    });
    let (status, body) = asked.map_err(|error: reqwest::Error| sink::no_answer(url, &error))?;
    let ready = status.is_success();
    if output == Output::Json {
        sink::print(&format!("{}\n", json!({ "url": url, "ready": ready, "status": status.as_u16() })))?;
    }
    if !ready {
        let what = format!("{url} is not ready: {status} {}", body.trim());
        return Err(Failure::failed("MW-0043", what.trim_end()).into());
    }
    if output == Output::Text {
        sink::print(&format!("{url} is ready\n"))?;
    }
    Ok(())
}
