//! Apache Kafka in KRaft mode: one broker or three, each its own controller too.
//!
//! The settings are those under which a lost broker costs two to four seconds and a lost consumer about two; lower ones were found to
//! stop all progress for half a minute.

use super::{Setup, java, port_of};
use crate::{
    net::{free_port, kafka_brokers},
    process::run,
};
use anyhow::{Context, Result, bail};
use std::{fs, path::Path, process::Command};

const CLUSTER_ID: &str = "bWlsbHdyaWdodC1yaWdfXw";

/// Starts the brokers.
pub fn start(setup: Setup) -> Result<()> {
    if !setup.revived("kafka")? {
        let libraries = setup.jars.libraries("kafka")?;
        let nodes: Vec<(u16, u16, u16)> = (1..=setup.brokers).map(|node| (node, free_port(), free_port())).collect();
        let voters: Vec<String> =
            nodes.iter().map(|(node, _, control)| format!("{node}@127.0.0.1:{control}")).collect();
        for (node, port, control) in &nodes {
            let name = format!("kafka-{node}");
            let folder = setup.draft.folder.at(&name);
            fs::create_dir_all(&folder)?;
            let settings = folder.join("server.properties");
            fs::write(&settings, properties(*node, *port, *control, &voters.join(","), &folder.join("data")))?;
            format(&setup, &folder, *node, &libraries)?;
            let recipe = setup.recipe("kafka", &name, "java", Vec::new());
            setup.draft.start(java(recipe, "320m", &libraries, &["kafka.Kafka", &settings.display().to_string()]))?;
        }
        let brokers: Vec<String> = nodes.iter().map(|(_, port, _)| format!("127.0.0.1:{port}")).collect();
        setup.address("kafka", brokers.join(","))?;
    }
    let address = setup.draft.address("kafka").context("Kafka has no address")?;
    let ports: Vec<u16> = address.split(',').filter_map(port_of).collect();
    if ports.len() != usize::from(setup.brokers) {
        bail!("Kafka runs with {} brokers, not {}; stop it first", ports.len(), setup.brokers);
    }
    setup.wait("kafka", || ports.iter().all(|&port| kafka_brokers(port) == Some(u32::from(setup.brokers))))
}

/// Makes a topic unless it exists.
pub fn make_topic(setup: Setup, topic: &str) -> Result<()> {
    let brokers = setup.draft.address("kafka").context("Kafka has no address")?;
    let arguments = [
        "org.apache.kafka.tools.TopicCommand",
        "--bootstrap-server",
        &brokers,
        "--create",
        "--if-not-exists",
        "--topic",
        topic,
    ];
    run(&mut tool(&setup.jars.libraries("kafka")?, &arguments))?;
    Ok(())
}

/// Formats a broker's data folder. What the format tool writes depends on Kafka's version alone, so it runs once and is copied: a Java
/// start is a second of a processor.
fn format(setup: &Setup, folder: &Path, node: u16, libraries: &Path) -> Result<()> {
    let pattern = libraries.with_extension("format");
    let kept = pattern.join("data/bootstrap.checkpoint");
    if !kept.exists() {
        let partial = setup.draft.folder.at("kafka-format");
        fs::create_dir_all(&partial)?;
        let settings = partial.join("server.properties");
        fs::write(&settings, properties(1, 1, 2, "1@127.0.0.1:2", &partial.join("data")))?;
        let settings = settings.display().to_string();
        run(&mut tool(libraries, &["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", &settings]))
            .context("format Kafka")?;
        let _ = fs::remove_dir_all(&pattern);
        fs::create_dir_all(kept.parent().expect("it lies in a folder"))?;
        fs::copy(partial.join("data/bootstrap.checkpoint"), kept.with_extension("new"))?;
        fs::rename(kept.with_extension("new"), &kept)?;
    }
    let data = folder.join("data");
    fs::create_dir_all(&data)?;
    fs::copy(&kept, data.join("bootstrap.checkpoint"))?;
    let meta =
        format!("version=1\ncluster.id={CLUSTER_ID}\nnode.id={node}\ndirectory.id=bWlsbHdyaWdodC1kaXIt{node}A\n");
    fs::write(data.join("meta.properties"), meta).context("write the format")
}

fn tool(libraries: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]).args(arguments);
    command.env("CLASSPATH", format!("{}/*", libraries.display()));
    command
}

fn properties(node: u16, port: u16, control: u16, voters: &str, data: &Path) -> String {
    let (copies, in_sync) = if voters.contains(',') { (3, 2) } else { (1, 1) };
    format!(
        "process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{control}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=6
offsets.topic.replication.factor={copies}
transaction.state.log.num.partitions=3
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=3
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={in_sync}
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=250
controller.quorum.fetch.timeout.ms=800
controller.quorum.election.timeout.ms=400
controller.quorum.election.backoff.max.ms=200
controller.quorum.request.timeout.ms=800
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=500
group.consumer.session.timeout.ms=1500
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=300
",
        data = data.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_brokers_keep_three_copies_and_one_keeps_one() {
        let alone = properties(1, 10, 11, "1@127.0.0.1:11", Path::new("/d"));
        assert!(
            alone.contains("\nmin.insync.replicas=1\n") && alone.contains("\noffsets.topic.replication.factor=1\n")
        );
        let three = properties(2, 10, 11, "1@h:1,2@h:2,3@h:3", Path::new("/d"));
        assert!(
            three.contains("\nmin.insync.replicas=2\n")
                && three.contains("\ntransaction.state.log.replication.factor=3\n")
        );
        assert!(three.contains("\nnode.id=2\n") && three.contains("\nlog.dirs=/d\n"));
    }
}
