//! What nobody is notified of: readings of a replayed file. They are known by their arrival, since an alert carries that
//! of its reading and whoever sends a file stamps what it sends together with one.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

/// So many arrivals are known, the newest.
const ARRIVALS_MAX: usize = 1 << 20;

/// Arrivals of readings that nobody is notified of. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct QuietArrivals(Arc<Mutex<BTreeSet<i64>>>);

impl QuietArrivals {
    /// Takes the arrival of readings, microseconds since 1970, before they are sent.
    pub fn add(&self, arrived_us: i64) {
        let mut arrivals = self.0.lock().expect("nothing panics while it is held");
        arrivals.insert(arrived_us);
        if arrivals.len() > ARRIVALS_MAX {
            arrivals.pop_first();
        }
    }

    /// Whether a reading that arrived then is one of them.
    pub(crate) fn holds(&self, arrived_us: i64) -> bool {
        self.0.lock().expect("nothing panics while it is held").contains(&arrived_us)
    }
}
