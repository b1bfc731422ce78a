//! All that the rig knows of the product: its configuration file, what is run once before its services, and each service's command line.

use crate::{
    certificates::{Certificates, PASSWORD, USER},
    engines::Setup,
    folder::State,
    net::free_port,
    process::run,
};
use anyhow::{Context, Result};
use clap::ValueEnum;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What moves alerts from the outbox to the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Relay {
    /// Our own service.
    Millwright,
    /// Kafka Connect with Debezium.
    Debezium,
}

/// How many of each service run.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    /// Readings into the main database.
    pub ingestors: u16,
    /// Readings into alerts.
    pub detectors: u16,
    /// What people see.
    pub portals: u16,
    /// Alerts onto the bus.
    pub relay: Relay,
    /// Whether a simulated plant sends readings.
    pub simulate: bool,
}

/// The program with its configuration.
pub struct Product {
    program: PathBuf,
    config: PathBuf,
    /// Where the simulated plant answers, which the portal is told.
    simulate: u16,
}

impl Product {
    /// Writes the configuration for the engines that run.
    pub fn configure(program: &Path, setup: Setup, fleet: Fleet, webhook: Option<&str>) -> Result<Self> {
        let program = program.canonicalize().with_context(|| format!("find {}", program.display()))?;
        let config = setup.draft.folder.at("millwright.toml");
        let simulate = free_port();
        let mut text = configuration(&setup.draft.state(), setup.tls, fleet, simulate);
        if let Some(url) = webhook {
            text.push_str(&format!("\n[[webhooks]]\nname = \"hook\"\nurl = \"{url}\"\nallow_private = true\n"));
        }
        fs::write(&config, text).context("write the configuration")?;
        Ok(Self { program, config, simulate })
    }

    /// Makes tables and topics.
    pub fn prepare(&self) -> Result<()> {
        for words in [["db", "migrate"], ["topics", "apply"]] {
            run(Command::new(&self.program).args(words).arg("--config").arg(&self.config))?;
        }
        Ok(())
    }

    /// Starts the services; the ports at which each says whether it is ready.
    pub fn start(&self, setup: Setup, fleet: Fleet) -> Result<Vec<(String, u16)>> {
        let services = [
            ("ingest", fleet.ingestors),
            ("detect", fleet.detectors),
            ("relay", u16::from(fleet.relay == Relay::Millwright)),
            ("portal", fleet.portals),
            ("simulate", u16::from(fleet.simulate)),
        ];
        let mut ops = Vec::new();
        for (service, count) in services {
            for number in 1..=count {
                let name = format!("{service}-{number}");
                let port = if service == "simulate" { self.simulate } else { free_port() };
                let config = self.config.display().to_string();
                let mut args: Vec<String> = [service, "--config", &config, "--ops-port"].map(str::to_owned).into();
                args.push(port.to_string());
                if service == "portal" {
                    let listen = format!("127.0.0.1:{}", free_port());
                    args.extend(["--listen".to_owned(), listen.clone()]);
                    let known = if number == 1 { service.to_owned() } else { name.clone() };
                    setup.address(&known, format!("http://{listen}"))?;
                }
                setup.start(service, &name, &self.program, args)?;
                ops.push((name, port));
            }
        }
        Ok(ops)
    }
}

fn configuration(state: &State, tls: Option<&Certificates>, fleet: Fleet, simulate: u16) -> String {
    let address = |name: &str| state.addresses.get(name).cloned().unwrap_or_default();
    let database = |name: &str| match tls {
        Some(certificates) => {
            let url = address(name).replace("//postgres@", &format!("//{USER}@"));
            let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(|file| certificates.at(file));
            format!("{url}?sslmode=verify-full&sslrootcert={ca}&sslcert={cert}&sslkey={key}")
        }
        None => address(name),
    };
    let (brokers, settings, redis, redis_ca) = match tls {
        Some(certificates) => {
            let settings = [
                "security.protocol=SASL_SSL".to_owned(),
                "sasl.mechanism=SCRAM-SHA-512".to_owned(),
                format!("sasl.username={USER}"),
                format!("sasl.password={PASSWORD}"),
                format!("ssl.ca.location={}", certificates.at("ca.pem")),
            ];
            (address("kafka_tls"), format!("{settings:?}"), address("redis_tls"), certificates.at("ca.pem"))
        }
        None => (address("kafka"), "[]".to_owned(), address("redis"), String::new()),
    };
    let simulate = if fleet.simulate { format!("http://127.0.0.1:{simulate}") } else { String::new() };
    let relay = match fleet.relay {
        Relay::Millwright => "millwright",
        Relay::Debezium => "debezium",
    };
    format!(
        "[bus]
kind = \"kafka\"
brokers = \"{brokers}\"
settings = {settings}

[postgres]
main = \"{}\"
ai = \"{}\"

[redis]
url = \"{redis}\"
ca = \"{redis_ca}\"

[relay]
kind = \"{relay}\"

[simulate]
address = \"{simulate}\"
",
        database("postgres_main"),
        database("postgres_ai"),
    )
}
