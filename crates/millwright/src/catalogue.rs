//! The catalogue that is in force: class files, classes that were in force before, and what machines have of their own.

use anyhow::{Context, Result};
use catalog::{Catalogue, MachineId, MachineSettings};
use std::{sync::Arc, time::Duration};
use store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often another process's change of a machine is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A class once in force stays so when its file is no longer given: its machines and readings are still there.
///
/// # Errors
/// The store cannot be read, or a catalogue in it.
pub(crate) async fn with_past_classes(store: &Store, mut catalogue: Catalogue) -> Result<Catalogue> {
    let activations = store.latest_activations().await.context("read the catalogues that were in force")?;
    let mut hashes: Vec<String> = activations.into_iter().map(|activation| activation.catalogue_hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes.retain(|hash| hash != catalogue.hash());
    for hash in hashes {
        let document = store.catalogue(&hash).await.context("read a catalogue that was in force")?;
        let past = document.as_deref().map(Catalogue::from_document).transpose();
        let past = past.with_context(|| format!("read the catalogue {hash}"))?;
        for class in past.iter().flat_map(Catalogue::classes) {
            if catalogue.class(&class.id).is_none() {
                catalogue = catalogue.with_class((**class).clone());
            }
        }
    }
    Ok(catalogue)
}

/// Adds what machines have of their own; what their classes no longer allow is said and left out.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn with_machines(store: &Store, catalogue: Catalogue) -> Result<Catalogue> {
    let rows = store.registry().await.context("read the machines")?;
    let own = rows.iter().filter_map(|row| {
        let settings = row.settings();
        let machine = MachineId::try_from(&*row.machine_id).ok()?;
        (settings != MachineSettings::default()).then_some((machine, settings))
    });
    let (catalogue, left_out) = catalogue.with_machines(own);
    for error in left_out {
        warn!("settings of a machine are left out: {error}");
    }
    Ok(catalogue)
}

/// Follows the registry that several processes share, until `stop`: `base` is the catalogue without machines.
pub(crate) async fn follow(
    store: Store,
    base: Catalogue,
    in_force: watch::Sender<Arc<Catalogue>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        // The database may be away; what is in force stays so.
        let Ok(catalogue) = with_machines(&store, base.clone()).await else { continue };
        in_force.send_if_modified(|current| {
            let changed = current.hash() != catalogue.hash();
            if changed {
                *current = Arc::new(catalogue);
            }
            changed
        });
        let _ = store.refresh_confirmed().await;
    }
}
