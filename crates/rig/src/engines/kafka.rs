//! Apache Kafka in KRaft mode: one broker or three, each its own controller too.
//!
//! The settings are those under which a lost broker costs two to four seconds and a lost consumer about two; lower ones were found to
//! stop all progress for half a minute.

use super::{Setup, java, port_of};
use crate::{
    certificates::{Certificates, PASSWORD, USER},
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
        let nodes: Vec<Ports> = (1..=setup.brokers)
            .map(|node| Ports { node, client: free_port(), control: free_port(), tls: setup.tls.map(|_| free_port()) })
            .collect();
        let voters: Vec<String> =
            nodes.iter().map(|ports| format!("{}@127.0.0.1:{}", ports.node, ports.control)).collect();
        for ports in &nodes {
            let name = format!("kafka-{}", ports.node);
            let folder = setup.draft.folder.at(&name);
            fs::create_dir_all(&folder)?;
            let settings = folder.join("server.properties");
            let mut text = properties(ports, &voters.join(","), &folder.join("data"));
            text += &setup.tls.map(secure_properties).unwrap_or_default();
            fs::write(&settings, text)?;
            format(&setup, &folder, ports.node, &libraries)?;
            let recipe = setup.recipe("kafka", &name, "java", Vec::new());
            setup.draft.start(java(recipe, "320m", &libraries, &["kafka.Kafka", &settings.display().to_string()]))?;
        }
        let brokers: Vec<String> = nodes.iter().map(|ports| format!("127.0.0.1:{}", ports.client)).collect();
        setup.address("kafka", brokers.join(","))?;
        let secure: Vec<String> = nodes.iter().filter_map(|ports| Some(format!("127.0.0.1:{}", ports.tls?))).collect();
        if !secure.is_empty() {
            setup.address("kafka_tls", secure.join(","))?;
        }
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

/// Formats a broker's data folder, with the user of the secure listeners. What the format tool writes depends on Kafka's version alone,
/// so it runs once and is copied: a Java start is a second of a processor.
fn format(setup: &Setup, folder: &Path, node: u16, libraries: &Path) -> Result<()> {
    let pattern = libraries.with_extension("format-scram");
    let kept = pattern.join("data/bootstrap.checkpoint");
    if !kept.exists() {
        let partial = setup.draft.folder.at("kafka-format");
        fs::create_dir_all(&partial)?;
        let settings = partial.join("server.properties");
        let ports = Ports { node: 1, client: 1, control: 2, tls: None };
        fs::write(&settings, properties(&ports, "1@127.0.0.1:2", &partial.join("data")))?;
        let settings = settings.display().to_string();
        let user = format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]");
        let words = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", &settings, "--add-scram", &user];
        run(&mut tool(libraries, &words)).context("format Kafka")?;
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

/// Where a broker listens.
struct Ports {
    node: u16,
    client: u16,
    control: u16,
    tls: Option<u16>,
}

fn properties(ports: &Ports, voters: &str, data: &Path) -> String {
    let Ports { node, client, control, tls } = ports;
    let secure = tls.map(|port| format!(",SECURE://127.0.0.1:{port}")).unwrap_or_default();
    let (copies, in_sync) = if voters.contains(',') { (3, 2) } else { (1, 1) };
    format!(
        "process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{control}{secure}
advertised.listeners=PLAINTEXT://127.0.0.1:{client}{secure}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
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

/// Of the listener `SECURE`, which knows its user by SCRAM (from the format) and by PLAIN.
fn secure_properties(certificates: &Certificates) -> String {
    const MODULES: &str = "org.apache.kafka.common.security";
    format!(
        "listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location={}
listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.secure.scram-sha-512.sasl.jaas.config={MODULES}.scram.ScramLoginModule required;
listener.name.secure.plain.sasl.jaas.config={MODULES}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";
",
        certificates.at("server.chain")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_brokers_keep_three_copies_and_one_keeps_one() {
        let ports = |node| Ports { node, client: 10, control: 11, tls: None };
        let alone = properties(&ports(1), "1@127.0.0.1:11", Path::new("/d"));
        assert!(
            alone.contains("\nmin.insync.replicas=1\n") && alone.contains("\noffsets.topic.replication.factor=1\n")
        );
        let three = properties(&ports(2), "1@h:1,2@h:2,3@h:3", Path::new("/d"));
        assert!(
            three.contains("\nmin.insync.replicas=2\n")
                && three.contains("\ntransaction.state.log.replication.factor=3\n")
        );
        assert!(three.contains("\nnode.id=2\n") && three.contains("\nlog.dirs=/d\n"));
    }
}
