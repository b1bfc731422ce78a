//! The test rig: real engines and the whole plant on one machine, without containers.
//!
//! Knows the product only by its command line and its configuration file; `product` holds both.

mod certificates;
mod engines;
mod folder;
mod net;
mod plant;
mod process;
mod product;
mod services;
mod supervise;

use anyhow::Result;
use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use engines::jars::Jars;
use folder::{Folder, State};
use plant::{Part, Plan};
use product::{Fleet, Relay};
use services::Engine;
use std::{path::PathBuf, process::ExitCode, time::Instant};

#[derive(Parser)]
#[command(about = "Real engines, and the whole plant, on this machine")]
struct Cli {
    /// What keeps what came from Maven Central.
    #[arg(long, global = true, env = "MILLWRIGHT_ENGINES", default_value = "target/engines")]
    cache: PathBuf,
    /// What names it.
    #[arg(long, global = true, env = "MILLWRIGHT_ENGINES_POM", default_value = "deploy/engines/pom.xml")]
    pom: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Engines for tests
    Services {
        /// Where they live: state, data, logs.
        #[arg(long, global = true, env = "MILLWRIGHT_SERVICES", default_value = "target/services")]
        folder: PathBuf,
        #[command(subcommand)]
        command: Services,
    },
    /// Engines and the product's services
    Plant {
        /// Where they live: state, data, logs.
        #[arg(long, global = true, env = "MILLWRIGHT_PLANT", default_value = "target/plant")]
        folder: PathBuf,
        /// What `up` and `status` print.
        #[arg(long, global = true, default_value = "text")]
        output: Output,
        #[command(subcommand)]
        command: Plant,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line for each process.
    Text,
    /// One document.
    Json,
}

#[derive(Subcommand)]
enum Plant {
    /// Start everything anew, wait until every service has its partitions
    Up(Up),
    /// The same document with the pids of now
    Status,
    /// Stop everything and remove its data
    Down,
    /// Restart what dies, until it is killed
    #[command(hide = true)]
    Supervise,
}

#[derive(Args)]
struct Up {
    /// Kafka's brokers: 1 or 3.
    #[arg(long, default_value = "1", value_parser = brokers())]
    brokers: u16,
    /// What moves alerts from the outbox to the bus.
    #[arg(long, default_value = "millwright")]
    relay: Relay,
    /// How many `millwright ingest`.
    #[arg(long, default_value_t = 1)]
    ingestors: u16,
    /// How many `millwright detect`.
    #[arg(long, default_value_t = 1)]
    detectors: u16,
    /// How many `millwright portal`.
    #[arg(long, default_value_t = 1)]
    portals: u16,
    /// Send readings of a simulated plant.
    #[arg(long)]
    simulate: bool,
    /// Restart what dies, engines too.
    #[arg(long)]
    supervise: bool,
    /// The services reach the engines over TLS, and are known by password or certificate. What is printed leads there without.
    #[arg(long)]
    tls: bool,
    /// The portal tells alarms there, on a channel of the name `hook`.
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// The product.
    #[arg(long, env = "MILLWRIGHT_BIN", default_value = "target/release/millwright")]
    program: PathBuf,
    /// The connector for Debezium.
    #[arg(long, default_value = "deploy/debezium/outbox-connector.json")]
    connector: PathBuf,
    /// Half a plant, for tests of the rig.
    #[arg(long, hide = true)]
    leave_out: Option<Part>,
}

impl Up {
    fn plan(self) -> Plan {
        let Self {
            brokers,
            relay,
            ingestors,
            detectors,
            portals,
            simulate,
            supervise,
            tls,
            webhook,
            program,
            connector,
            leave_out,
        } = self;
        let fleet = Fleet { ingestors, detectors, portals, relay, simulate };
        Plan { brokers, fleet, supervise, tls, webhook, program, connector, leave_out }
    }
}

#[derive(Subcommand)]
enum Services {
    /// Start what is not there yet, wait until it answers, print where as shell exports
    Start(Wanted),
    /// Stop everything and remove its data
    Stop,
    /// What runs, and where
    Status,
    /// Only fetch what the engines need from Maven Central
    Fetch(Wanted),
}

#[derive(Args)]
struct Wanted {
    /// Kafka's brokers: 1 or 3.
    #[arg(long, default_value_t = 1, value_parser = brokers())]
    brokers: u16,
    /// Only these engines, and what they need.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Engine>,
}

fn brokers() -> impl TypedValueParser<Value = u16> {
    PossibleValuesParser::new(["1", "3"]).map(|count| count.parse().expect("both are numbers"))
}

impl Wanted {
    fn engines(&self) -> &[Engine] {
        if self.only.is_empty() { Engine::value_variants() } else { &self.only }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rig: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let jars = Jars { pom: cli.pom, cache: cli.cache };
    match cli.command {
        Command::Services { folder, command } => {
            let folder = Folder::open(&folder)?;
            match command {
                Services::Start(wanted) => {
                    let begun = Instant::now();
                    // Asked now: a build may put another in its place while the engines start.
                    let program = std::env::current_exe()?;
                    let state = services::start(&folder, &jars, wanted.brokers, wanted.engines())?;
                    print!("{}", services::environment(&state, &program, &folder));
                    eprintln!("rig: all answer after {:.1} s", begun.elapsed().as_secs_f64());
                }
                Services::Stop => eprintln!("rig: stopped {} processes", services::stop(&folder)?),
                Services::Status => {
                    let state = folder.load()?;
                    print!("{}", services::table(&state));
                }
                Services::Fetch(wanted) => services::fetch(&jars, wanted.engines())?,
            }
        }
        Command::Plant { folder, output, command } => {
            let folder = Folder::open(&folder)?;
            match command {
                Plant::Up(up) => {
                    let begun = Instant::now();
                    print_plant(&plant::up(&folder, &jars, &up.plan())?, output)?;
                    eprintln!("rig: ready after {:.1} s", begun.elapsed().as_secs_f64());
                }
                Plant::Status => print_plant(&folder.load()?, output)?,
                Plant::Down => eprintln!("rig: stopped {} processes", services::stop(&folder)?),
                Plant::Supervise => supervise::run(&folder)?,
            }
        }
    }
    Ok(())
}

fn print_plant(state: &State, output: Output) -> Result<()> {
    match output {
        Output::Text => print!("{}", services::table(state)),
        Output::Json => println!("{}", serde_json::to_string(&plant::document(state))?),
    }
    Ok(())
}
