//! Puts rows into the batch of their class and partition, and refusals beside them.

use super::{Bound, Decoded, Machines, Row, machines::NOTHING};
use crate::{AHEAD_REFUSED_US, ErrorCode, Marker, ReadingBatch, Reject, Span, partition_of};
use catalog::{Catalogue, Class, ClassChoice, MachineId};
use std::sync::Arc;

/// A message above so many bytes is refused, and
pub(crate) const MESSAGE_MAX: usize = 256 * 1024;
/// so many are kept of it.
const PAYLOAD_KEPT: usize = 4 * 1024;

/// 2000-01-01T00:00:00Z.
const YEAR_2000_US: i64 = 946_684_800_000_000;
const MINUTE_US: i64 = 60_000_000;

/// Why a message is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) error: String,
    /// Place in [`Machines`], where its machine is known.
    pub(crate) machine: Option<usize>,
    /// Class and channel that it names.
    pub(crate) channel: Option<(usize, usize)>,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, error: impl Into<String>) -> Refusal {
        Refusal { code, error: error.into(), machine: None, channel: None }
    }
}

/// What a decoder keeps of the catalogue and of the value at hand.
pub(crate) struct Sorter {
    catalogue: Arc<Catalogue>,
    partitions: u16,
    pub(crate) classes: Vec<Arc<Class>>,
    pub(super) machines: Machines,
    pub(crate) source: Option<Arc<str>>,
    pub(crate) clock_offset_us: i64,
    /// Of the sources of a run's records.
    pub(crate) clocks: Arc<crate::Clocks>,
    /// Number of the value at hand, which tells what of a machine is out of date.
    value: u32,
    arrived_us: i64,
    /// The bus record at hand, where a run of them is decoded; batches get its span.
    record: Option<Span>,
    /// Rows that a batch will probably have.
    expected_rows: usize,
    /// Per class and partition: the place of its batch, [`NOTHING`] before there is one.
    open: Vec<u32>,
    decoded: Decoded,
    /// Per batch of `decoded`: a row has filled a column that most batches do not need.
    rich: Vec<bool>,
}

impl Sorter {
    pub(crate) fn new(catalogue: Arc<Catalogue>, partitions: u16) -> Sorter {
        let partitions = partitions.max(1);
        let classes: Vec<_> = catalogue.classes().cloned().collect();
        let open = vec![NOTHING; classes.len() * usize::from(partitions)];
        Sorter {
            catalogue,
            partitions,
            classes,
            machines: Machines::new(),
            source: None,
            clock_offset_us: 0,
            clocks: Arc::default(),
            value: 0,
            arrived_us: 0,
            record: None,
            expected_rows: 0,
            open,
            decoded: Decoded::default(),
            rich: Vec::new(),
        }
    }

    /// Begins a value of so many bytes.
    pub(crate) fn begin(&mut self, bytes: usize, arrived_us: i64) {
        self.machines.trim();
        self.value = self.value.checked_add(1).unwrap_or_else(|| {
            self.machines = Machines::new();
            1
        });
        self.arrived_us = arrived_us;
        self.record = None;
        // Most messages take 128 bytes or more; a batch that grows beyond a fair share grows by itself.
        self.expected_rows = bytes / 128 / usize::from(self.partitions) * 5 / 4 + 8;
        self.open.fill(NOTHING);
        self.rich.clear();
    }

    /// Goes on with the next record of a run: what was opened stays open, places in the value begin anew.
    pub(super) fn begin_record(&mut self, record: Span) {
        self.arrived_us = record.arrived_us;
        self.clock_offset_us = self.clocks.get(&*record.source).copied().unwrap_or(0);
        self.source = Some(record.source.clone());
        self.decoded.messages = 0;
        self.record = Some(record);
    }

    /// Messages of the value, or of the record of a run.
    pub(super) fn messages(&self) -> u32 {
        self.decoded.messages
    }

    /// What was refused since the value began.
    pub(super) fn rejects(&self) -> usize {
        self.decoded.rejects.len()
    }

    /// Ends the value.
    pub(crate) fn end(&mut self) -> Decoded {
        std::mem::take(&mut self.decoded)
    }

    /// The machine of a message, with the class that it has now.
    pub(crate) fn machine(&mut self, id: MachineId, bound: &Bound<'_>) -> usize {
        let at = self.machines.find(id, |id| partition_of(id, self.partitions));
        self.refresh(at, bound);
        at
    }

    /// Makes what is known of a machine true for the value at hand.
    pub(crate) fn refresh(&mut self, at: usize, bound: &Bound<'_>) {
        let machine = self.machines.get_mut(at);
        if machine.value == self.value {
            return;
        }
        let place = |choice| match choice {
            ClassChoice::Class(class) => place_of(&self.classes, &class.id),
            ClassChoice::Unknown(_) | ClassChoice::Changed(..) => NOTHING,
        };
        if machine.value == 0 {
            machine.default = place(self.catalogue.class_of(&machine.id, None, None));
        }
        machine.value = self.value;
        machine.batch = NOTHING;
        if machine.settled {
            return;
        }
        // What a value's first reading chose is forgotten; what `bound` names stays.
        (machine.bound, machine.unnamed) = (NOTHING, machine.default);
        if let Some(has) = bound(&machine.id) {
            machine.bound = place_of(&self.classes, &has);
            machine.unnamed = place(self.catalogue.class_of(&machine.id, Some(&has), None));
            machine.settled = machine.bound != NOTHING;
        }
    }

    /// The class of a machine's message.
    pub(crate) fn class_of(&self, at: usize, named: Option<&str>, bound: &Bound<'_>) -> Result<usize, Refusal> {
        let machine = self.machines.get(at);
        if named.is_none() && machine.unnamed != NOTHING {
            return Ok(machine.unnamed as usize);
        }
        let has = match self.classes.get(machine.bound as usize) {
            Some(class) => Some(class.id.clone()),
            None => bound(&machine.id),
        };
        match self.catalogue.class_of(&machine.id, has.as_deref(), named) {
            ClassChoice::Class(class) => Ok(place_of(&self.classes, &class.id) as usize),
            ClassChoice::Unknown(id) => {
                let known: Vec<&str> = self.classes.iter().map(|class| &*class.id).collect();
                let error = format!("class {id} is not known here; known are {}", known.join(", "));
                Err(Refusal::new(ErrorCode::UnknownClass, error))
            }
            ClassChoice::Changed(has, named) => {
                let error = format!(
                    "machine {} has class {has}, the message says {named}; a machine keeps its class",
                    machine.id
                );
                Err(Refusal::new(ErrorCode::ClassChanged, error))
            }
        }
    }

    /// Whether a message that names this class may have it without a further question.
    pub(crate) fn is_bound_to(&self, at: usize, class: usize) -> bool {
        let machine = self.machines.get(at);
        machine.bound as usize == class && machine.unnamed as usize == class
    }

    /// Takes the source's clock offset from an event time that a message says; `None` where it must be refused.
    pub(crate) fn event_time(&self, said_us: i64) -> Option<i64> {
        let us = said_us - self.clock_offset_us;
        (YEAR_2000_US <= us && us <= self.arrived_us.saturating_add(AHEAD_REFUSED_US)).then_some(us)
    }

    /// Why [`Sorter::event_time`] refuses.
    pub(crate) fn refuse_time(&self, said_us: i64) -> Refusal {
        let us = said_us - self.clock_offset_us;
        let stamp = crate::format_time(us);
        if us < YEAR_2000_US {
            return Refusal::new(ErrorCode::TooOld, format!("timestamp {stamp} is before 2000"));
        }
        let lead_us = us - self.arrived_us;
        let source = self.source.as_deref().map_or_else(|| "its source".to_owned(), |name| format!("source {name}"));
        // No clock on earth is more than 14 hours ahead of UTC.
        let half_hours = (lead_us + 15 * MINUTE_US) / (30 * MINUTE_US);
        if (lead_us - half_hours * 30 * MINUTE_US).abs() <= 2 * MINUTE_US && (1..=28).contains(&half_hours) {
            let half = if half_hours % 2 == 1 { ".5" } else { "" };
            let ahead = format!("+{}{half} h", half_hours / 2);
            let error =
                format!("timestamp {stamp} looks like local time sent as UTC ({ahead}): set clock_offset of {source}");
            return Refusal::new(ErrorCode::LocalTime, error);
        }
        let error = format!(
            "timestamp {stamp} is {} s ahead of its arrival at {}, 300 s are allowed: check the clock of {source}",
            lead_us / 1_000_000,
            crate::format_time(self.arrived_us)
        );
        Refusal::new(ErrorCode::InFuture, error)
    }

    /// Puts a row where it belongs.
    #[inline]
    pub(crate) fn accept(&mut self, row: &Row) {
        let mut machine = self.machines.get(row.machine);
        let fits = |batch: &(u16, ReadingBatch)| Arc::ptr_eq(&batch.1.class, &self.classes[row.class]);
        if !self.decoded.batches.get(machine.batch as usize).is_some_and(fits) {
            self.enrol(row.machine, row.class);
            machine = self.machines.get(row.machine);
        }
        let batch = &mut self.decoded.batches[machine.batch as usize].1;
        if let Some(record) = &self.record {
            open_span(batch, record);
        }
        batch.machine.push(machine.place);
        batch.timestamp_us.push(row.timestamp_us);
        batch.index.push(self.decoded.messages);
        for (column, value) in batch.values.iter_mut().zip(&row.values) {
            column.push(*value);
        }
        self.decoded.messages += 1;
        let is_rich = &mut self.rich[machine.batch as usize];
        if row.rare.any || *is_rich {
            *is_rich = true;
            batch.fill_rare(&row.rare);
        }
        self.decoded.rounded += u64::from(row.rounded);
        self.decoded.unknown_keys += u64::from(row.unknown_keys);
    }

    /// Enters a machine into the batch of a class.
    #[cold]
    fn enrol(&mut self, at: usize, class: usize) {
        let batch = self.batch(self.machines.get(at).partition, class);
        let machine = self.machines.get_mut(at);
        let machines = &mut self.decoded.batches[batch].1.machines;
        // Only a machine that changed its class and came back is there already, and classes do not change within a value.
        machine.batch = batch as u32;
        machine.place = machines.len() as u32;
        machines.push(machine.id.clone());
        if machine.bound == NOTHING {
            machine.bound = class as u32;
            machine.unnamed = class as u32;
        }
    }

    /// The place of the batch of a partition and class.
    fn batch(&mut self, partition: u16, class: usize) -> usize {
        let open = &mut self.open[class * usize::from(self.partitions) + usize::from(partition)];
        if *open == NOTHING {
            *open = self.decoded.batches.len() as u32;
            let mut batch = ReadingBatch::new(self.classes[class].clone());
            batch.reserve(self.expected_rows);
            self.decoded.batches.push((partition, batch));
            self.rich.push(false);
        }
        *open as usize
    }

    /// Refuses a record as a whole: an array that breaks off, which is the only record of its run, or what holds nothing.
    pub(super) fn refuse_record(&mut self, code: ErrorCode, error: &str, value: &[u8]) {
        if self.decoded.messages > 0 {
            self.decoded = Decoded::default();
            self.open.fill(NOTHING);
            self.rich.clear();
        }
        self.refuse(Refusal::new(code, error), value);
    }

    /// Notes a refusal; one that names a channel of a known machine leaves a marker.
    pub(crate) fn refuse(&mut self, refusal: Refusal, text: &[u8]) {
        let Refusal { code, error, machine, channel } = refusal;
        let index = self.decoded.messages;
        self.decoded.messages += 1;
        let machine_id = machine.map(|at| self.machines.get(at).id.clone());
        let channel_id = channel.map(|(class, channel)| self.classes[class].channels[channel].id.clone());
        if let (Some(at), Some((class, _)), Some(machine), Some(channel)) = (machine, channel, &machine_id, &channel_id)
        {
            let batch = self.batch(self.machines.get(at).partition, class);
            let batch = &mut self.decoded.batches[batch].1;
            if let Some(record) = &self.record {
                open_span(batch, record);
            }
            let (machine, channel, code) = (machine.clone(), channel.clone(), code.as_str().to_owned());
            let before_row = batch.rows() as u32;
            batch.markers.push(Marker { machine, channel, code, arrived_us: self.arrived_us, index, before_row });
        }
        let payload = kept(text).to_vec();
        self.decoded.rejects.push(Reject { index, code, error, machine: machine_id, channel: channel_id, payload });
    }
}

/// What follows in the batch is of this record.
fn open_span(batch: &mut ReadingBatch, record: &Span) {
    if batch.spans.last().is_none_or(|last| last.offset != record.offset) {
        batch.spans.push(Span { first_row: batch.rows() as u32, ..record.clone() });
    }
}

fn place_of(classes: &[Arc<Class>], id: &str) -> u32 {
    classes.iter().position(|class| class.id == id).map_or(NOTHING, |at| at as u32)
}

/// What is kept of a refused message: all of it, or the beginning up to a whole character.
fn kept(text: &[u8]) -> &[u8] {
    if text.len() <= MESSAGE_MAX {
        return text;
    }
    let is_inside = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    let back = (0..4).find(|back| !is_inside(text[PAYLOAD_KEPT - back])).unwrap_or(0);
    &text[..PAYLOAD_KEPT - back]
}
