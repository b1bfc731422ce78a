//! Kafka Connect with Debezium's PostgreSQL connector, and the outbox connector of `deploy/debezium`.

use super::{Setup, java, kafka, postgres};
use crate::net::{free_port, http, http_ok};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{fs, path::Path};

/// Starts a worker; Kafka answers already. Its connectors find the AI cluster through the worker's environment.
pub fn start(setup: Setup) -> Result<()> {
    if !setup.revived("connect")? {
        let libraries = setup.jars.libraries("connect")?;
        let plugins = setup.jars.unpacked("debezium")?;
        let brokers = setup.draft.address("kafka").context("Kafka has no address")?;
        let database = setup.draft.address("postgres_ai").context("the AI cluster has no address")?;
        let port = free_port();
        let settings = setup.draft.folder.at("connect.properties");
        fs::write(&settings, properties(&brokers, port, setup.brokers, &plugins))?;
        let recipe = setup.recipe("connect", "connect", "java", Vec::new());
        let main = ["org.apache.kafka.connect.cli.ConnectDistributed", &settings.display().to_string()];
        let mut recipe = java(recipe, "384m", &libraries, &main);
        recipe.env.extend(database_environment(&database)?);
        setup.draft.start(recipe)?;
        setup.address("connect", format!("http://127.0.0.1:{port}"))?;
    }
    let address = setup.draft.address("connect").context("Connect has no address")?;
    // The list is answered once the worker has joined its group and can take connectors.
    setup.wait("connect", || http_ok(&address, "/connectors"))
}

/// What the placeholders of the connector file stand for.
fn database_environment(url: &str) -> Result<Vec<(String, String)>> {
    let port = postgres::port(url)?.to_string();
    let values =
        [("HOST", "127.0.0.1"), ("PORT", &port), ("USER", "postgres"), ("PASSWORD", "trusted"), ("NAME", "postgres")];
    Ok(values.map(|(name, value)| (format!("MILLWRIGHT_AI_{name}"), value.to_owned())).into())
}

/// Hands a connector file to the worker, and waits until the connector reads from its slot: it says that it runs before it does.
pub fn add(setup: Setup, file: &Path) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let connector: Value = serde_json::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
    let setting =
        |name: &str| connector["config"][name].as_str().with_context(|| format!("the connector has no {name}"));
    kafka::make_topic(setup, &format!("__debezium-heartbeat.{}", setting("topic.prefix")?))?;
    let address = setup.draft.address("connect").context("Connect has no address")?;
    let name = connector["name"].as_str().context("the connector has no name")?;
    let (status, body) = http("PUT", &address, &format!("/connectors/{name}/config"), Some(&connector["config"]))?;
    if !(200..300).contains(&status) {
        bail!("Connect refused {name} with {status}: {body}");
    }
    let database = setup.draft.address("postgres_ai").context("the AI cluster has no address")?;
    let question = format!("select active from pg_replication_slots where slot_name = '{}'", setting("slot.name")?);
    setup.wait("connect", || postgres::query(&database, &question).is_ok_and(|active| active == "t"))
}

/// Restarts the tasks that failed for good: Connect itself never does. Nothing to do, or nobody to ask, is no error.
pub fn mend(address: &str) {
    let Ok((200, names)) = http("GET", address, "/connectors", None) else { return };
    let names: Vec<String> = serde_json::from_str(&names).unwrap_or_default();
    for name in names {
        let Ok((200, status)) = http("GET", address, &format!("/connectors/{name}/status"), None) else { continue };
        if status.contains("\"FAILED\"") {
            // Asked again in the next round.
            let _ =
                http("POST", address, &format!("/connectors/{name}/restart?includeTasks=true&onlyFailed=true"), None);
        }
    }
}

fn properties(brokers: &str, port: u16, copies: u16, plugins: &Path) -> String {
    // Offsets often: what Debezium published since the last ones is published again after a kill. A worker comes back at once, so its
    // connectors need not wait for it.
    format!(
        "bootstrap.servers={brokers}
group.id=millwright-connect
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
config.storage.topic=millwright-connect-configs
config.storage.replication.factor={copies}
offset.storage.topic=millwright-connect-offsets
offset.storage.replication.factor={copies}
offset.storage.partitions=1
status.storage.topic=millwright-connect-status
status.storage.replication.factor={copies}
status.storage.partitions=1
offset.flush.interval.ms=1000
session.timeout.ms=3000
heartbeat.interval.ms=500
scheduled.rebalance.max.delay.ms=0
listeners=http://127.0.0.1:{port}
rest.advertised.host.name=127.0.0.1
rest.advertised.port={port}
plugin.path={plugins}
plugin.discovery=service_load
connector.client.config.override.policy=All
config.providers=env
config.providers.env.class=org.apache.kafka.common.config.provider.EnvVarConfigProvider
",
        plugins = plugins.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_of_the_connector_is_given() {
        let connector = include_str!("../../../../deploy/debezium/outbox-connector.json");
        let given = database_environment("postgresql://postgres@127.0.0.1:5433/postgres").unwrap();
        assert!(given.contains(&("MILLWRIGHT_AI_PORT".to_owned(), "5433".to_owned())));
        let wanted = connector.split("${env:").skip(1).map(|rest| rest.split('}').next().unwrap());
        let wanted: Vec<&str> = wanted.collect();
        assert_eq!(wanted, given.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
    }

    #[test]
    fn a_task_that_failed_is_restarted_and_one_that_runs_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let answers =
                [r#"["good","bad"]"#, r#"{"tasks":[{"state":"RUNNING"}]}"#, r#"{"tasks":[{"state":"FAILED"}]}"#, ""];
            answers.map(|answer| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let length = std::io::Read::read(&mut stream, &mut request).unwrap();
                std::io::Write::write_all(&mut stream, format!("HTTP/1.1 200 OK\r\n\r\n{answer}").as_bytes()).unwrap();
                String::from_utf8_lossy(&request[..length]).lines().next().unwrap().to_owned()
            })
        });
        mend(&address);
        assert_eq!(
            server.join().unwrap(),
            [
                "GET /connectors HTTP/1.0",
                "GET /connectors/good/status HTTP/1.0",
                "GET /connectors/bad/status HTTP/1.0",
                "POST /connectors/bad/restart?includeTasks=true&onlyFailed=true HTTP/1.0",
            ]
        );
    }
}
