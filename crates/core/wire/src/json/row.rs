//! One reading on its way into a batch.

use crate::batch::Rare;

/// Most channels that a class may have.
pub(crate) const CHANNELS_MAX: usize = 64;

/// One reading; a decoder has one and fills it again and again.
pub(crate) struct Row {
    /// Place in [`super::Machines`].
    pub(crate) machine: usize,
    /// Place in [`super::Sorter::classes`].
    pub(crate) class: usize,
    /// The message named the class.
    pub(crate) class_named: bool,
    pub(crate) timestamp_us: i64,
    /// Per channel; 0 where missing.
    pub(crate) values: [i64; CHANNELS_MAX],
    pub(crate) rounded: u32,
    pub(crate) unknown_keys: u32,
    /// What most readings lack.
    pub(crate) rare: Rare,
}

impl Default for Row {
    fn default() -> Row {
        Row {
            machine: 0,
            class: 0,
            class_named: false,
            timestamp_us: 0,
            values: [0; CHANNELS_MAX],
            rounded: 0,
            unknown_keys: 0,
            rare: Rare::default(),
        }
    }
}
