//! Builds what is told of a transition.

use crate::{
    Effects, MachineEvent,
    condition::{Condition, What},
    learning::Learning,
    machine::{NO_VALUE, Slab},
    rules::Rules,
};
use catalog::{Class, MachineId, Quantity, State};
use scoring::{Evidence, WindowStats};
use serde_json::value::RawValue;
use std::fmt::Write;
use wire::{Alert, AlertId, AlertText, Kind, Position, Quality, READINGS_TOPIC, ReadingBatch, Reason, alert_id};

/// A machine's own normal is known from so many readings on.
const NORMAL_READINGS: u32 = 100;

/// Where and when something happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Of the batch, where a row is what happens.
    pub(crate) row: usize,
    pub(crate) timestamp_us: i64,
    pub(crate) arrived_us: i64,
    pub(crate) offset: i64,
    pub(crate) index: u32,
    pub(crate) partition: u16,
    /// Committed before a crash: the state changes, nothing is told.
    pub(crate) silent: bool,
}

impl Moment {
    pub(crate) fn position(&self) -> Position {
        Position { topic: READINGS_TOPIC.to_owned(), partition: self.partition, offset: self.offset, index: self.index }
    }

    /// Id of the alert of a transition here.
    pub(crate) fn alert_id(&self, machine: &str, condition: &str, kind: Kind) -> AlertId {
        alert_id(machine, condition, kind, self.timestamp_us, &self.position())
    }
}

/// A reading as an alert shows it.
pub(crate) struct Reading {
    pub(crate) timestamp_us: i64,
    pub(crate) values: Vec<i64>,
    pub(crate) quality: u128,
    /// By attribute of the class; [`ReadingBatch::NONE`] where absent.
    pub(crate) attributes: Vec<u8>,
    pub(crate) seq: Option<i64>,
    pub(crate) state: Option<u8>,
    pub(crate) links: Option<String>,
}

impl Reading {
    /// A row of a batch.
    pub(crate) fn of_row(batch: &ReadingBatch, row: usize) -> Reading {
        Reading {
            timestamp_us: batch.timestamp_us[row],
            values: batch.values.iter().map(|column| column[row]).collect(),
            quality: batch.quality_of(row),
            attributes: batch
                .attributes
                .iter()
                .map(|column| column.get(row).copied().unwrap_or(ReadingBatch::NONE))
                .collect(),
            seq: batch.seq_of(row),
            state: batch.state.get(row).copied().filter(|state| *state != ReadingBatch::NONE),
            links: batch.links.get(&(row as u32)).map(|links| links.to_string()),
        }
    }

    /// The newest in-order reading of a machine, where there is one.
    pub(crate) fn newest(slab: &Slab, rules: &Rules, at: usize) -> Option<Reading> {
        let machine = &slab.machines[at];
        let has_one = machine.rare.is_some() || slab.values(rules, at).iter().any(|value| *value != NO_VALUE);
        let (values, quality) = slab.reading(rules, at);
        has_one.then(|| Reading {
            timestamp_us: machine.order.newest_us,
            values,
            quality,
            attributes: slab.attributes(rules, at).to_vec(),
            seq: machine.rare.as_ref().and_then(|rare| rare.seq),
            state: machine.rare.as_ref().and_then(|rare| rare.state),
            links: machine.rare.as_ref().and_then(|rare| rare.links.clone()),
        })
    }

    /// The message (SPEC.md 3.1).
    pub(crate) fn json(&self, class: &Class, machine: &str) -> Box<RawValue> {
        let quote = |text: &str| serde_json::to_string(text).expect("text is JSON");
        let mut json =
            format!(r#"{{"machine_id":{},"timestamp":"{}""#, quote(machine), wire::format_time(self.timestamp_us));
        let mut marks = String::new();
        for (place, channel) in class.channels.iter().enumerate() {
            let quality = Quality::of(self.quality, place);
            if quality == Quality::Missing {
                continue;
            }
            let value = wire::decimal_text(self.values[place], channel.scale);
            write!(json, r#","{}":{value}"#, channel.id).expect("a String takes all");
            let mark = match quality {
                Quality::Uncertain => "uncertain",
                Quality::Bad => "bad",
                Quality::Good | Quality::Missing => continue,
            };
            let comma = if marks.is_empty() { "" } else { "," };
            write!(marks, r#"{comma}"{}":"{mark}""#, channel.id).expect("a String takes all");
        }
        for (place, attribute) in class.attributes.iter().enumerate() {
            if let Some(word) = attribute.values.get(usize::from(self.attributes[place])) {
                write!(json, r#","{}":{}"#, attribute.id, quote(word)).expect("a String takes all");
            }
        }
        if let Some(seq) = self.seq {
            write!(json, r#","seq":{seq}"#).expect("a String takes all");
        }
        if let Some(state) = self.state.and_then(|state| State::ALL.get(usize::from(state))) {
            write!(json, r#","machine_state":"{}""#, state.as_str()).expect("a String takes all");
        }
        if !marks.is_empty() {
            write!(json, r#","quality":{{{marks}}}"#).expect("a String takes all");
        }
        if let Some(links) = &self.links {
            write!(json, r#","links":{links}"#).expect("a String takes all");
        }
        json.push('}');
        RawValue::from_string(json).expect("links were read as JSON, the rest is written as such")
    }
}

/// What an alert says.
pub(crate) struct Said {
    pub(crate) score: f64,
    /// Hash of the fit, of a learned detector.
    pub(crate) fit: Option<String>,
    pub(crate) reading: Option<Box<RawValue>>,
    pub(crate) reason: Reason,
    pub(crate) text: AlertText,
}

impl Said {
    /// What has no reason but its text.
    pub(crate) fn plain(law: Option<String>, text: AlertText) -> Said {
        Said { score: 0.0, fit: None, reading: None, reason: Reason { law, ..Reason::default() }, text }
    }

    pub(crate) fn caused_by(mut self, reading: Box<RawValue>) -> Said {
        self.reading = Some(reading);
        self
    }

    pub(crate) fn with_note(mut self, note: &str) -> Said {
        self.reason.notes.push(note.to_owned());
        self
    }
}

/// How a condition moves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) kind: Kind,
    pub(crate) suspended: Option<bool>,
    pub(crate) caught_up: Option<bool>,
}

impl Turn {
    pub(crate) const RAISED: Turn = Turn { kind: Kind::Raised, suspended: None, caught_up: None };
    pub(crate) const CHANGED: Turn = Turn { kind: Kind::Changed, suspended: None, caught_up: None };
    pub(crate) const CLEARED: Turn = Turn { kind: Kind::Cleared, suspended: None, caught_up: None };
    pub(crate) const SUSPENDED: Turn = Turn { kind: Kind::Changed, suspended: Some(true), caught_up: None };
    pub(crate) const RESUMED: Turn = Turn { kind: Kind::Changed, suspended: Some(false), caught_up: None };
    pub(crate) const CAUGHT_UP: Turn = Turn { kind: Kind::Changed, suspended: None, caught_up: Some(true) };
}

/// Where transitions are told.
pub(crate) struct Desk<'a> {
    pub(crate) effects: &'a mut Effects,
    /// Of the catalogue in force.
    pub(crate) catalogue_hash: &'a str,
    pub(crate) round: u32,
}

impl Desk<'_> {
    /// Tells a transition of a condition.
    pub(crate) fn tell(
        &mut self,
        class: &Class,
        machine: &MachineId,
        condition: &Condition,
        turn: Turn,
        moment: &Moment,
        said: Said,
    ) {
        let name = condition.what.name(class);
        let (model, model_version) = match (&condition.what, said.fit) {
            (What::Model, fit) => ("mahalanobis", fit.unwrap_or_default()),
            (What::Law(_), _) => ("laws", self.catalogue_hash.to_owned()),
            (What::Gone(gone), _) if gone.law => ("laws", self.catalogue_hash.to_owned()),
            // The fit is gone with it; the catalogue is what took them.
            (What::Gone(gone), _) if gone.condition == "model:mahalanobis" => {
                ("mahalanobis", self.catalogue_hash.to_owned())
            }
            _ => ("sensors", self.catalogue_hash.to_owned()),
        };
        let alert_id = match turn.kind {
            Kind::Raised => condition.id,
            kind => moment.alert_id(machine, &name, kind),
        };
        let alert = Alert {
            alert_id,
            machine_id: machine.to_string(),
            class: class.id.clone(),
            failure_type: condition.what.failure_type(class),
            kind: turn.kind,
            severity: condition.severity,
            timestamp: moment.timestamp_us,
            score: said.score,
            model: model.to_owned(),
            model_version,
            arrived_at: moment.arrived_us,
            condition: name,
            condition_id: condition.id,
            started_at: condition.started_us,
            position: moment.position(),
            reading: said.reading,
            reason: said.reason,
            text: said.text,
            suspended: turn.suspended,
            caught_up: turn.caught_up,
            notice: condition.what.is_notice(class),
        };
        // What changes twice at one reading is one transition with one id.
        let before = self.effects.alerts.iter_mut().rev().take_while(|before| before.position == alert.position);
        match before.into_iter().find(|before| before.alert_id == alert_id) {
            Some(before) => join(before, alert),
            None => self.effects.alerts.push(alert),
        }
    }

    /// Tells an event of a machine.
    pub(crate) fn event(&mut self, machine: &MachineId, kind: &str, moment: &Moment, detail: String) {
        self.effects.events.push(MachineEvent {
            machine_id: machine.to_string(),
            kind: kind.to_owned(),
            timestamp_us: moment.timestamp_us,
            position: moment.position(),
            detail,
        });
    }
}

/// Puts a further change at the same reading into the alert that tells of the first: the later explains.
fn join(first: &mut Alert, then: Alert) {
    let text = AlertText {
        en: format!("{} {}", first.text.en, then.text.en),
        ko: format!("{} {}", first.text.ko, then.text.ko),
    };
    *first = Alert {
        suspended: then.suspended.or(first.suspended),
        caught_up: then.caught_up.or(first.caught_up),
        text,
        ..then
    };
}

/// Calls `explain` with everything that is known of a reading of a machine.
pub(crate) fn with_evidence<T>(
    rules: &Rules,
    learning: &Learning,
    slab: &Slab,
    at: usize,
    reading: &Reading,
    with_windows: bool,
    explain: impl FnOnce(&Evidence<'_>) -> T,
) -> T {
    let machine = &slab.machines[at];
    let settings = rules.settings(machine.own);
    let given: Vec<bool> = reading.attributes.iter().map(|word| *word != ReadingBatch::NONE).collect();
    let attributes: Vec<Option<u8>> = reading
        .attributes
        .iter()
        .zip(&settings.attributes)
        .map(|(word, own)| if *word == ReadingBatch::NONE { *own } else { Some(*word) })
        .collect();
    let windows = |quantity: Quantity| -> Option<WindowStats> {
        let window = rules.window_of(quantity).filter(|_| with_windows)?;
        slab.windows(rules, at)[window].stats(rules.class.quantity_scale(quantity))
    };
    let normal = |quantity: Quantity| {
        let band = rules.band_of(quantity)?;
        let count = slab.band_count(rules, at, band);
        if count < NORMAL_READINGS {
            return learning.normal(band);
        }
        let own = &slab.bands(rules, at)[band];
        Some((own.mean, own.sd(count)))
    };
    explain(&Evidence {
        class: &rules.class,
        machine: &machine.id,
        settings,
        values: &reading.values,
        quality: reading.quality,
        attributes: &attributes,
        attribute_given: &given,
        windows: &windows,
        normal: &normal,
    })
}
