//! In which order a machine's readings count: duplicate, ahead, late, out of order, in order (GUARANTEES.md 1).
//!
//! Used by `detect` through the engine and by ingest through the history store, so that both decide alike.

use std::collections::VecDeque;
use wire::{Quality, ReadingBatch};

/// Identity of a reading of one machine: event time, and a 64-bit hash of its `seq`, or of its values without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "said above")]
pub struct Identity {
    pub timestamp_us: i64,
    pub hash: u64,
}

/// The identity of a row of a batch.
pub fn identity(batch: &ReadingBatch, row: usize) -> Identity {
    let hash = match batch.seq_of(row) {
        Some(seq) => seq_hash(seq),
        None => {
            let hash = batch.values.iter().fold(VALUES_SEED, |hash, column| mix(hash, column[row]));
            missing_hash(hash, batch.quality_of(row), batch.values.len())
        }
    };
    Identity { timestamp_us: batch.timestamp_us[row], hash }
}

/// The hashes of [`identity`] for every row of a batch, column by column.
pub(crate) fn hashes(batch: &ReadingBatch, out: &mut Vec<u64>) {
    out.clear();
    out.resize(batch.rows(), VALUES_SEED);
    for column in &batch.values {
        for (hash, value) in out.iter_mut().zip(column) {
            *hash = mix(*hash, *value);
        }
    }
    for (hash, quality) in out.iter_mut().zip(&batch.quality) {
        *hash = missing_hash(*hash, *quality, batch.values.len());
    }
    for (hash, seq) in out.iter_mut().zip(&batch.seq) {
        if let Some(seq) = seq {
            *hash = seq_hash(*seq);
        }
    }
}

const VALUES_SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// One step of a folded multiply: each value spreads over all 64 bits.
fn mix(hash: u64, value: i64) -> u64 {
    let product = u128::from(hash ^ value.cast_unsigned()) * 0xd6e8_feb8_6659_fd93_u128;
    ((product >> 64) as u64 ^ product as u64).wrapping_add(VALUES_SEED)
}

/// A missing value is held as 0 and yet is another reading than one that says 0; good, uncertain and bad are not values.
fn missing_hash(hash: u64, quality: u128, channels: usize) -> u64 {
    if quality == 0 {
        return hash;
    }
    let missing = (0..channels)
        .filter(|channel| Quality::of(quality, *channel) == Quality::Missing)
        .fold(0_i64, |missing, channel| missing | 1 << channel);
    if missing == 0 { hash } else { mix(hash, missing) }
}

/// A bijection (splitmix64), so two sequence numbers never collide.
fn seq_hash(seq: i64) -> u64 {
    let mut hash = seq.cast_unsigned().wrapping_add(0x1234_5678_9abc_def1);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// What a reading is to its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the words of GUARANTEES.md 1")]
pub enum Place {
    /// Seen already, inside the lateness.
    Duplicate,
    /// Further ahead of its arrival than the allowed lateness (and at most 5 min).
    Ahead,
    /// Older than the newest by more than the allowed lateness. May be a duplicate of something older: `Order` cannot know.
    Late,
    OutOfOrder,
    /// Not older than the newest; two readings of one timestamp are told apart by their identity.
    InOrder,
}

/// The order of one machine's readings.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Event time of the newest in-order reading; `i64::MIN` before the first.
    pub newest_us: i64,
    held: Held,
}

/// The identities that a reading could repeat: those inside the lateness, and those ahead of the newest until passed, the
/// last [`AHEAD_MOST`] of these.
#[derive(Debug, Clone, PartialEq)]
enum Held {
    /// What a machine of a few readings in its lateness needs lies beside its watermark, in the order of arrival.
    Few(Few),
    /// Ascending.
    Many(VecDeque<Identity>),
}

/// Identities ahead of the newest in-order reading that are kept where nothing ever passes them: a machine whose clock
/// runs ahead moves no watermark, and its memory would grow for ever. 1 MiB of them a machine, 18 hours of a reading a second;
/// the one of the earliest event time goes first, and what repeats it counts as a reading of its own. Detect and ingest
/// hold the same, since both hold them here.
const AHEAD_MOST: usize = 1 << 16;

const FEW: usize = 7;

/// Furthest from the newest that the low 32 bits of a time tell it.
const FEW_REACH_US: i64 = 30 * 60 * 1_000_000;

#[derive(Debug, Clone, PartialEq)]
struct Few {
    hash: [u64; FEW],
    /// Low 32 bits of the event time, to be read near `newest_us`.
    low: [u32; FEW],
    head: u8,
    len: u8,
    /// Some identity may be newer than the newest in-order reading.
    ahead: bool,
}

impl Default for Order {
    fn default() -> Order {
        Order::new()
    }
}

impl Order {
    /// Before the first reading.
    pub fn new() -> Order {
        Order { newest_us: i64::MIN, held: Held::Few(Few::empty()) }
    }

    /// Places a reading and remembers it.
    #[inline]
    pub fn place(&mut self, lateness_us: i64, arrived_us: i64, identity: Identity) -> Place {
        let timestamp_us = identity.timestamp_us;
        let ahead = timestamp_us > arrived_us.saturating_add(lateness_us);
        if timestamp_us > self.newest_us && !ahead && !self.may_hold_newer() {
            self.move_to(lateness_us, timestamp_us);
            self.hold(lateness_us, identity);
            return Place::InOrder;
        }
        self.place_with_look_up(lateness_us, ahead, identity)
    }

    fn place_with_look_up(&mut self, lateness_us: i64, ahead: bool, identity: Identity) -> Place {
        let timestamp_us = identity.timestamp_us;
        let late = timestamp_us < self.newest_us.saturating_sub(lateness_us);
        if !late && self.holds(identity) {
            return Place::Duplicate;
        }
        let place = match () {
            () if ahead => Place::Ahead,
            () if late => return Place::Late,
            () if timestamp_us < self.newest_us => Place::OutOfOrder,
            () => {
                self.move_to(lateness_us, timestamp_us);
                Place::InOrder
            }
        };
        if !late {
            self.hold(lateness_us, identity);
        }
        place
    }

    /// Remembers a reading that the history holds (read back at assignment), in any order.
    pub fn remember(&mut self, lateness_us: i64, identity: Identity, place: Place) {
        match place {
            Place::Duplicate | Place::Late => return,
            Place::Ahead => {}
            Place::OutOfOrder | Place::InOrder => {
                if identity.timestamp_us > self.newest_us {
                    self.move_to(lateness_us, identity.timestamp_us);
                }
            }
        }
        if identity.timestamp_us >= self.newest_us.saturating_sub(lateness_us) && !self.holds(identity) {
            self.hold(lateness_us, identity);
        }
    }

    /// Forgets every identity that is out of the lateness. Called before the allowed lateness changes, so that what a
    /// reading may repeat does not depend on when an identity happened to be dropped.
    pub fn prune(&mut self, lateness_us: i64) {
        let floor = self.newest_us.saturating_sub(lateness_us);
        let kept = self.identities().into_iter().filter(|held| held.timestamp_us >= floor).collect();
        self.held = self.gather(kept);
    }

    /// Some of its bits, whatever they mean: reading them brings it near.
    pub(crate) fn peek(&self) -> u64 {
        match &self.held {
            Held::Few(few) => few.hash[0] ^ few.hash[FEW - 1] ^ u64::from(few.low[FEW - 1]),
            Held::Many(many) => many.len() as u64,
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match &self.held {
            Held::Few(_) => 0,
            Held::Many(many) => many.capacity() * size_of::<Identity>(),
        }
    }

    /// Appends an encoding, the same for what was held since long and what was read back.
    pub fn save(&self, out: &mut Vec<u8>) {
        let mut identities = self.identities();
        identities.sort_unstable();
        out.extend_from_slice(&self.newest_us.to_le_bytes());
        let count =
            u32::try_from(identities.len()).expect("a machine has fewer than 2^32 readings inside its lateness");
        out.extend_from_slice(&count.to_le_bytes());
        for identity in identities {
            out.extend_from_slice(&identity.timestamp_us.to_le_bytes());
            out.extend_from_slice(&identity.hash.to_le_bytes());
        }
    }

    /// Reads [`Order::save`] and moves `bytes` past it.
    pub fn load(bytes: &mut &[u8]) -> Option<Order> {
        let mut next = |len: usize| bytes.split_off(..len);
        let newest_us = i64::from_le_bytes(next(8)?.try_into().ok()?);
        let count = u32::from_le_bytes(next(4)?.try_into().ok()?) as usize;
        // Memory is taken as the bytes are read: a damaged count cannot ask for more than the bytes hold.
        let mut identities = Vec::new();
        for _ in 0..count {
            let timestamp_us = i64::from_le_bytes(next(8)?.try_into().ok()?);
            let hash = u64::from_le_bytes(next(8)?.try_into().ok()?);
            identities.push(Identity { timestamp_us, hash });
        }
        let mut order = Order { newest_us, held: Held::Few(Few::empty()) };
        order.held = order.gather(identities);
        Some(order)
    }

    fn may_hold_newer(&self) -> bool {
        match &self.held {
            Held::Few(few) => few.ahead,
            Held::Many(many) => many.back().is_some_and(|last| last.timestamp_us > self.newest_us),
        }
    }

    fn holds(&self, identity: Identity) -> bool {
        match &self.held {
            Held::Few(few) => {
                let low = identity.timestamp_us as u32;
                let near = identity.timestamp_us.abs_diff(self.newest_us) <= FEW_REACH_US.unsigned_abs();
                near && few.places().any(|at| few.low[at] == low && few.hash[at] == identity.hash)
            }
            Held::Many(many) => many.binary_search(&identity).is_ok(),
        }
    }

    /// Moves the watermark and forgets what falls out of the lateness.
    fn move_to(&mut self, lateness_us: i64, newest_us: i64) {
        let floor = newest_us.saturating_sub(lateness_us);
        match &mut self.held {
            Held::Few(few) => {
                while few.len > 0 && few.time(usize::from(few.head), self.newest_us) < floor {
                    few.pop();
                }
                if few.ahead || lateness_us > FEW_REACH_US {
                    // Rare, and the low bits must stay readable near the new watermark.
                    let held = self.identities().into_iter().filter(|held| held.timestamp_us >= floor).collect();
                    self.newest_us = newest_us;
                    self.held = self.gather(held);
                    return;
                }
                self.newest_us = newest_us;
            }
            Held::Many(many) => {
                while many.front().is_some_and(|first| first.timestamp_us < floor) {
                    many.pop_front();
                }
                self.newest_us = newest_us;
                if many.len() <= FEW / 2 && lateness_us <= FEW_REACH_US {
                    let held = many.drain(..).collect();
                    self.held = self.gather(held);
                }
            }
        }
    }

    fn hold(&mut self, lateness_us: i64, identity: Identity) {
        let newest_us = self.newest_us;
        let near = identity.timestamp_us.abs_diff(newest_us) <= FEW_REACH_US.unsigned_abs();
        if let Held::Few(few) = &mut self.held {
            if usize::from(few.len) == FEW {
                few.drop_expired(newest_us, newest_us.saturating_sub(lateness_us));
            }
            if near && lateness_us <= FEW_REACH_US && usize::from(few.len) < FEW {
                few.push(identity, newest_us);
                return;
            }
            let mut many: VecDeque<Identity> = self.identities().into();
            many.make_contiguous().sort_unstable();
            self.held = Held::Many(many);
        }
        if let Held::Many(many) = &mut self.held {
            match many.binary_search(&identity) {
                Ok(_) => {}
                Err(at) => many.insert(at, identity),
            }
            if many.len() > AHEAD_MOST {
                let passed = many.partition_point(|held| held.timestamp_us <= newest_us);
                if many.len() - passed > AHEAD_MOST {
                    many.remove(passed);
                }
            }
        }
    }

    /// What is held: in the order of arrival, or ascending.
    fn identities(&self) -> Vec<Identity> {
        match &self.held {
            Held::Few(few) => few
                .places()
                .map(|at| Identity { timestamp_us: few.time(at, self.newest_us), hash: few.hash[at] })
                .collect(),
            Held::Many(many) => many.iter().copied().collect(),
        }
    }

    fn gather(&self, identities: Vec<Identity>) -> Held {
        let near = |held: &Identity| held.timestamp_us.abs_diff(self.newest_us) <= FEW_REACH_US.unsigned_abs();
        if identities.len() <= FEW && identities.iter().all(near) {
            let mut few = Few::empty();
            for identity in identities {
                few.push(identity, self.newest_us);
            }
            Held::Few(few)
        } else {
            let mut many: VecDeque<Identity> = identities.into();
            many.make_contiguous().sort_unstable();
            Held::Many(many)
        }
    }
}

impl Few {
    fn empty() -> Few {
        Few { hash: [0; FEW], low: [0; FEW], head: 0, len: 0, ahead: false }
    }

    fn places(&self) -> impl Iterator<Item = usize> {
        let head = usize::from(self.head);
        (0..usize::from(self.len)).map(move |at| (head + at) % FEW)
    }

    fn time(&self, at: usize, newest_us: i64) -> i64 {
        newest_us + i64::from(self.low[at].wrapping_sub(newest_us as u32).cast_signed())
    }

    fn push(&mut self, identity: Identity, newest_us: i64) {
        let mut at = usize::from(self.head) + usize::from(self.len);
        if at >= FEW {
            at -= FEW;
        }
        self.hash[at] = identity.hash;
        self.low[at] = identity.timestamp_us as u32;
        self.len += 1;
        self.ahead |= identity.timestamp_us > newest_us;
    }

    fn pop(&mut self) {
        self.head = if usize::from(self.head) + 1 == FEW { 0 } else { self.head + 1 };
        self.len -= 1;
    }

    fn drop_expired(&mut self, newest_us: i64, floor: i64) {
        let kept: Vec<Identity> = self
            .places()
            .map(|at| Identity { timestamp_us: self.time(at, newest_us), hash: self.hash[at] })
            .filter(|held| held.timestamp_us >= floor)
            .collect();
        *self = Few::empty();
        for identity in kept {
            self.push(identity, newest_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Readings as `time@arrival#hash`, seconds; the lateness is 5 s. The places come back as D A L O I.
    fn check(readings: &str, places: &str) {
        let mut order = Order::new();
        let mut found = Vec::new();
        for reading in readings.split_whitespace() {
            let (reading, hash) = reading.split_once('#').unwrap_or((reading, "0"));
            let (time, arrival) = reading.split_once('@').unwrap_or((reading, reading));
            let [time, arrival] = [time, arrival].map(|text| text.parse::<i64>().unwrap() * 1_000_000);
            let identity = Identity { timestamp_us: time, hash: hash.parse().unwrap() };
            found.push(match order.place(5_000_000, arrival, identity) {
                Place::Duplicate => "D",
                Place::Ahead => "A",
                Place::Late => "L",
                Place::OutOfOrder => "O",
                Place::InOrder => "I",
            });
        }
        assert_eq!(found.join(" "), places, "{readings}");
    }

    #[test]
    fn a_newer_reading_is_in_order() {
        check("1 2 3 10", "I I I I");
    }

    #[test]
    fn an_equal_time_is_told_apart_by_its_identity() {
        check("1#1 1#2 1#1", "I I D");
    }

    #[test]
    fn the_lateness_itself_is_not_late() {
        check("10 5 4", "I O L");
    }

    #[test]
    fn a_repeat_inside_the_lateness_is_a_duplicate_and_an_older_one_is_late() {
        check("10 5 5 10 16 10 11 11", "I O D D I L O D");
    }

    #[test]
    fn a_reading_ahead_of_its_arrival_moves_no_watermark() {
        check("1 20@2 2 3", "I A I I");
    }

    #[test]
    fn an_ahead_reading_sent_again_is_a_duplicate_even_when_its_time_has_come() {
        check("1 20@2 20@3 20@20 21", "I A D D I");
    }

    #[test]
    fn an_ahead_reading_that_was_passed_stays_known_inside_the_lateness() {
        check("1 20@2 22 20@22 26 20", "I A I D I L");
    }

    #[test]
    fn many_readings_within_the_lateness_are_all_known() {
        let burst: Vec<String> = (0..100).map(|hash| format!("7#{hash}")).collect();
        let burst = burst.join(" ");
        check(&format!("{burst} {burst} 13#5 7#5"), &format!("{} {} I L", ["I"; 100].join(" "), ["D"; 100].join(" ")));
    }

    #[test]
    fn a_jump_of_hours_forgets_what_lies_behind() {
        check("1 100000 1 99996 99996", "I I L O D");
    }

    #[test]
    fn values_and_missing_values_make_the_identity() {
        assert_ne!(missing_hash(7, Quality::Missing.bits(1), 2), missing_hash(7, 0, 2));
        assert_eq!(missing_hash(7, Quality::Bad.bits(1), 2), missing_hash(7, 0, 2));
        assert_ne!(mix(mix(VALUES_SEED, 1), 2), mix(mix(VALUES_SEED, 2), 1));
    }

    #[test]
    fn damaged_bytes_are_no_order() {
        let mut bytes = Vec::new();
        let mut order = Order::new();
        order.place(5, 10, Identity { timestamp_us: 10, hash: 1 });
        order.save(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(Order::load(&mut &bytes[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn readings_that_nothing_passes_are_kept_up_to_a_number() {
        let mut order = Order::new();
        let place = |order: &mut Order, second: i64, arrived: i64| {
            let identity = Identity { timestamp_us: second * 1_000_000, hash: 7 };
            order.place(5_000_000, arrived * 1_000_000, identity)
        };
        assert_eq!(place(&mut order, 1, 1), Place::InOrder);
        let most = AHEAD_MOST as i64;
        for second in 2..most + 100 {
            assert_eq!(place(&mut order, second + 60, second), Place::Ahead);
        }
        assert!(order.heap_bytes() <= 2 * AHEAD_MOST * size_of::<Identity>(), "{}", order.heap_bytes());
        // The last of them are known, what was passed is known, the first of them are forgotten.
        assert_eq!(place(&mut order, most + 159, most + 100), Place::Duplicate);
        assert_eq!(place(&mut order, 160, 100), Place::Duplicate);
        assert_eq!(place(&mut order, 1, 100), Place::Duplicate);
        assert_eq!(place(&mut order, 70, 10), Place::Ahead);
        let mut bytes = Vec::new();
        order.save(&mut bytes);
        assert!(bytes.len() <= 12 + (AHEAD_MOST + 1) * 16);
    }

    /// What GUARANTEES.md says, with every identity kept for ever.
    fn place_plainly(seen: &mut Vec<(Identity, Place)>, lateness: i64, arrived: i64, identity: Identity) -> Place {
        let newest = seen.iter().filter(|(_, place)| *place == Place::InOrder).map(|(held, _)| held.timestamp_us).max();
        let floor = newest.map_or(i64::MIN, |newest| newest - lateness);
        let kept = |place: Place| !matches!(place, Place::Duplicate | Place::Late);
        let place =
            if identity.timestamp_us >= floor && seen.iter().any(|(held, place)| kept(*place) && *held == identity) {
                Place::Duplicate
            } else if identity.timestamp_us > arrived + lateness {
                Place::Ahead
            } else if identity.timestamp_us < floor {
                Place::Late
            } else if newest.is_some_and(|newest| identity.timestamp_us < newest) {
                Place::OutOfOrder
            } else {
                Place::InOrder
            };
        seen.push((identity, place));
        place
    }

    proptest! {
        #[test]
        fn places_are_those_of_a_machine_that_forgets_nothing(
            steps in prop::collection::vec((0_i64..4, -9_i64..9, 0_u64..2, 0_i64..8), 1..120),
            unit in prop::sample::select(vec![1_000_i64, 1_000_000, 400_000_000]),
        ) {
            let lateness = 5 * unit;
            let (mut order, mut seen, mut now) = (Order::new(), Vec::new(), 1_600_000_000_000_000);
            for (step, offset, hash, crash) in steps {
                now += step * unit;
                let identity = Identity { timestamp_us: now + offset * unit, hash };
                let place = order.place(lateness, now, identity);
                prop_assert_eq!(place, place_plainly(&mut seen, lateness, now, identity));
                if crash == 0 {
                    let mut bytes = Vec::new();
                    order.save(&mut bytes);
                    let mut rest = &*bytes;
                    order = Order::load(&mut rest).unwrap();
                    prop_assert!(rest.is_empty());
                }
            }
        }
    }
}
