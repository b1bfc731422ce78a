//! A reading as the JSON message that it would be read from.

use crate::{Quality, ReadingBatch, number::write_decimal, time::write_time};
use catalog::State;
use std::fmt::Write;

impl ReadingBatch {
    /// Appends a row as one JSON object, without a line end; `class` is written where the reader would not know it.
    pub fn write_json(&self, row: usize, class: Option<&str>, to: &mut String) {
        to.push_str("{\"machine_id\":");
        write_text(self.machine_of(row), to);
        to.push_str(",\"timestamp\":\"");
        write_time(self.timestamp_us[row], to);
        to.push('"');
        if let Some(class) = class {
            to.push_str(",\"class\":");
            write_text(class, to);
        }
        let quality = self.quality_of(row);
        for (at, channel) in self.class.channels.iter().enumerate() {
            if Quality::of(quality, at) != Quality::Missing {
                // Ids of a class need no escape.
                write!(to, ",\"{}\":", channel.id).expect("a String takes all");
                write_decimal(self.values[at][row], channel.scale, to);
            }
        }
        for (attribute, column) in self.class.attributes.iter().zip(&self.attributes) {
            let word = column.get(row).and_then(|word| attribute.values.get(usize::from(*word)));
            if let Some(word) = word {
                write!(to, ",\"{}\":", attribute.id).expect("a String takes all");
                write_text(word, to);
            }
        }
        if let Some(seq) = self.seq_of(row) {
            write!(to, ",\"seq\":{seq}").expect("a String takes all");
        }
        let state = self.state.get(row).and_then(|number| State::ALL.into_iter().find(|state| *state as u8 == *number));
        if let Some(state) = state {
            write!(to, ",\"machine_state\":\"{}\"", state.as_str()).expect("a String takes all");
        }
        self.write_json_quality(quality, to);
        if let Some(links) = self.links.get(&(row as u32)) {
            write!(to, ",\"links\":{links}").expect("a String takes all");
        }
        to.push('}');
    }

    fn write_json_quality(&self, quality: u128, to: &mut String) {
        let mut before = ",\"quality\":{";
        for (at, channel) in self.class.channels.iter().enumerate() {
            let word = match Quality::of(quality, at) {
                Quality::Uncertain => "uncertain",
                Quality::Bad => "bad",
                Quality::Good | Quality::Missing => continue,
            };
            write!(to, "{before}\"{}\":\"{word}\"", channel.id).expect("a String takes all");
            before = ",";
        }
        if before == "," {
            to.push('}');
        }
    }
}

fn write_text(text: &str, to: &mut String) {
    to.push_str(&serde_json::to_string(text).expect("a text is JSON"));
}

#[cfg(test)]
mod tests {
    use crate::{Decoder, Framing, parse_time};
    use catalog::Catalogue;
    use std::sync::Arc;

    #[track_caller]
    fn check(message: &str) {
        let mut decoder = Decoder::new(Arc::new(Catalogue::builtin()), 6);
        let arrived_us = parse_time(b"2025-11-07T15:10:02Z").unwrap();
        let decoded = decoder.decode(message.as_bytes(), Framing::Json, arrived_us, &|_| None).unwrap();
        assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects);
        let mut written = String::new();
        let batch = &decoded.batches[0].1;
        batch.write_json(0, message.contains("\"class\"").then_some(&batch.class.id), &mut written);
        assert_eq!(written, message);
    }

    #[test]
    fn a_reading_is_written_as_it_was_read() {
        check(
            r#"{"machine_id":"machine-001","timestamp":"2025-11-07T15:10:01Z","air_temp_k":299.1,"process_temp_k":309.5,"rpm":1500,"torque_nm":42.8,"tool_wear_min":5}"#,
        );
        check(
            r#"{"machine_id":"설비 \"1\"","timestamp":"2025-11-07T15:10:01.000001Z","air_temp_k":299.1,"process_temp_k":309.5,"rpm":1500,"torque_nm":42,"tool_wear_min":5,"product_type":"H","seq":-7,"machine_state":"tool_change","quality":{"rpm":"uncertain","torque_nm":"bad"},"links":{"wave": "s3://x"}}"#,
        );
        check(
            r#"{"machine_id":"p","timestamp":"2025-11-07T15:10:01Z","class":"pump","vib_mm_s":1.8,"discharge_bar":5.4,"flow_m3h":100,"motor_current_a":36.6,"bearing_temp_c":-5.25}"#,
        );
    }
}
