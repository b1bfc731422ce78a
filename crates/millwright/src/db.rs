//! `millwright db`: the tables of a plant's databases.

use crate::{
    cli::{DbCommand, Output},
    config,
    failure::Failure,
    service, sink,
};
use anyhow::{Context, Result};
use serde_json::json;
use std::path::Path;
use store::postgres::{self, Migration, Which};

/// Runs the command.
///
/// # Errors
/// The configuration is wrong, or a database is not reachable or refuses.
pub fn run(command: DbCommand, output: Output) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    match command {
        DbCommand::Migrate { file } => runtime.block_on(migrate(file.config.as_deref(), output)),
        DbCommand::Status { file } => runtime.block_on(status(file.config.as_deref(), output)),
    }
}

/// The databases of the configuration.
fn databases(file: Option<&Path>) -> Result<[(Which, String); 2]> {
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let (config, _) = config::load(file, &environment, &[])?;
    let plant = service::plant(&config)?;
    Ok([(Which::Main, plant.main), (Which::Ai, plant.ai)])
}

async fn migrate(file: Option<&Path>, output: Output) -> Result<()> {
    let mut done = serde_json::Map::new();
    for (which, url) in databases(file)? {
        let applied = postgres::migrate(&url, which).await.map_err(|error| failed(which, error))?;
        if output == Output::Text {
            let what = if applied.is_empty() { "nothing to do".to_owned() } else { applied.join(", ") };
            sink::print(&format!("{}: {what}\n", which.as_str()))?;
        }
        done.insert(which.as_str().to_owned(), json!(applied));
    }
    if output == Output::Json {
        sink::print(&format!("{}\n", json!({ "applied": done })))?;
    }
    Ok(())
}

async fn status(file: Option<&Path>, output: Output) -> Result<()> {
    let mut all = serde_json::Map::new();
    for (which, url) in databases(file)? {
        let migrations = postgres::status(&url, which).await.map_err(|error| failed(which, error))?;
        let mut rows = Vec::new();
        for Migration { number, name, applied_us, newer } in migrations {
            let applied = applied_us.map(wire::format_time);
            if output == Output::Text {
                let note = if newer { " (of a later release)" } else { "" };
                let state = applied.as_deref().unwrap_or("not applied: run `millwright db migrate`");
                sink::print(&format!("{:4} {name:24} {state}{note}\n", which.as_str()))?;
            }
            rows.push(json!({ "number": number, "name": name, "applied_at": applied, "newer": newer }));
        }
        all.insert(which.as_str().to_owned(), rows.into());
    }
    if output == Output::Json {
        sink::print(&format!("{}\n", serde_json::Value::Object(all)))?;
    }
    Ok(())
}

/// A database that is not reachable or refuses.
pub fn failed(which: Which, error: postgres::Error) -> Failure {
    let what = format!("{} database: {:#}", which.as_str(), anyhow::Error::from(error));
    Failure::dependency("MW-0063", what)
        .hint(format!("postgres.{} of the configuration says where it is; is it running?", which.as_str()))
}
