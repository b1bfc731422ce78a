//! The command line, as clap reads it.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Tells which machine is about to fail, why, and what to do.
#[derive(Debug, Parser)]
#[command(name = "millwright", version, max_term_width = 110, propagate_version = true)]
#[command(after_help = "First time here?  millwright up        then open the address it prints.\n\
Exit codes: 0 ok, 1 failed, 2 usage, 3 configuration, 4 dependency unavailable, 5 data invalid.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// How results are written to stdout; words for people go to stderr.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Shape of the results on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON document; of `up` one a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in this one process: intake, history, detection, alarms, HTTP, and a simulated plant.
    #[command(
        after_help = "With --output json each line on stdout is a document with a `type`: `ready` once it is ready (url, \
ready_ms, data_dir, plant);\n`replayed` at the end of --replay (file, rows, stored, duplicate, refused, late, and what \
`evaluate` says of the file as `evaluation`,\nor null and why as `error`). Alarms as they come: GET /api/events."
    )]
    Up(UpArgs),
    /// Service of a plant: readings from Kafka into the main database.
    Ingest(ServiceArgs),
    /// Service of a plant: readings from Kafka into alerts in the AI database, live values into Redis.
    Detect(ServiceArgs),
    /// Service of a plant: alerts from the AI database onto the topic, each once.
    Relay(ServiceArgs),
    /// Service of a plant: HTTP, event stream, alarms, notifications, the live page.
    Portal(ServiceArgs),
    /// Tables of a plant's databases.
    #[command(subcommand)]
    Db(DbCommand),
    /// Topics of a plant's Kafka.
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// Schemas of a plant's topics.
    #[command(subcommand)]
    Schemas(SchemasCommand),
    /// Look at each engine of a plant's configuration: what is wrong, and what to do; exits with 4 when something is.
    Doctor(ConfigFile),
    /// Write a simulated plant's readings to a file, to stdout, to a running instance, or (--config) to a plant's Kafka.
    #[command(after_help = "Examples:\n  millwright simulate --machines 3 --seconds 60 > readings.jsonl\n  \
millwright simulate --profile overstrain --to http://127.0.0.1:8080")]
    Simulate(SimulateArgs),
    /// Send the readings of a file (CSV or JSON lines) to a running instance, a file or stdout.
    #[command(after_help = "Examples:\n  millwright replay ai4i2020.csv --to http://127.0.0.1:8080 --speed max\n  \
millwright replay ai4i2020.csv > readings.jsonl")]
    Replay(ReplayArgs),
    /// Judge a file of readings row by row and compare with its labels.
    #[command(after_help = "Examples:\n  millwright evaluate --class mill --readings ai4i2020.csv\n  \
millwright evaluate --class my.toml --readings mine.csv --labels failed --detector mahalanobis --train-rows 5000")]
    Evaluate(EvaluateArgs),
    /// Measure this machine and Millwright on it: floor, compute, embedded, alert, cold, state.
    Bench(BenchArgs),
    /// Write, show and check the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show and check machine classes.
    #[command(subcommand)]
    Class(ClassCommand),
    /// Ask a running instance how it is; exits with 4 where none answers.
    Health {
        /// Its address.
        #[arg(default_value = "http://127.0.0.1:8080")]
        url: String,
    },
}

#[derive(Debug, Args)]
pub struct ConfigFile {
    /// Configuration file (see `millwright config init`).
    #[arg(long, value_name = "FILE", env = "MILLWRIGHT_CONFIG")]
    pub config: Option<PathBuf>,
}

/// How a service of a plant is run.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    #[command(flatten)]
    pub file: ConfigFile,
    /// Port, on loopback, for /livez, /readyz and /metrics; 0 picks a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub ops_port: u16,
    /// Where the portal listens; default is portal.host and portal.port of the configuration.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<std::net::SocketAddr>,
}

#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Bring both databases to this release's tables. May be run while everything runs.
    Migrate {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Show which migrations are applied.
    Status {
        #[command(flatten)]
        file: ConfigFile,
    },
}

#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Make the topics as they should be; does nothing where they are.
    Apply {
        #[command(flatten)]
        file: ConfigFile,
        /// Show what differs, change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Go on where a topic was cut or made anew: positions that its log does not reach move to where it begins.
    #[command(
        after_help = "A partition that ends below the position of who reads it stands still, and /readyz says so: going on by \
itself would skip what comes.\nWhether records are lost is yours to say; docs/runbook/topic-deleted.md has the steps. Services may run \
meanwhile: they go on within seconds.\n\nExamples:\n  millwright topics resume --dry-run --config plant.toml\n  \
millwright topics resume --config plant.toml"
    )]
    Resume {
        #[command(flatten)]
        file: ConfigFile,
        /// Where to go on: the first record that is there, or the end, which leaves out what is there.
        #[arg(long, value_enum, default_value_t = ResumeFrom::Begin)]
        from: ResumeFrom,
        /// Only this topic.
        #[arg(long)]
        topic: Option<String>,
        /// Every partition of the topic, also those that reach their positions: for one made anew that has grown since.
        #[arg(long, requires = "topic")]
        all: bool,
        /// Show what would be moved, change nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Where a log is gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ResumeFrom {
    Begin,
    End,
}

#[derive(Debug, Subcommand)]
pub enum SchemasCommand {
    /// Register the schemas of readings and alerts; does nothing where they are.
    Apply {
        #[command(flatten)]
        file: ConfigFile,
        /// Show what differs, change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Ask the registry whether the schemas fit those that it has; exits with 1 where one does not.
    Check(ConfigFile),
    /// Print a topic's schema as the classes of the configuration make it; needs no registry.
    Show {
        /// The topic.
        #[arg(value_enum)]
        topic: SchemaTopic,
        /// Language of the schema.
        #[arg(long, value_enum, default_value_t = SchemaFormat::Json)]
        format: SchemaFormat,
        #[command(flatten)]
        file: ConfigFile,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaTopic {
    /// sensor-raw-data.
    Readings,
    /// anomaly-alerts.
    Alerts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaFormat {
    /// JSON Schema, draft 7.
    Json,
    /// Avro.
    Avro,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub file: ConfigFile,
    /// Where the data lies.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Port to listen on; 0 picks a free one.
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// Machines of the simulated plant.
    #[arg(long, value_name = "N")]
    pub machines: Option<u32>,
    /// Readings per second of each simulated machine.
    #[arg(long, value_name = "HZ")]
    pub rate: Option<f64>,
    /// Seed of the simulated plant.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Start no simulated plant.
    #[arg(long)]
    pub no_simulate: bool,
    /// Replay a file (AI4I CSV as published, any class's CSV, or readings as JSON lines).
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// How fast: times the distance of the readings, or `max`.
    #[arg(long, value_name = "N|max", default_value = "max", requires = "replay")]
    pub speed: Speed,
    /// A class by id or a class file; the first is the default class. May be given several times.
    #[arg(long = "class", value_name = "ID|FILE")]
    pub classes: Vec<String>,
    /// Notify people of what a replay finds.
    #[arg(long, requires = "replay")]
    pub notify: bool,
    #[command(flatten)]
    pub csv: CsvArgs,
    /// Name of the machine of a file with one machine.
    #[arg(long, value_name = "NAME", requires = "replay")]
    pub machine: Option<String>,
}

/// How a CSV file is read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "CSV files")]
pub struct CsvArgs {
    /// Column with the event time; `timestamp` or `datetime` is found by itself.
    #[arg(long, value_name = "NAME")]
    pub time_column: Option<String>,
    /// Column with the machine's name; `machine_id` or `machineID` is found by itself.
    #[arg(long, value_name = "NAME")]
    pub machine_column: Option<String>,
    /// Distance of rows without a time, e.g. 1s, 500ms, 1m.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub interval: String,
    /// IANA zone of times without a zone; default `site.timezone`, else UTC.
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
}

/// How fast a file is replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as it is taken.
    Max,
    /// Times the distance of the readings.
    Times(f64),
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Speed, String> {
        match text {
            "max" => Ok(Speed::Max),
            text => match text.parse::<f64>() {
                Ok(times) if times > 0.0 && times.is_finite() => Ok(Speed::Times(times)),
                _ => Err("a number above 0, or max".to_owned()),
            },
        }
    }
}

#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Be the service of a plant: the plant of this configuration (`[simulate]`), onto its Kafka.
    #[arg(long, value_name = "FILE", env = "MILLWRIGHT_CONFIG")]
    pub config: Option<PathBuf>,
    /// With --config: port, on loopback, for /readyz, /metrics and POST /simulate/{machineId}; 0 picks a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0, requires = "config")]
    pub ops_port: u16,
    /// Class of the machines: mill or pump, or a file that changes one of them.
    #[arg(long, value_name = "ID|FILE", default_value = "mill")]
    pub class: String,
    /// Number of machines.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub machines: u32,
    /// Readings per second of each machine.
    #[arg(long, value_name = "HZ", default_value_t = 1.0)]
    pub rate: f64,
    /// The same seed gives the same readings.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Seconds of event time to write; with --to a URL, 0 goes on until it is stopped.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub seconds: u64,
    /// Profile of every machine, e.g. normal, overstrain, cavitation.
    #[arg(long, value_name = "NAME", default_value = "normal")]
    pub profile: String,
    /// Event time of the first reading (RFC 3339); default now.
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// Exact AI4I recipe, whose jobs break laws on their own, in place of the healthy plant.
    #[arg(long)]
    pub ai4i: bool,
    /// A file, `-` for stdout, or the address of a running instance.
    #[arg(long, value_name = "FILE|URL", default_value = "-")]
    pub to: String,
}

impl SimulateArgs {
    /// As the service of a plant, where it is to be one.
    pub fn service(&self) -> Option<ServiceArgs> {
        let file = ConfigFile { config: Some(self.config.clone()?) };
        Some(ServiceArgs { file, ops_port: self.ops_port, listen: None })
    }
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// CSV or JSON lines.
    pub file: PathBuf,
    /// Class of the readings: an id or a class file.
    #[arg(long, value_name = "ID|FILE", default_value = "mill")]
    pub class: String,
    /// How fast: times the distance of the readings, or `max`.
    #[arg(long, value_name = "N|max", default_value = "max")]
    pub speed: Speed,
    /// Name of the machine of a file with one machine.
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// A file, `-` for stdout, or the address of a running instance.
    #[arg(long, value_name = "FILE|URL", default_value = "-")]
    pub to: String,
    #[command(flatten)]
    pub csv: CsvArgs,
}

/// What judges the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Detector {
    /// The class's limits; nothing is trained.
    Laws,
    /// Mahalanobis distance with a shrunk covariance, trained on rows without looking at labels.
    Mahalanobis,
}

#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// Class of the readings: an id or a class file.
    #[arg(long, value_name = "ID|FILE", default_value = "mill")]
    pub class: String,
    /// Readings to judge.
    #[arg(long, value_name = "CSV")]
    pub readings: PathBuf,
    /// Column of 0/1 that tells which rows failed; default the class's `label`.
    #[arg(long, value_name = "COLUMN")]
    pub labels: Option<String>,
    /// What judges the rows.
    #[arg(long, value_enum, default_value_t = Detector::Laws)]
    pub detector: Detector,
    /// Train on this file; every row of --readings is then scored.
    #[arg(long, value_name = "CSV", group = "training")]
    pub train: Option<PathBuf>,
    /// Train on the first N rows of --readings; the others are scored.
    #[arg(long, value_name = "N", group = "training")]
    pub train_rows: Option<usize>,
    /// Train on the rows of --readings before this time; the others are scored.
    #[arg(long, value_name = "TIME", group = "training")]
    pub train_until: Option<String>,
    /// A score above it is an anomaly.
    #[arg(long, value_name = "X", group = "decision", allow_negative_numbers = true)]
    pub threshold: Option<f64>,
    /// Take the threshold that so large a share of the training rows lies above [default: 0.01].
    #[arg(long, value_name = "R", group = "decision")]
    pub false_alarm_rate: Option<f64>,
    /// Write row, timestamp, machine_id, score, anomaly, failure_type of every scored row as CSV.
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// Seed of detectors that draw lots; these two do not.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub csv: CsvArgs,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Which: floor, compute, embedded, alert, cold, state, plant, failover, seed.
    #[arg(required = true, value_enum)]
    pub names: Vec<BenchName>,
    /// Seconds of each timed run: 5, of seed 1200.
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// Write what was measured into this Markdown file too.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// A drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchName {
    /// What this machine can do: memory, fdatasync, loopback, and the limit L of the computation.
    Floor,
    /// Decode, windows, laws, score on one core, against L.
    Compute,
    /// `up` from HTTP to alarm, durable, everything counted.
    Embedded,
    /// From a reading to its alert on the WebSocket, open loop.
    Alert,
    /// From exec to the first accepted reading; size of the binary.
    Cold,
    /// Bytes per machine, idle memory, many machines in random order.
    State,
    /// A whole plant: stored against a bare COPY, from a reading to its alert by either relay, several detectors.
    Plant,
    /// How long a plant stands still when a part of it dies.
    Failover,
    /// 1,000 readings/s over HTTP into a plant, for a long time.
    Seed,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Write the commented file of all defaults.
    Init {
        /// Where to; `-` is stdout.
        #[arg(default_value = "millwright.toml")]
        file: PathBuf,
        /// Overwrite it.
        #[arg(long)]
        yes: bool,
    },
    /// Show every value and where it came from.
    Explain {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Check what `up` would run with, a file under the environment; names every mistake with its place.
    Check {
        /// The file; without one the defaults.
        #[arg(env = "MILLWRIGHT_CONFIG")]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ClassCommand {
    /// List the built-in classes.
    List,
    /// Print a class file, as a start for one of your own.
    Show {
        /// `mill` or `pump`.
        id: String,
    },
    /// Check class files; names every mistake with its place.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}
