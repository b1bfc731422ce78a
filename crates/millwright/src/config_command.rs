//! `millwright config`: write, show and check the configuration.

use crate::{
    cli::{ConfigCommand, Output},
    config::{self, Origin},
    failure::Failure,
    settings::Checked,
    sink,
};
use anyhow::{Context, Result};
use serde_json::json;
use std::path::Path;

/// Runs the command.
pub fn run(command: ConfigCommand, output: Output) -> Result<()> {
    match command {
        ConfigCommand::Init { file, yes } => init(&file, yes, output),
        ConfigCommand::Explain { file } => explain(file.config.as_deref(), output),
        ConfigCommand::Check { file } => check(file.as_deref(), output),
    }
}

/// Checks what `up` would run with: the file, if any, under the environment.
fn check(file: Option<&Path>, output: Output) -> Result<()> {
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let (config, origins) = config::load(file, &environment, &[])?;
    Checked::new(&config, &origins)?;
    let file = file.map(|file| file.display().to_string());
    let names: Vec<&str> = origins
        .values()
        .filter_map(|(_, origin)| if let Origin::Environment(name) = origin { Some(&**name) } else { None })
        .collect();
    let with = if names.is_empty() { String::new() } else { format!(" with {} of the environment", names.join(", ")) };
    eprintln!("{}{with} is fine", file.as_deref().unwrap_or("the default configuration"));
    if output == Output::Json {
        sink::print(&format!("{}\n", json!({ "ok": true, "file": file, "environment": names })))?;
    }
    Ok(())
}

fn init(file: &Path, yes: bool, output: Output) -> Result<()> {
    if file == Path::new("-") {
        return match output {
            Output::Text => sink::print(config::DEFAULTS),
            Output::Json => sink::print(&format!("{}\n", json!({ "document": config::DEFAULTS }))),
        };
    }
    if file.exists() && !yes {
        return Err(Failure::failed("MW-0019", format!("{} exists", file.display()))
            .hint("give another name, or --yes to overwrite it")
            .into());
    }
    std::fs::write(file, config::DEFAULTS).with_context(|| format!("write {}", file.display()))?;
    eprintln!("wrote {}; use it with `millwright up --config {}`", file.display(), file.display());
    if output == Output::Json {
        sink::print(&format!("{}\n", json!({ "file": file.display().to_string() })))?;
    }
    Ok(())
}

fn explain(file: Option<&Path>, output: Output) -> Result<()> {
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let (_, origins) = config::load(file, &environment, &[])?;
    if output == Output::Json {
        let document: serde_json::Map<String, serde_json::Value> = origins
            .iter()
            .map(|(key, (value, origin))| {
                (key.clone(), json!({ "value": shown(key, value), "origin": origin.to_string() }))
            })
            .collect();
        println!("{}", serde_json::Value::Object(document));
        return Ok(());
    }
    for (key, (value, origin)) in &origins {
        println!("{key:24} {:24} {origin}", shown(key, value));
    }
    Ok(())
}

/// A value as it may be shown: no secret leaves here.
fn shown(key: &str, value: &toml::Value) -> String {
    if key != "webhooks" {
        return value.to_string();
    }
    let mut value = value.clone();
    for hook in value.as_array_mut().into_iter().flatten() {
        if let Some(secret) = hook.get_mut("secret") {
            *secret = toml::Value::String("***".to_owned());
        }
    }
    value.to_string()
}
