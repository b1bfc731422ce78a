//! The data folder and what lies in it.

use crate::{catalogue, config::Config, failure::Failure};
use anyhow::{Context, Result};
use bus::Bus;
use catalog::Catalogue;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use store::{History, Store, history};
use wire::READINGS_PARTITIONS;

/// What lies in the folder beside the bus.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) history: History,
    pub(super) catalogue: Arc<Catalogue>,
}

/// Finds or makes the data folder.
pub(super) fn folder(config: &Config) -> Result<PathBuf> {
    let folder = if config.data_dir.is_empty() { default_folder()? } else { PathBuf::from(&config.data_dir) };
    std::fs::create_dir_all(&folder).map_err(|error| {
        Failure::dependency("MW-0040", format!("make the data folder {}: {error}", folder.display()))
            .hint("name another one with --data-dir DIR")
    })?;
    // As people find it again from elsewhere.
    Ok(std::path::absolute(&folder).unwrap_or(folder))
}

/// `$XDG_DATA_HOME/millwright`, else `~/.local/share/millwright`.
fn default_folder() -> Result<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = of("XDG_DATA_HOME").or_else(|| Some(of("HOME")?.join(".local/share")));
    Ok(base.map(|base| base.join("millwright")).ok_or_else(|| {
        Failure::configuration("MW-0040", "neither HOME nor XDG_DATA_HOME says where data may lie")
            .hint("name a folder with --data-dir DIR")
    })?)
}

/// Opens the bus; its lock tells whether another process has the folder.
pub(super) fn bus(folder: &Path, config: &Config) -> Result<Bus> {
    let options = bus::Options {
        path: folder.join("bus.db"),
        partitions: READINGS_PARTITIONS,
        retention_us: config.bus.retention.0,
        retention_bytes: config.bus.retention_bytes.0,
    };
    Bus::open(options).map_err(|error| match error {
        bus::Error::Locked => Failure::dependency(
            "MW-0041",
            format!("the data folder {} is in use by another millwright", folder.display()),
        )
        .hint("stop that one first, or give this one a folder of its own with --data-dir DIR")
        .into(),
        error => cannot_open(folder, "bus.db", error),
    })
}

fn cannot_open(folder: &Path, file: &str, error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    Failure::dependency("MW-0043", format!("open {}: {error:#}", folder.join(file).display())).into()
}

/// Opens the stores and completes the catalogue with what they know.
pub(super) async fn stores(folder: &Path, config: &Config, catalogue: Catalogue) -> Result<Opened> {
    let path = folder.join("store.db");
    let store = tokio::task::spawn_blocking(move || Store::open(&path))
        .await
        .context("open store.db")?
        .map_err(|error| cannot_open(folder, "store.db", error))?;
    let catalogue = catalogue::with_machines(&store, catalogue::with_past_classes(&store, catalogue).await?).await?;
    let catalogue = Arc::new(catalogue);
    let options = history::Options {
        partitions: READINGS_PARTITIONS,
        flush_bytes: usize::try_from(config.history.flush_bytes.0).unwrap_or(usize::MAX),
        flush_after_us: config.history.flush_after.0,
        retention_us: config.history.retention.0,
        dead_letter_retention_us: config.history.dead_letter_retention.0,
    };
    let (path, in_force) = (folder.join("history.db"), catalogue.clone());
    let history = tokio::task::spawn_blocking(move || History::open(&path, in_force, options))
        .await
        .context("open history.db")?
        .map_err(|error| cannot_open(folder, "history.db", error))?;
    Ok(Opened { store, history, catalogue })
}
