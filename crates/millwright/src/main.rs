//! The front door: command line, configuration, wiring, shutdown.

mod bench;
mod class;
mod cli;
mod config;
mod config_command;
mod evaluate;
mod failure;
mod health;
mod progress;
mod readings_file;
mod replay;
mod simulate;
mod sink;
mod up;

use clap::Parser;
use cli::{Cli, Command, Output};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Up(args) => up::run(&args, cli.output),
        Command::Simulate(args) => simulate::run(&args, cli.output),
        Command::Replay(args) => replay::run(&args, cli.output),
        Command::Evaluate(args) => evaluate::run(&args, cli.output),
        Command::Bench(args) => bench::run(&args, cli.output),
        Command::Config(command) => config_command::run(command, cli.output),
        Command::Class(command) => class::run(command, cli.output),
        Command::Health { url } => health::run(&url, cli.output),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(failure::tell(&error, cli.output == Output::Json)),
    }
}
