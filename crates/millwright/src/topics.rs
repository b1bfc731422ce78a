//! `millwright topics`: the topics of a plant's Kafka.

use crate::{
    cli::{Output, ResumeFrom, TopicsCommand},
    config::{self, Config, RelayKind},
    db,
    failure::Failure,
    service::{self, Plant},
    sink,
};
use anyhow::{Context, Result};
use bus::{
    Bus, Topic,
    kafka::admin::{self, ApplyError, Retention, Wanted},
};
use serde_json::json;
use store::postgres::{self, Place, Which};

/// The `topic.prefix` of the connector that deploy/debezium describes.
const DEBEZIUM_PREFIX: &str = "millwright";

/// Runs the command.
///
/// # Errors
/// The configuration is wrong, no broker answers, or a topic cannot be made as it should be.
pub fn run(command: TopicsCommand, output: Output) -> Result<()> {
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let (TopicsCommand::Apply { file, .. } | TopicsCommand::Resume { file, .. }) = &command;
    let (config, _) = config::load(file.config.as_deref(), &environment, &[])?;
    let plant = service::plant(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let (lines, applied, nothing) = match command {
        TopicsCommand::Apply { dry_run, .. } => {
            let lines = runtime.block_on(apply(&config, &plant, dry_run)).map_err(|error| failed(error.into()))?;
            (lines, !dry_run, "every topic is as it should be\n")
        }
        TopicsCommand::Resume { from, topic, all, dry_run, .. } => {
            let wanted = Resume { from, topic, all, dry_run };
            (runtime.block_on(resume(&plant, &wanted))?, !dry_run, "every position lies on its log\n")
        }
    };
    let text = match output {
        Output::Json => format!("{}\n", json!({ "changes": lines, "applied": applied })),
        Output::Text if lines.is_empty() => nothing.to_owned(),
        Output::Text => lines.iter().map(|line| format!("{line}\n")).collect(),
    };
    sink::print(&text)
}

fn failed(error: anyhow::Error) -> Failure {
    Failure::dependency("MW-0064", format!("topics: {error:#}")).hint(
        "bus.brokers says where the brokers are; a broker names its own address to clients (advertised.listeners)",
    )
}

async fn apply(config: &Config, plant: &Plant, dry_run: bool) -> Result<Vec<String>, ApplyError> {
    let changes = admin::difference(&plant.kafka, &wanted(config, plant)).await?;
    if !dry_run {
        admin::apply(&plant.kafka, &changes).await?;
    }
    Ok(changes.iter().map(ToString::to_string).collect())
}

/// Positions that lie above the end of their log, as [`resume`] would move them.
///
/// # Errors
/// An engine is not reachable, or a topic or a table is not there.
pub async fn cut(plant: &Plant) -> Result<Vec<String>> {
    resume(plant, &Resume { from: ResumeFrom::Begin, topic: None, all: false, dry_run: true }).await
}

/// What is to be gone on with.
struct Resume {
    from: ResumeFrom,
    topic: Option<String>,
    all: bool,
    dry_run: bool,
}

/// Moves the positions that no log reaches; says each.
async fn resume(plant: &Plant, wanted: &Resume) -> Result<Vec<String>> {
    let readers = [
        (Which::Main, &plant.main, "ingest", Topic::Readings),
        (Which::Main, &plant.main, "portal", Topic::Alerts),
        (Which::Ai, &plant.ai, "detect", Topic::Readings),
    ];
    if let Some(topic) = &wanted.topic
        && !readers.iter().any(|(.., known)| known.name() == topic)
    {
        let names = [Topic::Readings.name(), Topic::Alerts.name()].join(" or ");
        return Err(Failure::usage("MW-0069", format!("--topic {topic}: positions are kept of {names}")).into());
    }
    let bus = Bus::connect(plant.kafka.clone()).await.map_err(|error| failed(error.into()))?;
    let mut lines = Vec::new();
    for (which, url, reader, topic) in readers {
        if wanted.topic.as_ref().is_some_and(|name| topic.name() != name) {
            continue;
        }
        let database = |error| db::failed(which, error);
        let mut moves: Vec<(Place, i64)> = Vec::new();
        for place in postgres::places(url, which).await.map_err(database)? {
            if place.topic != topic.name() {
                continue;
            }
            let bounds = bus.bounds(topic, place.partition).await;
            let (begin, end) = bounds.map_err(|error| failed(error.into()))?;
            let to = if wanted.from == ResumeFrom::Begin { begin } else { end };
            if place.next_offset > end || (wanted.all && place.next_offset != to) {
                let Place { topic, partition, next_offset } = &place;
                lines.push(format!(
                    "{reader}: partition {partition} of {topic} from {next_offset} to {to} (its log has {begin} to {end})"
                ));
                moves.push((place, to));
            }
        }
        if !wanted.dry_run {
            postgres::resume(url, which, &moves).await.map_err(database)?;
        }
    }
    bus.close().await;
    Ok(lines)
}

/// The topics of a plant as they should be.
pub fn wanted(config: &Config, plant: &Plant) -> Vec<Wanted> {
    let heartbeats = match config.relay.kind {
        RelayKind::Debezium => vec![DEBEZIUM_PREFIX.to_owned()],
        RelayKind::Millwright => Vec::new(),
    };
    admin::wanted(&plant.kafka, Retention::default(), &heartbeats)
}
