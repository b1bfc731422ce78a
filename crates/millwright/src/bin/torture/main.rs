//! Tortures the product, then holds what is left against an oracle: `torture` the embedded one, `torture plant` the same
//! services as processes on real engines.
//!
//! What every reading is, and which alerts it must lead to, is computed here, from the seed alone and by arithmetic of
//! its own: nothing of the product is asked for what is right. `--planted` runs builds with a known bug each and fails
//! unless the oracle sees it.

mod client;
mod embedded;
mod input;
mod oracle;
mod plant;
mod portal;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Whatever is killed, stopped or restarted: nothing lost, nothing doubled.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    embedded: embedded::Embedded,
}

#[derive(Subcommand)]
enum Command {
    /// The services as processes on Kafka, PostgreSQL and Redis
    Plant(plant::Plant),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    rustls::crypto::ring::default_provider().install_default().expect("the provider is installed once");
    let done = match &cli.command {
        None => runtime.block_on(embedded::torture(&cli.embedded)),
        Some(Command::Plant(args)) => runtime.block_on(plant::torture(args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}
