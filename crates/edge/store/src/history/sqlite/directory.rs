//! What stands in a chunk: runs of rows of one machine, with statistics of every channel.
//!
//! A run covers 10 s of event time where these hold at least 4 readings, else the machine's rows in the chunk. So a
//! chart reads no readings but those at the edges of its buckets.

use wire::{Quality, ReadingBatch};

/// Longest span of event time of a run, where readings are dense.
pub(super) const RUN_US: i64 = 10_000_000;
/// Fewest readings in a run for which short runs are worth their bytes.
const DENSE: usize = 4;

/// Which rows of a chunk are whose.
#[derive(Default)]
pub(super) struct Directory {
    /// Id and scale, as the chunk's writer knew them.
    pub(super) channels: Vec<(String, u8)>,
    pub(super) runs: Vec<Run>,
    /// By run, by channel.
    stats: Vec<Stat>,
}

/// Consecutive rows of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The machine's number in the partition.
    pub(super) number: u32,
    pub(super) first_row: u32,
    pub(super) rows: u32,
    /// Event times, both inclusive.
    pub(super) min_time: i64,
    pub(super) max_time: i64,
}

/// The values that a run has of a channel, as scaled integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) count: u64,
    pub(super) min: i64,
    pub(super) max: i64,
    pub(super) sum: i128,
}

impl Stat {
    pub(super) const NONE: Stat = Stat { count: 0, min: i64::MAX, max: i64::MIN, sum: 0 };

    #[inline]
    pub(super) fn add(&mut self, value: i64) {
        self.count += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sum += i128::from(value);
    }

    pub(super) fn merge(&mut self, other: &Stat) {
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
    }
}

impl Directory {
    pub(super) fn new(batch: &ReadingBatch) -> Directory {
        let channels = batch.class.channels.iter().map(|channel| (channel.id.clone(), channel.scale)).collect();
        Directory { channels, ..Directory::default() }
    }

    pub(super) fn stat(&self, run: usize, channel: usize) -> &Stat {
        &self.stats[run * self.channels.len() + channel]
    }

    /// Enters the rows of a machine, sorted by time.
    pub(super) fn enter(&mut self, batch: &ReadingBatch, number: u32, rows: std::ops::Range<usize>) {
        let times = &batch.timestamp_us[rows.clone()];
        let ends = short_runs(times);
        if ends.len() * DENSE <= rows.len() {
            let mut from = rows.start;
            for end in ends {
                self.enter_run(batch, number, from..rows.start + end);
                from = rows.start + end;
            }
        } else {
            self.enter_run(batch, number, rows);
        }
    }

    fn enter_run(&mut self, batch: &ReadingBatch, number: u32, rows: std::ops::Range<usize>) {
        let times = &batch.timestamp_us[rows.clone()];
        self.runs.push(Run {
            number,
            first_row: rows.start as u32,
            rows: rows.len() as u32,
            min_time: times[0],
            max_time: times[times.len() - 1],
        });
        for (channel, values) in batch.values.iter().enumerate() {
            let mut stat = Stat::NONE;
            for row in rows.clone() {
                if batch.quality.is_empty() || Quality::of(batch.quality[row], channel) != Quality::Missing {
                    stat.add(values[row]);
                }
            }
            self.stats.push(stat);
        }
    }

    /// Channels (id, scale), then runs: each number as its step from the run before, in as few bytes as it needs.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.runs.len() * (6 + 6 * self.channels.len()));
        write(self.channels.len() as u128, &mut out);
        for (id, scale) in &self.channels {
            write(id.len() as u128, &mut out);
            out.extend_from_slice(id.as_bytes());
            out.push(*scale);
        }
        write(self.runs.len() as u128, &mut out);
        let (mut number, mut time) = (0, 0);
        let mut low = vec![0; self.channels.len()];
        for (at, run) in self.runs.iter().enumerate() {
            write(u128::from(run.number - number), &mut out);
            write(u128::from(run.rows), &mut out);
            write_step(time, run.min_time, &mut out);
            write(u128::from(run.max_time.abs_diff(run.min_time)), &mut out);
            (number, time) = (run.number, run.min_time);
            for (channel, low) in low.iter_mut().enumerate() {
                let stat = self.stat(at, channel);
                write(u128::from(run.rows) - u128::from(stat.count), &mut out);
                if stat.count > 0 {
                    write_step(*low, stat.min, &mut out);
                    write(u128::from(stat.max.abs_diff(stat.min)), &mut out);
                    let least = i128::from(stat.min) * i128::from(stat.count);
                    write((stat.sum - least).cast_unsigned(), &mut out);
                    *low = stat.min;
                }
            }
        }
        out
    }

    /// Reads [`Directory::encode`]; nothing where the bytes are none.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Directory> {
        let bytes = &mut bytes;
        let channels = usize::try_from(read(bytes)?).ok()?;
        let mut directory = Directory::default();
        for _ in 0..channels {
            let length = usize::try_from(read(bytes)?).ok()?;
            let id = std::str::from_utf8(bytes.split_off(..length)?).ok()?.to_owned();
            directory.channels.push((id, *bytes.split_off_first()?));
        }
        let runs = usize::try_from(read(bytes)?).ok()?;
        let (mut number, mut time, mut first_row) = (0_u32, 0_i64, 0_u32);
        let mut low = vec![0_i64; channels];
        for _ in 0..runs {
            number = number.checked_add(u32::try_from(read(bytes)?).ok()?)?;
            let rows = u32::try_from(read(bytes)?).ok()?;
            time = read_step(time, bytes)?;
            let max_time = time.checked_add_unsigned(u64::try_from(read(bytes)?).ok()?)?;
            directory.runs.push(Run { number, first_row, rows, min_time: time, max_time });
            first_row = first_row.checked_add(rows)?;
            for low in &mut low {
                let count = u64::from(rows).checked_sub(u64::try_from(read(bytes)?).ok()?)?;
                let mut stat = Stat::NONE;
                if count > 0 {
                    let min = read_step(*low, bytes)?;
                    let max = min.checked_add_unsigned(u64::try_from(read(bytes)?).ok()?)?;
                    let sum = i128::from(min) * i128::from(count);
                    stat = Stat { count, min, max, sum: sum.checked_add_unsigned(read(bytes)?)? };
                    *low = min;
                }
                directory.stats.push(stat);
            }
        }
        bytes.is_empty().then_some(directory)
    }
}

/// Where the runs of [`RUN_US`] end in ascending times.
fn short_runs(times: &[i64]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < times.len() {
        let end = (times[at].div_euclid(RUN_US) + 1) * RUN_US;
        at += times[at..].iter().take_while(|time| **time < end).count();
        ends.push(at);
    }
    ends
}

/// Seven bits a byte, lowest first; the highest bit says that more follow.
fn write(mut number: u128, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read(bytes: &mut &[u8]) -> Option<u128> {
    let mut number = 0_u128;
    for shift in (0..128).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A step up or down, small either way.
fn write_step(from: i64, to: i64, out: &mut Vec<u8>) {
    let step = to.wrapping_sub(from);
    write(u128::from(((step << 1) ^ (step >> 63)).cast_unsigned()), out);
}

fn read_step(from: i64, bytes: &mut &[u8]) -> Option<i64> {
    let folded = u64::try_from(read(bytes)?).ok()?;
    let step = (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed();
    Some(from.wrapping_add(step))
}
