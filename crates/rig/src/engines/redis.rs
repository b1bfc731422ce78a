//! Redis: one server, and a cluster of three.

use super::{Setup, port_of};
use crate::{
    net::{free_port, redis_answers},
    process::run,
};
use anyhow::{Context, Result};
use std::{fs, process::Command};

/// Starts the single server. What it answered for is in its log of appends, so it outlives a kill.
pub fn start(setup: Setup) -> Result<()> {
    if !setup.revived("redis")? {
        let port = node(setup, "redis", "redis", &[])?;
        setup.address("redis", format!("redis://127.0.0.1:{port}"))?;
    }
    let port = setup.draft.address("redis").as_deref().and_then(port_of).context("Redis has no address")?;
    setup.wait("redis", || redis_answers(port))
}

/// Starts three masters that share the slots.
pub fn start_cluster(setup: Setup) -> Result<()> {
    const GROUP: &str = "redis_cluster";
    let fresh = !setup.revived(GROUP)?;
    if fresh {
        let mut nodes = Vec::new();
        for number in 1..=3 {
            // Said, since the default lies 10,000 above the port and may be taken.
            let bus = free_port().to_string();
            let more = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
            nodes.push(format!("redis://127.0.0.1:{}", node(setup, GROUP, &format!("redis-cluster-{number}"), &more)?));
        }
        setup.address(GROUP, nodes.join(","))?;
    }
    let address = setup.draft.address(GROUP).context("the Redis cluster has no address")?;
    let ports: Vec<u16> = address.split(',').filter_map(port_of).collect();
    setup.wait(GROUP, || ports.iter().all(|&port| redis_answers(port)))?;
    if fresh {
        let nodes = ports.iter().map(|port| format!("127.0.0.1:{port}"));
        run(Command::new("redis-cli").args(["--cluster", "create"]).args(nodes).args([
            "--cluster-yes",
            "--cluster-replicas",
            "0",
        ]))?;
    }
    let whole = |port: &u16| {
        let info = run(Command::new("redis-cli").args(["-p", &port.to_string(), "cluster", "info"]));
        info.is_ok_and(|info| info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3"))
    };
    setup.wait(GROUP, || ports.iter().all(whole))
}

fn node(setup: Setup, group: &str, name: &str, more: &[&str]) -> Result<u16> {
    let folder = setup.draft.folder.at(name);
    fs::create_dir_all(&folder)?;
    let (port, folder) = (free_port(), folder.display().to_string());
    let port_text = port.to_string();
    let mut args =
        vec!["--port", &port_text, "--bind", "127.0.0.1", "--dir", &folder, "--save", "", "--appendonly", "yes"];
    args.extend(more);
    setup.start(group, name, "redis-server", args.into_iter().map(str::to_owned).collect())?;
    Ok(port)
}
