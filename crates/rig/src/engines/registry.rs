//! Apicurio Registry, which speaks the Confluent API at `/apis/ccompat/v7`; it keeps its schemas in memory.

use super::{Setup, java};
use crate::net::{free_port, http_ok};
use anyhow::{Context, Result};
use std::fs;

/// Starts it.
pub fn start(setup: Setup) -> Result<()> {
    if !setup.revived("registry")? {
        let folder = setup.jars.unpacked("registry")?;
        let runner = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
        let runner = runner
            .filter(|path| path.to_string_lossy().ends_with("-runner.jar"))
            .max()
            .context("the registry has no runner")?;
        let port = free_port();
        let recipe = setup.recipe("registry", "registry", "java", Vec::new());
        let port_flag = format!("-Dquarkus.http.port={port}");
        let main = ["-Dquarkus.http.host=127.0.0.1", &port_flag, "-jar", &runner.display().to_string()];
        setup.draft.start(java(recipe, "256m", &folder, &main))?;
        setup.address("registry", format!("http://127.0.0.1:{port}/apis/ccompat/v7"))?;
    }
    let address = setup.draft.address("registry").context("the registry has no address")?;
    let (base, _) = address.split_once("/apis").context("the registry's address has no path")?;
    setup.wait("registry", || http_ok(base, "/apis/ccompat/v7/subjects"))
}
