//! The front door: command line, configuration, wiring, shutdown.

mod bench;
mod class;
mod cli;
mod config;
mod config_command;
mod failure;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Config(command) => config_command::run(command, cli.output),
        Command::Class(command) => class::run(command),
        Command::Bench(args) => bench::run(&args, cli.output),
        _ => todo!(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(failure::tell(&error)),
    }
}
