//! A channel of a machine by spans of time: least, greatest, mean.

use super::{
    Bucket, Error, Sqlite,
    chunk::{self, Sought},
    directory::{RUN_US, Stat},
    logs::OnDisk,
};
use catalog::{Catalogue, MachineId};
use rusqlite::Connection;
use std::collections::BTreeMap;
use wire::{Quality, ReadingBatch};

impl Sqlite {
    pub(in crate::history) async fn chart(
        &self,
        machine: &MachineId,
        channel: &str,
        from_us: i64,
        to_us: i64,
        buckets: usize,
    ) -> Result<Vec<Bucket>, Error> {
        if from_us >= to_us || buckets == 0 {
            return Ok(Vec::new());
        }
        let mut chart = Chart::new(channel, from_us, to_us, buckets);
        let on_disk = self.inner.in_memory(machine, |_, segment, number| {
            if let Some(at) = chart.channel_of(&segment.rows) {
                segment.rows_of(number).for_each(|row| chart.add_row(&segment.rows, at, row));
            }
        });
        let catalogue = self.inner.catalogue();
        let chart = self.inner.read(move |connection| chart.read(connection, &catalogue, &on_disk)).await?;
        Ok(chart.finish())
    }
}

struct Chart {
    channel: String,
    /// Decimals of the channel, once known.
    scale: Option<u8>,
    from_us: i64,
    to_us: i64,
    /// Start of the first span, and width of each.
    origin_us: i64,
    width_us: i64,
    /// By number of the span.
    spans: BTreeMap<i64, Stat>,
}

impl Chart {
    fn new(channel: &str, from_us: i64, to_us: i64, buckets: usize) -> Chart {
        let buckets = i64::try_from(buckets).unwrap_or(i64::MAX);
        let length = to_us.saturating_sub(from_us);
        let mut width_us = (length - 1) / buckets + 1;
        let mut origin_us = from_us;
        if width_us > RUN_US {
            // Edges where the runs of chunks have theirs, so that the statistics of these answer.
            origin_us = from_us.div_euclid(RUN_US).saturating_mul(RUN_US);
            let length = to_us.saturating_sub(origin_us);
            width_us = ((length - 1) / buckets + 1).div_euclid(RUN_US).saturating_add(1).saturating_mul(RUN_US);
        }
        Chart { channel: channel.to_owned(), scale: None, from_us, to_us, origin_us, width_us, spans: BTreeMap::new() }
    }

    fn span_of(&self, time_us: i64) -> i64 {
        time_us.saturating_sub(self.origin_us).div_euclid(self.width_us)
    }

    /// The place of the channel in a batch's class.
    fn channel_of(&mut self, batch: &ReadingBatch) -> Option<usize> {
        let at = batch.class.channel_index(&self.channel)?;
        // A machine keeps its class, and a class its scales.
        self.scale = Some(batch.class.channels[at].scale);
        Some(at)
    }

    fn add_row(&mut self, batch: &ReadingBatch, channel: usize, row: usize) {
        let time = batch.timestamp_us[row];
        let missing = Quality::of(batch.quality_of(row), channel) == Quality::Missing;
        if time >= self.from_us && time < self.to_us && !missing {
            self.spans.entry(self.span_of(time)).or_insert(Stat::NONE).add(batch.values[channel][row]);
        }
    }

    fn read(mut self, connection: &Connection, catalogue: &Catalogue, on_disk: &[OnDisk]) -> Result<Chart, Error> {
        for OnDisk { partition, number, below } in on_disk {
            let times = (self.from_us, self.to_us - 1);
            let sought = Sought { partition: *partition, machines: (*number, *number), times, below: *below };
            for candidate in chunk::candidates(connection, &sought)? {
                let Some(directory) = chunk::directory(connection, candidate.id)? else { continue };
                let Some(channel) = directory.channels.iter().position(|(id, _)| *id == self.channel) else { continue };
                self.scale = Some(directory.channels[channel].1);
                let mut rows = None;
                for (at, run) in directory.runs.iter().enumerate().filter(|(_, run)| run.number == *number) {
                    if run.max_time < times.0 || run.min_time > times.1 {
                        continue;
                    }
                    let within = candidate.below && run.min_time >= times.0 && run.max_time <= times.1;
                    let span = self.span_of(run.min_time);
                    if within && span == self.span_of(run.max_time) {
                        let stat = directory.stat(at, channel);
                        if stat.count > 0 {
                            self.spans.entry(span).or_insert(Stat::NONE).merge(stat);
                        }
                        continue;
                    }
                    if rows.is_none() {
                        rows = chunk::rows(connection, candidate.id, catalogue)?;
                    }
                    let Some(rows) = &rows else { break };
                    if let Some(channel) = self.channel_of(&rows.batch) {
                        let range = run.first_row as usize..(run.first_row + run.rows) as usize;
                        let counts = |row: &usize| candidate.below || rows.record_of(*row).0 < *below;
                        range.filter(counts).for_each(|row| self.add_row(&rows.batch, channel, row));
                    }
                }
            }
        }
        Ok(self)
    }

    fn finish(self) -> Vec<Bucket> {
        let one = 10_f64.powi(i32::from(self.scale.unwrap_or(0)));
        let bucket = |(span, stat): (&i64, &Stat)| Bucket {
            from_us: self.origin_us.saturating_add(span.saturating_mul(self.width_us)),
            count: stat.count,
            min: stat.min as f64 / one,
            max: stat.max as f64 / one,
            mean: stat.sum as f64 / stat.count as f64 / one,
        };
        self.spans.iter().map(bucket).collect()
    }
}
