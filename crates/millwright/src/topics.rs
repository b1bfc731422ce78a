//! `millwright topics`: the topics of a plant's Kafka.

use crate::{
    cli::{Output, TopicsCommand},
    config::{self, Config, RelayKind},
    failure::Failure,
    service::{self, Plant},
    sink,
};
use anyhow::{Context, Result};
use bus::kafka::admin::{self, ApplyError, Retention, Wanted};
use serde_json::json;

/// The `topic.prefix` of the connector that deploy/debezium describes.
const DEBEZIUM_PREFIX: &str = "millwright";

/// Runs the command.
///
/// # Errors
/// The configuration is wrong, no broker answers, or a topic cannot be made as it should be.
pub fn run(command: TopicsCommand, output: Output) -> Result<()> {
    let TopicsCommand::Apply { file, dry_run } = command;
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let (config, _) = config::load(file.config.as_deref(), &environment, &[])?;
    let plant = service::plant(&config)?;
    let wanted = wanted(&config, &plant);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let changes = runtime.block_on(async {
        let changes = admin::difference(&plant.kafka, &wanted).await?;
        if !dry_run {
            admin::apply(&plant.kafka, &changes).await?;
        }
        Ok(changes)
    });
    let changes = changes.map_err(|error: ApplyError| {
        Failure::dependency("MW-0064", format!("topics: {:#}", anyhow::Error::from(error))).hint(
            "bus.brokers says where the brokers are; a broker names its own address to clients (advertised.listeners)",
        )
    })?;
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let text = match output {
        Output::Json => format!("{}\n", json!({ "changes": lines, "applied": !dry_run })),
        Output::Text if lines.is_empty() => "every topic is as it should be\n".to_owned(),
        Output::Text => lines.iter().map(|line| format!("{line}\n")).collect(),
    };
    sink::print(&text)
}

/// The topics of a plant as they should be.
pub fn wanted(config: &Config, plant: &Plant) -> Vec<Wanted> {
    let heartbeats = match config.relay.kind {
        RelayKind::Debezium => vec![DEBEZIUM_PREFIX.to_owned()],
        RelayKind::Millwright => Vec::new(),
    };
    admin::wanted(&plant.kafka, Retention::default(), &heartbeats)
}
