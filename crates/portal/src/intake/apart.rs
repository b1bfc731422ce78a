//! What is done about a value on which the decoder panics, which is a bug of ours: the message that it panics on is told
//! apart from the others, so that it alone is refused.

use serde_json::value::RawValue;
use std::panic::{AssertUnwindSafe, catch_unwind};
use wire::{Decoded, ErrorCode, Framing, NotReadings, Reject};

/// So often a message is tried alone; at the last panic it is refused.
const TRIES: usize = 3;
/// Longest message that a dead letter keeps whole, and what it keeps of a longer one.
const PAYLOAD_BYTES: (usize, usize) = (256 << 10, 4 << 10);

/// Decodes a value; where that panics, its messages in halves, down to the one to blame.
///
/// A decoder that panicked is in no known state: `decode` begins with another one then.
pub(super) fn decode(
    value: &[u8],
    framing: Framing,
    mut decode: impl FnMut(&[u8], Framing) -> Result<Decoded, NotReadings>,
) -> Result<Decoded, NotReadings> {
    let mut attempt = |value: &[u8], framing| catch_unwind(AssertUnwindSafe(|| decode(value, framing))).ok();
    if let Some(decoded) = attempt(value, framing) {
        return decoded;
    }
    let (messages, framing) = split(value, framing)?;
    let mut whole = Decoded { messages: messages.len() as u32, ..Decoded::default() };
    // From a message on, before a message.
    let mut parts = vec![(0, messages.len())];
    while let Some((from, to)) = parts.pop().filter(|(from, to)| from < to) {
        let text = join(&messages[from..to], framing);
        let alone = to - from == 1;
        let tries = if alone { TRIES } else { 1 };
        match (0..tries).find_map(|_| attempt(&text, framing)) {
            Some(decoded) => add(&mut whole, decoded?, from as u32),
            None if alone => whole.rejects.push(refused(messages[from], from as u32)),
            None => {
                let middle = from + (to - from) / 2;
                // The first half is taken first: the readings of a machine keep their order.
                parts.extend([(middle, to), (from, middle)]);
            }
        }
    }
    Ok(whole)
}

/// The messages of a value, and how a few of them are framed: lines as lines, everything else as an array.
fn split(value: &[u8], framing: Framing) -> Result<(Vec<&[u8]>, Framing), NotReadings> {
    let value = value.strip_prefix(b"\xef\xbb\xbf").unwrap_or(value);
    let not_json = |error: serde_json::Error| NotReadings(error.to_string());
    if framing != Framing::Lines && value.trim_ascii_start().starts_with(b"[") {
        let elements: Vec<&RawValue> = serde_json::from_slice(value).map_err(not_json)?;
        return Ok((elements.into_iter().map(|element| element.get().as_bytes()).collect(), Framing::Json));
    }
    let one = || serde_json::from_slice::<&RawValue>(value);
    match framing {
        Framing::Json => one().map_err(not_json).map(|one| (vec![one.get().as_bytes()], Framing::Json)),
        Framing::Auto if one().is_ok() => Ok((vec![value], Framing::Json)),
        Framing::Auto | Framing::Lines => {
            let lines = value.split(|byte| *byte == b'\n');
            let messages = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            Ok((messages.filter(|line| !line.trim_ascii().is_empty()).collect(), Framing::Lines))
        }
    }
}

fn join(messages: &[&[u8]], framing: Framing) -> Vec<u8> {
    match framing {
        Framing::Lines => messages.join(&b'\n'),
        Framing::Json | Framing::Auto => [b"[", &*messages.join(&b','), b"]"].concat(),
    }
}

/// Adds what messages from `first` on held.
fn add(whole: &mut Decoded, part: Decoded, first: u32) {
    whole.batches.extend(part.batches);
    whole.rejects.extend(part.rejects.into_iter().map(|reject| Reject { index: reject.index + first, ..reject }));
    whole.unknown_keys += part.unknown_keys;
    whole.rounded += part.rounded;
}

fn refused(message: &[u8], index: u32) -> Reject {
    let (whole, part) = PAYLOAD_BYTES;
    let kept = if message.len() > whole { &message[..part] } else { message };
    Reject {
        index,
        code: ErrorCode::DecoderPanic,
        error: "the decoder panicked on this message, which is a bug of ours".to_owned(),
        machine: None,
        channel: None,
        payload: kept.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::Catalogue;
    use std::sync::Arc;
    use wire::Decoder;

    const ARRIVED_US: i64 = 1_762_527_600_000_000;

    fn reading(torque: &str) -> String {
        format!(
            r#"{{"machine_id":"m-1","timestamp":"2025-11-07T14:59:00.{torque}Z","air_temp_k":299.1,"process_temp_k":309.5,"rpm":1500,"torque_nm":{torque},"tool_wear_min":5}}"#
        )
    }

    /// Torques of the rows and (index, code) of the refusals, by a decoder that panics on `boom`; and how often it did.
    fn decoded(value: &str, framing: Framing) -> (Vec<i64>, Vec<(u32, ErrorCode)>, usize) {
        let mut panics = 0;
        let decoded = decode(value.as_bytes(), framing, |value, framing| {
            if value.windows(4).any(|four| four == b"boom") {
                panics += 1;
                // Without the hook, which would write to the test's output.
                std::panic::resume_unwind(Box::new("boom"));
            }
            let mut decoder = Decoder::new(Arc::new(Catalogue::builtin()), 6);
            decoder.decode(value, framing, ARRIVED_US, &|_| None)
        })
        .unwrap();
        let torques = decoded.batches.iter().flat_map(|(_, batch)| batch.values[3].clone()).collect();
        let rejects: Vec<_> = decoded.rejects.iter().map(|reject| (reject.index, reject.code)).collect();
        assert_eq!(
            decoded.messages,
            decoded.rejects.len() as u32 + decoded.batches.iter().map(|(_, batch)| batch.rows() as u32).sum::<u32>()
        );
        (torques, rejects, panics)
    }

    #[test]
    fn a_message_that_panics_the_decoder_is_refused_and_the_others_are_taken() {
        let messages =
            [reading("40"), "boom".into(), reading("41"), "{".into(), reading("42"), reading("43"), "boom".into()];
        let lines = messages.join("\n\n");
        let (torques, rejects, _) = decoded(&lines, Framing::Lines);
        let scale = torques[0] / 40;
        let torque: Vec<i64> = torques.iter().map(|torque| torque / scale).collect();
        assert_eq!(torque, [40, 41, 42, 43], "in their order");
        use ErrorCode::{DecoderPanic, NotJson};
        assert_eq!(rejects, [(1, DecoderPanic), (3, NotJson), (6, DecoderPanic)], "blank lines are no messages");
        assert_eq!(decoded(&lines, Framing::Auto).0, torques);
    }

    #[test]
    fn elements_of_an_array_and_a_single_object_are_told_apart_too() {
        let array = format!("\u{feff} [ {} , {{\"boom\":[1,\n2]}}, {}]", reading("40"), reading("41"));
        for framing in [Framing::Json, Framing::Auto] {
            let (torques, rejects, _) = decoded(&array, framing);
            assert_eq!((torques.len(), rejects), (2, vec![(1, ErrorCode::DecoderPanic)]));
            let (torques, rejects, panics) = decoded("{\n\"boom\": 1\n}", framing);
            assert_eq!((torques.len(), rejects), (0, vec![(0, ErrorCode::DecoderPanic)]));
            assert!(panics >= TRIES);
        }
    }

    #[test]
    fn a_long_message_keeps_its_beginning() {
        assert_eq!(refused(&vec![b'x'; 256 << 10], 0).payload.len(), 256 << 10);
        assert_eq!(refused(&vec![b'x'; (256 << 10) + 1], 0).payload.len(), 4 << 10);
    }
}
