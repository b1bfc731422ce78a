//! The front door: command line, configuration, wiring, shutdown.

mod bench;
mod catalogue;
mod class;
mod cli;
mod config;
mod config_command;
mod db;
mod doctor;
mod evaluate;
mod failure;
mod health;
mod progress;
mod readings_file;
mod replay;
mod schemas;
mod service;
mod settings;
mod simulate;
mod sink;
mod stop;
mod topics;
mod up;

use clap::Parser;
use cli::{Cli, Command, Output};
use service::Service;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Up(args) => up::run(&args, cli.output),
        Command::Ingest(args) => service::run(Service::Ingest, &args, cli.output),
        Command::Detect(args) => service::run(Service::Detect, &args, cli.output),
        Command::Relay(args) => service::run(Service::Relay, &args, cli.output),
        Command::Portal(args) => service::run(Service::Portal, &args, cli.output),
        Command::Db(command) => db::run(command, cli.output),
        Command::Doctor(file) => doctor::run(&file, cli.output),
        Command::Schemas(command) => schemas::run(command, cli.output),
        Command::Topics(command) => topics::run(command, cli.output),
        Command::Simulate(args) => match args.service() {
            Some(args) => service::run(Service::Simulate, &args, cli.output),
            None => simulate::run(&args, cli.output),
        },
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
