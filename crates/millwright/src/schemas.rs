//! `millwright schemas`: the schemas of a plant's topics, and the registry that holds them.

use crate::{
    class,
    cli::{ConfigFile, Output, SchemaFormat, SchemaTopic, SchemasCommand},
    config::{self, Config},
    failure::Failure,
    service, sink,
};
use anyhow::{Context, Result};
use bus::{
    Topic,
    registry::{self, admin},
};
use serde_json::{Value, json};

/// Runs the command.
///
/// # Errors
/// The configuration is wrong, the registry does not answer or refuses, or a schema does not fit.
pub fn run(command: SchemasCommand, output: Output) -> Result<()> {
    match command {
        SchemasCommand::Apply { file, dry_run } => apply(&file, dry_run, output),
        SchemasCommand::Check(file) => check(&file, output),
        SchemasCommand::Show { topic, format, file } => show(topic, format, &file),
    }
}

fn apply(file: &ConfigFile, dry_run: bool, output: Output) -> Result<()> {
    let registry = options(file)?;
    let changes = block_on(async {
        let changes = admin::difference(&registry, topic).await?;
        if !dry_run {
            admin::apply(&registry, &changes).await?;
        }
        Ok(changes)
    })?;
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let text = match output {
        Output::Json => format!("{}\n", json!({ "changes": lines, "applied": !dry_run })),
        Output::Text if lines.is_empty() => "every schema is as it should be\n".to_owned(),
        Output::Text => lines.iter().map(|line| format!("{line}\n")).collect(),
    };
    sink::print(&text)
}

fn check(file: &ConfigFile, output: Output) -> Result<()> {
    let registry = options(file)?;
    let told = block_on(async { admin::check(&registry, topic).await })?;
    let text = match output {
        Output::Json => {
            let subjects: Vec<Value> = told
                .iter()
                .map(|(subject, why)| json!({ "subject": subject, "compatible": why.is_none(), "reason": why }))
                .collect();
            format!("{}\n", json!({ "subjects": subjects }))
        }
        Output::Text => told
            .iter()
            .map(|(subject, why)| match why {
                None => format!("{subject}: fits\n"),
                Some(why) => format!("{subject}: does not fit: {why}\n"),
            })
            .collect(),
    };
    sink::print(&text)?;
    let broken: Vec<&str> = told.iter().filter(|(_, why)| why.is_some()).map(|(subject, _)| &**subject).collect();
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::failed("MW-0067", format!("schemas: {} would break who reads it", broken.join(", ")))
        .hint("add keys that may be left out; what readers were promised cannot go")
        .into())
}

fn show(topic: SchemaTopic, format: SchemaFormat, file: &ConfigFile) -> Result<()> {
    let schema = match topic {
        SchemaTopic::Readings => {
            let config = load(file)?;
            let names: Vec<String> = config.classes.iter().map(|class| class.display().to_string()).collect();
            wire::reading_schema(&class::catalogue(names.iter().map(String::as_str)).context("classes")?)
        }
        SchemaTopic::Alerts => wire::alert_schema(),
    };
    let schema = match format {
        SchemaFormat::Json => schema,
        SchemaFormat::Avro => wire::avro_schema(&schema),
    };
    sink::print(&format!("{schema:#}\n"))
}

fn load(file: &ConfigFile) -> Result<Config> {
    let environment: Vec<(String, String)> = std::env::vars().collect();
    Ok(config::load(file.config.as_deref(), &environment, &[])?.0)
}

fn options(file: &ConfigFile) -> Result<registry::Options> {
    let registry = service::registry(&load(file)?)?.ok_or_else(|| {
        Failure::configuration("MW-0066", "registry.url is empty: there is no registry")
            .hint("`millwright config init -` explains every key")
    })?;
    Ok(registry)
}

fn topic(topic: Topic) -> String {
    topic.name().to_owned()
}

fn block_on<T>(asked: impl Future<Output = Result<T, registry::Error>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(asked).map_err(|error| {
        let hint = match &error {
            registry::Error::Refused { status, .. } if status.is_client_error() => {
                "`millwright schemas check` says what does not fit; between JSON and Avro a subject changes only by being deleted for good"
            }
            _ => "registry.url says where the registry is; of Apicurio it ends with /apis/ccompat/v7",
        };
        Failure::dependency("MW-0068", format!("schemas: {:#}", anyhow::Error::from(error))).hint(hint).into()
    })
}
