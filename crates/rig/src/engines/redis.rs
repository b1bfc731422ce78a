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
        let node = node(setup, "redis", "redis", &[])?;
        setup.address("redis", node.url())?;
        node.tls_url().map_or(Ok(()), |url| setup.address("redis_tls", url))?;
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
            let mut more = vec!["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
            // Only so each client is told the ports of its kind.
            if setup.tls.is_some() {
                more.extend(["--tls-cluster", "yes"]);
            }
            nodes.push(node(setup, GROUP, &format!("redis-cluster-{number}"), &more)?);
        }
        setup.address(GROUP, nodes.iter().map(Node::url).collect::<Vec<_>>().join(","))?;
        let secure: Vec<String> = nodes.iter().filter_map(Node::tls_url).collect();
        if !secure.is_empty() {
            setup.address("redis_cluster_tls", secure.join(","))?;
        }
    }
    let address = setup.draft.address(GROUP).context("the Redis cluster has no address")?;
    let ports: Vec<u16> = address.split(',').filter_map(port_of).collect();
    setup.wait(GROUP, || ports.iter().all(|&port| redis_answers(port)))?;
    if fresh {
        let secure = setup.draft.address("redis_cluster_tls");
        let nodes = secure.as_ref().unwrap_or(&address).split(',').filter_map(port_of);
        let mut create = Command::new("redis-cli");
        if let (Some(_), Some(certificates)) = (&secure, setup.tls) {
            create.args(["--tls", "--cacert", &certificates.at("ca.pem")]);
        }
        create.args(["--cluster", "create"]).args(nodes.map(|port| format!("127.0.0.1:{port}")));
        run(create.args(["--cluster-yes", "--cluster-replicas", "0"]))?;
    }
    let whole = |port: &u16| {
        let info = run(Command::new("redis-cli").args(["-p", &port.to_string(), "cluster", "info"]));
        info.is_ok_and(|info| info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3"))
    };
    setup.wait(GROUP, || ports.iter().all(whole))
}

/// Where a server listens.
struct Node {
    port: u16,
    tls_port: Option<u16>,
}

impl Node {
    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn tls_url(&self) -> Option<String> {
        Some(format!("rediss://127.0.0.1:{}", self.tls_port?))
    }
}

fn node(setup: Setup, group: &str, name: &str, more: &[&str]) -> Result<Node> {
    let folder = setup.draft.folder.at(name);
    fs::create_dir_all(&folder)?;
    let (port, folder) = (free_port(), folder.display().to_string());
    let port_text = port.to_string();
    let mut args =
        vec!["--port", &port_text, "--bind", "127.0.0.1", "--dir", &folder, "--save", "", "--appendonly", "yes"];
    args.extend(more);
    let mut args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    let tls_port = setup.tls.map(|certificates| {
        let port = free_port();
        let files = [("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")];
        args.extend(files.iter().flat_map(|(what, name)| [format!("--tls-{what}-file"), certificates.at(name)]));
        args.extend(["--tls-port".to_owned(), port.to_string()]);
        // Who shows a certificate must show a good one.
        args.extend(["--tls-auth-clients", "optional"].map(str::to_owned));
        port
    });
    setup.start(group, name, "redis-server", args)?;
    Ok(Node { port, tls_port })
}
