//! `NaN` and `Infinity` are no JSON, yet many writers send them: the refusal should say so.

/// What stands for them while the rest is read; no other number is written like it.
pub(super) const STAND_IN: &str = "1e99999999999999";

/// The text with a stand-in for each bare `NaN`, `Infinity`, `inf` (any case, with or without a sign); `None` where
/// there is none.
pub(super) fn replaced(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut copied, mut at) = (0, 0);
    while at < text.len() {
        match text[at] {
            b'"' => at = after_string(text, at),
            b'n' | b'N' | b'i' | b'I' | b'-' | b'+' => {
                let end = at + 1 + text[at + 1..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
                let word =
                    text[at..end].strip_prefix(b"-").or(text[at..end].strip_prefix(b"+")).unwrap_or(&text[at..end]);
                if [&b"nan"[..], b"inf", b"infinity"].iter().any(|known| word.eq_ignore_ascii_case(known)) {
                    out.extend_from_slice(&text[copied..at]);
                    out.extend_from_slice(STAND_IN.as_bytes());
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    out.extend_from_slice(&text[copied..]);
    (copied > 0).then_some(out)
}

/// The place after the string that begins here, escapes seen.
fn after_string(text: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// How deep arrays and objects lie in each other.
pub(super) fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut at) = (0_usize, 0, 0);
    while at < text.len() {
        match text[at] {
            b'"' => {
                at = after_string(text, at);
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}
