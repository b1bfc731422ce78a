//! One reading on its way into a batch.

use crate::batch::Rare;

/// Most channels that a class may have.
pub(super) const CHANNELS_MAX: usize = 64;

/// One reading; a decoder has one and fills it again and again.
pub(super) struct Row {
    /// Place in [`super::Machines`].
    pub(super) machine: usize,
    /// Place in [`super::Sorter::classes`].
    pub(super) class: usize,
    /// The message named the class.
    pub(super) class_named: bool,
    pub(super) timestamp_us: i64,
    /// Per channel; 0 where missing.
    pub(super) values: [i64; CHANNELS_MAX],
    pub(super) rounded: u32,
    pub(super) unknown_keys: u32,
    /// What most readings lack.
    pub(super) rare: Rare,
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
