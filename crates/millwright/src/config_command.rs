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
    let mut value = value.clone();
    match key {
        "webhooks" => {
            for hook in value.as_array_mut().into_iter().flatten() {
                if let Some(secret) = hook.get_mut("secret") {
                    *secret = toml::Value::String("***".to_owned());
                }
            }
        }
        "postgres.main" | "postgres.ai" | "redis.url" | "registry.url" => {
            if let toml::Value::String(addresses) = &mut value {
                *addresses = addresses.split(',').map(without_password).collect::<Vec<_>>().join(",");
            }
        }
        "registry.credentials" => {
            let is_open = value
                .as_str()
                .is_some_and(|text| text.is_empty() || text.starts_with("env:") || text.starts_with("file:"));
            if !is_open {
                value = toml::Value::String("***".to_owned());
            }
        }
        "bus.settings" => {
            for setting in value.as_array_mut().into_iter().flatten() {
                if let Some((name, _)) = setting.as_str().and_then(|setting| setting.split_once('='))
                    && ["password", "secret", "key", "jaas"].iter().any(|word| name.contains(word))
                {
                    *setting = toml::Value::String(format!("{name}=***"));
                }
            }
        }
        _ => {}
    }
    value.to_string()
}

/// An address, its password hidden. One that says `password=`, in the older form of PostgreSQL's addresses or among its
/// parameters, is hidden whole.
fn without_password(address: &str) -> String {
    if address.contains("password=") {
        return "***".to_owned();
    }
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    // A password may hold an `@`; the host may not.
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(user.to_owned(), |(user, _)| format!("{user}:***"));
            format!("{scheme}://{user}@{host}")
        }
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let text = |key: &str, value: &str| shown(key, &value.into());
        assert_eq!(text("postgres.ai", "postgresql://mw:p@ss@db:5432/x"), r#""postgresql://mw:***@db:5432/x""#);
        assert_eq!(text("postgres.ai", "postgresql://mw@db/x"), r#""postgresql://mw@db/x""#);
        assert_eq!(text("postgres.main", "host=db password=secret"), r#""***""#);
        assert_eq!(text("postgres.main", "postgresql://db/x?user=a&password=secret"), r#""***""#);
        assert_eq!(text("postgres.main", "env:MAIN"), r#""env:MAIN""#);
        assert_eq!(text("redis.url", "redis://:s@a:1,redis://b:2"), r#""redis://:***@a:1,redis://b:2""#);
        assert_eq!(text("registry.credentials", "mw:secret"), r#""***""#);
        assert_eq!(text("registry.credentials", "env:REGISTRY"), r#""env:REGISTRY""#);
        let settings = toml::Value::from(vec!["sasl.username=a", "sasl.password=b", "ssl.key.password=c"]);
        let shown = shown("bus.settings", &settings);
        assert!(shown.contains("sasl.username=a") && !shown.contains("=b") && !shown.contains("=c"), "{shown}");
    }
}
