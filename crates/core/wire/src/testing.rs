//! Classes and batches for tests.

use crate::{Marker, Quality, ReadingBatch};
use catalog::{Adjust, Attribute, Channel, ChannelKind, Class, MachineId, Text};
use std::sync::Arc;

/// A gauge that a reading must have.
pub(crate) fn channel(id: &str, scale: u8, range: (i64, i64)) -> Channel {
    Channel {
        id: id.into(),
        unit: "1".into(),
        scale,
        range,
        plausible: range,
        sql: String::new(),
        name: Text::default(),
        columns: Vec::new(),
        optional: false,
        kind: ChannelKind::Gauge,
        window: false,
        stuck_after_us: None,
        max_step: None,
        adjust: Adjust::None,
        replace_with: 0,
        display: None,
    }
}

/// A word that rides with a reading.
pub(crate) fn attribute(id: &str, values: &[&str]) -> Attribute {
    let values = values.iter().map(|value| (*value).into()).collect();
    Attribute { id: id.into(), values, default: None, columns: Vec::new(), name: Text::default() }
}

/// A class of channels and attributes, without laws.
pub(crate) fn class(id: &str, channels: Vec<Channel>, attributes: Vec<Attribute>) -> Class {
    Class {
        id: id.into(),
        name: Text::default(),
        source: None,
        label: None,
        interval_us: 1_000_000,
        lateness_us: 5_000_000,
        no_data_us: None,
        baseline_us: 0,
        states: Vec::new(),
        settle_us: 0,
        parameters: Vec::new(),
        channels,
        attributes,
        derived: Vec::new(),
        laws: Vec::new(),
        document: String::new(),
    }
}

/// The channels of the class `mill`.
pub(crate) fn mill() -> Class {
    let channels = vec![
        channel("air_temp_k", 2, (20_000, 40_000)),
        channel("process_temp_k", 2, (20_000, 50_000)),
        channel("rpm", 0, (0, 20_000)),
        channel("torque_nm", 2, (0, 20_000)),
        channel("tool_wear_min", 0, (0, 10_000)),
    ];
    class("mill", channels, vec![attribute("product_type", &["L", "M", "H"])])
}

/// A batch of so many rows over so many machines, the same for the same numbers; `rich` fills every optional column.
pub(crate) fn batch(class: &Arc<Class>, rows: usize, machines: usize, rich: bool) -> ReadingBatch {
    let mut batch = ReadingBatch::new(class.clone());
    batch.machines = (0..machines).map(|at| MachineId::try_from(&*format!("machine-{at:03}")).unwrap()).collect();
    for row in 0..rows {
        let draw = |salt: usize| (row * 7919 + salt * 104_729) % 1000;
        batch.machine.push((row % machines) as u32);
        batch.timestamp_us.push(1_762_528_201_000_000 + (row / machines) as i64 * 1_000_000);
        batch.index.push((row * 6 + draw(0) % 6) as u32);
        for (at, (channel, values)) in class.channels.iter().zip(&mut batch.values).enumerate() {
            values.push((channel.range.0 + draw(at) as i64).min(channel.range.1));
        }
        if rich {
            batch.quality.push(Quality::Bad.bits(draw(1) % class.channels.len()) | Quality::Uncertain.bits(0));
            batch.seq.push((draw(2) % 3 != 0).then_some(row as i64 - 5));
            for words in &mut batch.attributes {
                words.push([0, 1, 2, ReadingBatch::NONE][draw(3) % 4]);
            }
            batch.state.push([1, 2, 7, ReadingBatch::NONE][draw(4) % 4]);
        }
    }
    if rich && rows > 0 {
        batch.links.insert(rows as u32 / 2, r#"{"waveform":"s3://a/b"}"#.into());
        let machine = MachineId::try_from("설비-1").unwrap();
        let (channel, code) = ("rpm".into(), "out_of_range".into());
        batch.markers.push(Marker { machine, channel, code, arrived_us: -1, index: 7, before_row: rows as u32 });
    }
    batch
}

/// Holds every field but the spans.
#[track_caller]
pub(crate) fn assert_same(left: &ReadingBatch, right: &ReadingBatch) {
    assert_eq!(left.class.id, right.class.id);
    assert_eq!(left.machines, right.machines);
    assert_eq!(left.machine, right.machine);
    assert_eq!(left.timestamp_us, right.timestamp_us);
    assert_eq!(left.index, right.index);
    assert_eq!(left.values, right.values);
    assert_eq!(left.quality, right.quality);
    assert_eq!(left.seq, right.seq);
    assert_eq!(left.attributes, right.attributes);
    assert_eq!(left.state, right.state);
    assert_eq!(left.links, right.links);
    assert_eq!(left.markers, right.markers);
}
