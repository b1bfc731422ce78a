//! Every sentence that an alert says, in English and Korean, in one table.

use crate::{
    Evidence,
    counterfactual::{Counterfactual, Way},
    explain::{JudgedTerm, change_percent},
    korean,
    present::decimal,
};
use catalog::{Channel, Class, Comparison, LogicMode, Quantity, Severity, State, Text};
use wire::{AlertText, Contribution, LimitSource};

/// One sentence in both languages. `{name}` stands for a word; in Korean `{name:을}` is followed by the particle of that
/// pair that fits it.
struct Phrase {
    en: &'static str,
    ko: &'static str,
}

macro_rules! phrases {
    ($($name:ident: $en:literal, $ko:literal;)*) => {
        $(const $name: Phrase = Phrase { en: $en, ko: $ko };)*
        /// The whole table, for its tests.
        #[cfg(test)]
        const ALL: &[(&str, Phrase)] = &[$((stringify!($name), $name)),*];
    };
}

phrases! {
    // A law
    LAW: "{machine}: {law}, {severity}.", "{machine}: {law}, {severity}.";
    NOTICE: "{machine}: {law}, maintenance due.", "{machine}: {law}, 정비 시기 도래.";
    ABOVE: "{name} {measured}, above the limit {limit}", "{name} {measured}, 한계값 {limit} 초과";
    BELOW: "{name} {measured}, below the limit {limit}", "{name} {measured}, 한계값 {limit} 미만";
    JUST_ABOVE: "{name} {measured}, just above the limit {limit}", "{name} {measured}, 한계값 {limit} 근소 초과";
    JUST_BELOW: "{name} {measured}, just below the limit {limit}", "{name} {measured}, 한계값 {limit} 근소 미달";
    AT_LEAST: "{name} {measured}, at or above the limit {limit}", "{name} {measured}, 한계값 {limit} 이상";
    AT_MOST: "{name} {measured}, at or below the limit {limit}", "{name} {measured}, 한계값 {limit} 이하";
    WITHIN: "{name} {measured}, within the limit {limit}", "{name} {measured}, 한계값 {limit} 이내";
    OF_ATTRIBUTE: "{name} {value}", "{name} {value}";
    NO_ATTRIBUTE: "no {name} given: default limit", "{name} 없음, 기본 한계값";
    OF_MACHINE: "set for this machine", "설비별 설정값";
    ACTION: "{action}", "조치: {action}";
    // What clears it
    SET: "{steps} clears it.", "해제 조건: {steps}.";
    SET_ALL: "{steps} clear it.", "해제 조건: {steps}.";
    REPLACE: "Replacing the part ({steps}) clears it.", "해제 조건: 부품 교체({steps}).";
    STEP: "{channel} {from} -> {to}", "{channel} {from} → {to}";
    TINY: "(<{percent})", "({percent} 미만)";
    FREE: "Returns to normal when {steps}.", "{steps} 정상 복귀합니다.";
    RISES: "{channel} rises from {from} to {to}", "{channel:이} {from}에서 {to}까지 올라가면";
    RISES_AND: "{channel} rises from {from} to {to}", "{channel:이} {from}에서 {to}까지 올라가고";
    FALLS: "{channel} falls from {from} to {to}", "{channel:이} {from}에서 {to}까지 내려가면";
    FALLS_AND: "{channel} falls from {from} to {to}", "{channel:이} {from}에서 {to}까지 내려가고";
    STAYS: "{channel} stays at {to} for 60 s", "{channel:이} {to} 수준을 60초 동안 유지하면";
    STAYS_AND: "{channel} stays at {to} for 60 s", "{channel:이} {to} 수준을 60초 동안 유지하고";
    // A learned detector
    LEARNED: "{machine}: unusual readings, score {score}, threshold {threshold}.", "{machine}: 평소와 다른 측정값, 점수 {score}, 판정 기준값 {threshold}.";
    FURTHEST: "Furthest from normal: {name} {value}.", "가장 벗어난 값: {name} {value}.";
    FURTHEST_OF: "Furthest from normal: {name} {value} (normal range {low} to {high}).", "가장 벗어난 값: {name} {value} (정상 범위 {low} ~ {high}).";
    // Sensors
    STUCK: "{machine}: {channel} has read {value} for {time} without a change. Check the sensor and its wiring.", "{machine}: {channel} 측정값 고착, {time} 동안 {value}에서 변화 없음. 센서와 배선을 점검하십시오.";
    QUALITY: "{machine}: {channel} {value} is of bad quality; laws go on without it. Check the sensor.", "{machine}: {channel} {value}, 측정값 품질 불량. 이 값 없이 감시를 계속합니다. 센서를 점검하십시오.";
    QUALITY_NO_VALUE: "{machine}: {channel} gives no good value; laws go on without it. Check the sensor.", "{machine}: {channel} 정상 측정값 없음. 이 값 없이 감시를 계속합니다. 센서를 점검하십시오.";
    REFUSED: "{machine}: readings of {channel} are refused ({code}), three in a row. See the dead letters; check the sensor and its scaling.", "{machine}: {channel} 측정값 연속 3회 거부({code}). 거부 데이터를 확인하고 센서와 단위 설정을 점검하십시오.";
    NO_DATA: "{machine}: no data for {time}. Check the machine's gateway, network and power.", "{machine}: 데이터 끊김, {time} 동안 측정값 없음. 게이트웨이·네트워크·전원을 점검하십시오.";
    CLOCK_SKEW: "{machine}: its clock is {time} ahead. Set it, or synchronise it by NTP.", "{machine}: 설비 시계가 {time} 빠릅니다. 시각을 맞추거나 NTP 동기화를 설정하십시오.";
    // Transitions
    CLEARED: "{machine}: {condition} has returned to normal.", "{machine}: {condition} 정상 복귀.";
    CLEARED_COUNTER: "{machine}: {condition} cleared, the counter started anew (part replaced).", "{machine}: {condition} 해제, 부품 교체로 계수 초기화.";
    CLEARED_REMOVED: "{machine}: {condition} cleared, the law is no longer in force.", "{machine}: {condition} 해제, 더 이상 적용되지 않는 법칙.";
    CLEARED_GOOD: "{machine}: {condition} cleared, good values are back.", "{machine}: {condition} 해제, 정상 측정값 수신.";
    SUSPENDED: "{machine}: {condition} suspended while the machine is in state {state}.", "{machine}: {condition} 억제, 설비 상태 {state}.";
    RESUMED: "{machine}: {condition} is judged again, the machine is running.", "{machine}: {condition} 판정 재개, 설비 운전 중.";
    // Names of conditions that are no laws
    NAME_STUCK: "{channel} stuck", "{channel} 측정값 고착";
    NAME_QUALITY: "bad quality of {channel}", "{channel} 측정값 품질 불량";
    NAME_REFUSED: "refused values of {channel}", "{channel} 측정값 거부";
    NAME_NO_DATA: "no data", "데이터 끊김";
    NAME_CLOCK_SKEW: "clock ahead", "설비 시계 오차";
    NAME_MODEL: "unusual readings ({model})", "평소와 다른 측정값({model})";
    NAME_OTHER: "{id}", "{id}";
    // Words
    CRITICAL: "critical", "위험";
    WARNING: "warning", "경고";
    INFO: "info", "정보";
    UNKNOWN: "unknown", "알 수 없음";
    RUNNING: "running", "운전";
    IDLE: "idle", "대기";
    OFF: "off", "정지";
    SETUP: "set-up", "준비 교체";
    WARMUP: "warm-up", "예열";
    TOOL_CHANGE: "tool change", "공구 교체";
    MAINTENANCE: "maintenance", "정비";
    HOURS: "{n} h", "{n}시간";
    MINUTES: "{n} min", "{n}분";
    SECONDS: "{n} s", "{n}초";
}

/// A word in both languages.
type Word = AlertText;

/// What a law's text tells.
pub(crate) struct LawFinding<'a> {
    pub(crate) law: usize,
    pub(crate) level: usize,
    pub(crate) terms: &'a [JudgedTerm<'a>],
    pub(crate) changed: Option<&'a Counterfactual>,
}

/// The text of a law that is broken or held.
pub(crate) fn law_text(evidence: &Evidence<'_>, finding: &LawFinding<'_>) -> AlertText {
    let class = evidence.class;
    let law = &class.laws[finding.law];
    let level = &law.levels[finding.level];
    let head = if law.notice { &NOTICE } else { &LAW };
    let severity = fill(severity_phrase(level.severity), &[]);
    let head =
        fill(head, &[("machine", &same(evidence.machine)), ("law", &of_text(&law.name)), ("severity", &severity)]);
    // Of `any`, what is within its limit explains nothing, unless all of it is.
    let any_broken = finding.terms.iter().any(|term| term.is_broken);
    let told = |term: &&JudgedTerm<'_>| term.is_broken || level.logic.mode == LogicMode::All || !any_broken;
    let terms: Vec<Word> = finding.terms.iter().filter(told).map(|term| term_text(evidence, term)).collect();
    let mut sentences = vec![head];
    if !terms.is_empty() {
        let terms = join(&terms, "; ", "; ");
        sentences.push(Word { en: format!("{}.", terms.en), ko: format!("{}.", terms.ko) });
    }
    sentences.extend(finding.changed.map(|changed| changed_text(class, changed)));
    sentences.extend(law.action.as_ref().map(|action| fill(&ACTION, &[("action", &of_text(action))])));
    join(&sentences, " ", " ")
}

/// The text of a learned detector's finding.
pub(crate) fn learned_text(
    evidence: &Evidence<'_>,
    score: f64,
    threshold: f64,
    furthest: Option<&Contribution>,
    changed: Option<&Counterfactual>,
) -> AlertText {
    let class = evidence.class;
    let words = [("score", &same(number(score, 1))), ("threshold", &same(number(threshold, 1)))];
    let mut sentences = vec![fill(&LEARNED, &[("machine", &same(evidence.machine)), words[0], words[1]])];
    if let Some(of) = furthest
        && let Some(channel) = class.channel_index(&of.quantity)
    {
        let quantity = Quantity::Channel(channel);
        let name = of_text(class.quantity_name(quantity));
        let value = same(measure(class, quantity, of.value));
        sentences.push(match of.normal_low.zip(of.normal_high) {
            None => fill(&FURTHEST, &[("name", &name), ("value", &value)]),
            Some((low, high)) => {
                let (low, high) = (same(measure(class, quantity, low)), same(measure(class, quantity, high)));
                fill(&FURTHEST_OF, &[("name", &name), ("value", &value), ("low", &low), ("high", &high)])
            }
        });
    }
    sentences.extend(changed.map(|changed| changed_text(class, changed)));
    join(&sentences, " ", " ")
}

fn term_text(evidence: &Evidence<'_>, term: &JudgedTerm<'_>) -> Word {
    let class = evidence.class;
    let quantity = term.term.quantity;
    let (measured, limit) = (measure(class, quantity, term.measured), measure(class, quantity, term.limit));
    // Too near to the limit for the digits that people read.
    let looks_equal = measured == limit;
    let phrase = match term.term.comparison {
        _ if !term.is_broken => &WITHIN,
        Comparison::Above if looks_equal => &JUST_ABOVE,
        Comparison::Below if looks_equal => &JUST_BELOW,
        Comparison::Above => &ABOVE,
        Comparison::Below => &BELOW,
        Comparison::AtLeast => &AT_LEAST,
        Comparison::AtMost => &AT_MOST,
    };
    let name = of_text(class.quantity_name(quantity));
    let text = fill(phrase, &[("name", &name), ("measured", &same(measured)), ("limit", &same(limit))]);
    let mut asides: Vec<Word> = term.attributes().iter().map(|&at| attribute_text(evidence, at)).collect();
    if term.source == LimitSource::Machine {
        asides.push(fill(&OF_MACHINE, &[]));
    }
    if asides.is_empty() {
        return text;
    }
    let asides = join(&asides, ", ", ", ");
    Word { en: format!("{} ({})", text.en, asides.en), ko: format!("{} ({})", text.ko, asides.ko) }
}

fn attribute_text(evidence: &Evidence<'_>, at: usize) -> Word {
    let attribute = &evidence.class.attributes[at];
    let name = inside(of_text(&attribute.name));
    match evidence.attributes[at].and_then(|value| attribute.values.get(usize::from(value))) {
        Some(value) => fill(&OF_ATTRIBUTE, &[("name", &name), ("value", &same(value))]),
        None => fill(&NO_ATTRIBUTE, &[("name", &name)]),
    }
}

fn changed_text(class: &Class, changed: &Counterfactual) -> Word {
    let last = changed.steps.len().saturating_sub(1);
    let steps: Vec<Word> = changed
        .steps
        .iter()
        .enumerate()
        .map(|(nth, step)| {
            let channel = &class.channels[step.channel];
            let name = of_text(&channel.name);
            let name = if changed.way == Way::Set && nth == 0 { name } else { inside(name) };
            let (from, to) = (decimal(step.from, channel.scale), decimal(step.to, channel.scale));
            let from_text = match changed.way {
                Way::Free => same(channel_measure(channel, from)),
                _ => same(number(from, usize::from(channel.scale))),
            };
            let mut to_text = same(channel_measure(channel, to));
            if let (Way::Set, Some(percent)) = (changed.way, change_percent(&channel.unit, from, to)) {
                let percent = percent_text(percent);
                to_text = join(&[to_text, percent], " ", " ");
            }
            let phrase = match (changed.way, step.to.cmp(&step.from), nth == last) {
                (Way::Set | Way::Replace, ..) => &STEP,
                (Way::Free, std::cmp::Ordering::Greater, true) => &RISES,
                (Way::Free, std::cmp::Ordering::Greater, false) => &RISES_AND,
                (Way::Free, std::cmp::Ordering::Less, true) => &FALLS,
                (Way::Free, std::cmp::Ordering::Less, false) => &FALLS_AND,
                (Way::Free, std::cmp::Ordering::Equal, true) => &STAYS,
                (Way::Free, std::cmp::Ordering::Equal, false) => &STAYS_AND,
            };
            fill(phrase, &[("channel", &name), ("from", &from_text), ("to", &to_text)])
        })
        .collect();
    let between = if changed.way == Way::Free { " " } else { ", " };
    let phrase = match changed.way {
        Way::Set if last == 0 => &SET,
        Way::Set => &SET_ALL,
        Way::Replace => &REPLACE,
        Way::Free => &FREE,
    };
    fill(phrase, &[("steps", &join(&steps, " and ", between))])
}

/// `(+14.2 %)`; a change is never told as none.
fn percent_text(percent: f64) -> Word {
    let text = number(percent, 1);
    if text == "0" && percent != 0.0 {
        return fill(&TINY, &[("percent", &same("0.1 %"))]);
    }
    let sign = if percent > 0.0 { "+" } else { "" };
    same(format!("({sign}{text} %)"))
}

/// Which sensor condition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the conditions of DOMAIN.md 3")]
pub enum SensorFault<'a> {
    Stuck { channel: usize, for_us: i64, value: i64 },
    Quality { channel: usize, value: i64 },
    Refused { channel: &'a str, code: &'a str },
    NoData { silent_us: i64 },
    ClockSkew { ahead_us: i64 },
}

/// The text of a raised sensor condition.
pub fn sensor_text(class: &Class, machine: &str, fault: &SensorFault<'_>) -> AlertText {
    let machine = &same(machine);
    let name = |channel: usize| of_text(&class.channels[channel].name);
    let value = |channel: usize, value: i64| {
        let channel = &class.channels[channel];
        same(channel_measure(channel, decimal(value, channel.scale)))
    };
    match fault {
        SensorFault::Stuck { channel, for_us, value: at } => fill(
            &STUCK,
            &[
                ("machine", machine),
                ("channel", &name(*channel)),
                ("value", &value(*channel, *at)),
                ("time", &time(*for_us)),
            ],
        ),
        SensorFault::Quality { channel, value: at } => {
            fill(&QUALITY, &[("machine", machine), ("channel", &name(*channel)), ("value", &value(*channel, *at))])
        }
        SensorFault::Refused { channel, code } => {
            let name = class.channel_index(channel).map_or_else(|| same(*channel), name);
            fill(&REFUSED, &[("machine", machine), ("channel", &name), ("code", &same(*code))])
        }
        SensorFault::NoData { silent_us } => fill(&NO_DATA, &[("machine", machine), ("time", &time(*silent_us))]),
        SensorFault::ClockSkew { ahead_us } => fill(&CLOCK_SKEW, &[("machine", machine), ("time", &time(*ahead_us))]),
    }
}

/// The text of a raised `quality:CHANNEL` whose reading lacks the value altogether.
pub fn no_value_text(class: &Class, machine: &str, channel: usize) -> AlertText {
    fill(&QUALITY_NO_VALUE, &[("machine", &same(machine)), ("channel", &of_text(&class.channels[channel].name))])
}

/// Why a condition was cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub enum ClearedBy {
    Readings,
    CounterReset,
    LawRemoved,
    GoodValue,
}

/// The text of a cleared condition; `condition` as in the alert, `law` its place where it is one.
pub fn cleared_text(class: &Class, machine: &str, condition: &str, law: Option<usize>, by: ClearedBy) -> AlertText {
    let phrase = match by {
        ClearedBy::Readings => &CLEARED,
        ClearedBy::CounterReset => &CLEARED_COUNTER,
        ClearedBy::LawRemoved => &CLEARED_REMOVED,
        ClearedBy::GoodValue => &CLEARED_GOOD,
    };
    fill(phrase, &[("machine", &same(machine)), ("condition", &condition_name(class, condition, law))])
}

/// The text of a standing condition whose machine left `running` (`Some(state)`) or is judged again (`None`).
pub fn suspended_text(
    class: &Class,
    machine: &str,
    condition: &str,
    law: Option<usize>,
    left_for: Option<State>,
) -> AlertText {
    let (machine, condition) = (&same(machine), &condition_name(class, condition, law));
    match left_for {
        Some(state) => {
            let state = fill(state_phrase(state), &[]);
            fill(&SUSPENDED, &[("machine", machine), ("condition", condition), ("state", &state)])
        }
        None => fill(&RESUMED, &[("machine", machine), ("condition", condition)]),
    }
}

fn condition_name(class: &Class, condition: &str, law: Option<usize>) -> Word {
    if let Some(law) = law.and_then(|law| class.laws.get(law)) {
        return of_text(&law.name);
    }
    let (kind, of) = condition.split_once(':').unwrap_or((condition, ""));
    let channel = class.channel_index(of).map_or_else(|| same(of), |at| of_text(&class.channels[at].name));
    match kind {
        "stuck" => fill(&NAME_STUCK, &[("channel", &channel)]),
        "quality" => fill(&NAME_QUALITY, &[("channel", &inside(channel))]),
        "refused" => fill(&NAME_REFUSED, &[("channel", &inside(channel))]),
        "no_data" => fill(&NAME_NO_DATA, &[]),
        "clock_skew" => fill(&NAME_CLOCK_SKEW, &[]),
        "model" => fill(&NAME_MODEL, &[("model", &same(of))]),
        _ => fill(&NAME_OTHER, &[("id", &same(condition))]),
    }
}

fn severity_phrase(severity: Severity) -> &'static Phrase {
    match severity {
        Severity::Critical => &CRITICAL,
        Severity::Warning => &WARNING,
        Severity::Info => &INFO,
    }
}

fn state_phrase(state: State) -> &'static Phrase {
    match state {
        State::Unknown => &UNKNOWN,
        State::Running => &RUNNING,
        State::Idle => &IDLE,
        State::Off => &OFF,
        State::Setup => &SETUP,
        State::Warmup => &WARMUP,
        State::ToolChange => &TOOL_CHANGE,
        State::Maintenance => &MAINTENANCE,
    }
}

/// `1 h 30 min`, `5 min`, `1.5 s`: the two largest units, seconds to one decimal.
fn time(us: i64) -> Word {
    let seconds = us.max(0) as f64 / 1e6;
    let part = |phrase: &Phrase, n: f64, decimals: usize| fill(phrase, &[("n", &same(number(n, decimals)))]);
    let whole = seconds.round();
    let (hours, minutes) = ((whole / 3600.0).floor(), (whole % 3600.0 / 60.0).floor());
    let parts = if whole >= 3600.0 {
        vec![(&HOURS, hours, 0), (&MINUTES, minutes, 0)]
    } else if whole >= 60.0 {
        vec![(&MINUTES, minutes, 0), (&SECONDS, whole % 60.0, 0)]
    } else {
        vec![(&SECONDS, seconds, 1)]
    };
    let told = parts.iter().enumerate().filter(|(nth, part)| *nth == 0 || part.1 > 0.0);
    join(&told.map(|(_, &(phrase, n, decimals))| part(phrase, n, decimals)).collect::<Vec<_>>(), " ", " ")
}

/// A value of a quantity with its unit. A channel has its own decimals; of a derived quantity so many are shown as its
/// size makes worth reading.
fn measure(class: &Class, quantity: Quantity, value: f64) -> String {
    match quantity {
        Quantity::Channel(at) => channel_measure(&class.channels[at], value),
        Quantity::Derived(at) => {
            let worth = match value.abs() {
                1000.0.. => 0,
                100.0.. => 1,
                1.0.. => 2,
                _ => 3,
            };
            with_unit(number(value, worth.min(usize::from(class.derived[at].scale))), &class.derived[at].unit)
        }
    }
}

fn channel_measure(channel: &Channel, value: f64) -> String {
    with_unit(number(value, usize::from(channel.scale)), &channel.unit)
}

fn with_unit(number: String, unit: &str) -> String {
    match unit {
        "1" | "" => number,
        "degC" => format!("{number} °C"),
        unit => format!("{number} {unit}"),
    }
}

/// At most so many decimals, thousands set apart: `13,120`, `53.7`.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let fraction = fraction.trim_end_matches('0');
    let is_zero = fraction.is_empty() && digits.bytes().all(|digit| digit == b'0');
    let mut out = String::from(if is_zero { "" } else { sign });
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

fn same(word: impl Into<String>) -> Word {
    let en = word.into();
    Word { ko: en.clone(), en }
}

fn of_text(text: &Text) -> Word {
    Word { en: text.en.clone(), ko: text.ko.clone() }
}

/// An English name inside a sentence: a capital that only began the name becomes small.
fn inside(mut word: Word) -> Word {
    let mut letters = word.en.chars();
    if let (Some(first), Some(second)) = (letters.next(), letters.next())
        && first.is_uppercase()
        && second.is_lowercase()
    {
        word.en = first.to_lowercase().chain(word.en.chars().skip(1)).collect();
    }
    word
}

fn join(words: &[Word], en: &str, ko: &str) -> Word {
    let with = |between: &str, of: fn(&Word) -> &str| words.iter().map(of).collect::<Vec<_>>().join(between);
    Word { en: with(en, |word| &word.en), ko: with(ko, |word| &word.ko) }
}

fn fill(phrase: &Phrase, words: &[(&str, &Word)]) -> AlertText {
    let word = |name: &str| words.iter().find(|(of, _)| *of == name).map(|(_, word)| *word);
    let write = |template: &str, of: fn(&Word) -> &str| {
        let mut out = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let (place, after) = after.split_once('}').expect("every phrase closes its braces");
            let (name, particle) =
                place.split_once(':').map_or((place, None), |(name, particle)| (name, Some(particle)));
            let word = of(word(name).expect("every place of a phrase is given"));
            out.push_str(before);
            out.push_str(word);
            out.push_str(particle.map_or("", |particle| korean::particle(word, particle)));
            rest = after;
        }
        out + rest
    };
    AlertText { en: write(phrase.en, |word| &word.en), ko: write(phrase.ko, |word| &word.ko) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::Catalogue;
    use std::{collections::BTreeSet, sync::Arc};

    fn class(id: &str) -> Arc<Class> {
        Arc::clone(Catalogue::builtin().class(id).expect("it is built in"))
    }

    fn check(text: AlertText, en: &str, ko: &str) {
        assert_eq!((&*text.en, &*text.ko), (en, ko));
    }

    #[test]
    fn no_phrase_leaves_the_choice_of_a_particle_to_the_reader() {
        let places = |template: &str| {
            let names = template.split('{').skip(1).filter_map(|rest| rest.split(['}', ':']).next());
            names.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        for (name, phrase) in ALL {
            assert!(!korean::leaves_choice(phrase.ko), "{name}: {}", phrase.ko);
            assert!(places(phrase.en).is_superset(&places(phrase.ko)), "{name}");
            assert!(
                phrase.ko.chars().any(|letter| ('가'..='힣').contains(&letter)) || phrase.en.starts_with('{'),
                "{name}"
            );
            for bare in ["}이 ", "}가 ", "}을 ", "}를 ", "}은 ", "}는 ", "}과 ", "}와 ", "}로 ", "}으로 "] {
                assert!(!phrase.ko.contains(bare), "{name}: {bare} does not look at the word before it");
            }
        }
    }

    #[test]
    fn numbers_are_read_by_people() {
        for (value, decimals, text) in [
            (13_120.0, 0, "13,120"),
            (53.7, 2, "53.7"),
            (-1_234_567.891, 2, "-1,234,567.89"),
            (-0.001, 2, "0"),
            (8.599_999_999_999_966, 2, "8.6"),
            (999.0, 0, "999"),
        ] {
            assert_eq!(number(value, decimals), text);
        }
    }

    #[test]
    fn times_are_read_by_people() {
        check(time(5 * 60_000_000), "5 min", "5분");
        check(time(5_400_000_000), "1 h 30 min", "1시간 30분");
        check(time(31_250_000), "31.2 s", "31.2초");
        check(time(59_960_000), "1 min", "1분");
    }

    #[test]
    fn a_tiny_change_is_not_told_as_none() {
        let mill = class("mill");
        let torque = |from, to| {
            let steps = vec![crate::counterfactual::Step { channel: 3, from, to }];
            changed_text(&mill, &Counterfactual { steps, way: Way::Set })
        };
        check(
            torque(4280, 4281),
            "Torque 42.8 -> 42.81 Nm (<0.1 %) clears it.",
            "해제 조건: 토크 42.8 → 42.81 Nm (0.1 % 미만).",
        );
        check(
            torque(4280, 4277),
            "Torque 42.8 -> 42.77 Nm (-0.1 %) clears it.",
            "해제 조건: 토크 42.8 → 42.77 Nm (-0.1 %).",
        );
        let tiny = change_percent("Nm", 100.0, 100.001).expect("from something");
        assert!(tiny > 0.0 && tiny < 0.0011, "{tiny}");
        assert_eq!(change_percent("Nm", 3.0, 4.0), Some(33.33));
    }

    #[test]
    fn sensors_are_told_in_both_languages() {
        let mill = class("mill");
        check(
            sensor_text(&mill, "m-1", &SensorFault::Stuck { channel: 3, for_us: 300_000_000, value: 4280 }),
            "m-1: Torque has read 42.8 Nm for 5 min without a change. Check the sensor and its wiring.",
            "m-1: 토크 측정값 고착, 5분 동안 42.8 Nm에서 변화 없음. 센서와 배선을 점검하십시오.",
        );
        check(
            sensor_text(&mill, "m-1", &SensorFault::NoData { silent_us: 30_000_000 }),
            "m-1: no data for 30 s. Check the machine's gateway, network and power.",
            "m-1: 데이터 끊김, 30초 동안 측정값 없음. 게이트웨이·네트워크·전원을 점검하십시오.",
        );
        let refused = sensor_text(&mill, "m-1", &SensorFault::Refused { channel: "rpm", code: "out_of_range" });
        assert!(refused.ko.contains("회전 속도") && refused.en.contains("out_of_range"));
        assert!(
            sensor_text(&class("pump"), "p", &SensorFault::Quality { channel: 4, value: 20000 }).en.contains("200 °C")
        );
        assert!(no_value_text(&mill, "m-1", 2).ko.contains("회전 속도"));
        assert!(sensor_text(&mill, "m-1", &SensorFault::ClockSkew { ahead_us: 90_000_000 }).en.contains("1 min 30 s"));
    }

    #[test]
    fn transitions_are_told_in_both_languages() {
        let mill = class("mill");
        check(
            cleared_text(&mill, "m-1", "overstrain", Some(2), ClearedBy::Readings),
            "m-1: Overstrain has returned to normal.",
            "m-1: 공구 과부하 정상 복귀.",
        );
        check(
            suspended_text(&mill, "m-1", "overstrain", Some(2), Some(State::ToolChange)),
            "m-1: Overstrain suspended while the machine is in state tool change.",
            "m-1: 공구 과부하 억제, 설비 상태 공구 교체.",
        );
        check(
            suspended_text(&mill, "m-1", "stuck:rpm", None, None),
            "m-1: Rotational speed stuck is judged again, the machine is running.",
            "m-1: 회전 속도 측정값 고착 판정 재개, 설비 운전 중.",
        );
        for condition in ["quality:rpm", "refused:rpm", "no_data", "clock_skew", "model:mahalanobis", "gone_law"] {
            for by in [ClearedBy::Readings, ClearedBy::CounterReset, ClearedBy::LawRemoved, ClearedBy::GoodValue] {
                let text = cleared_text(&mill, "m-1", condition, None, by);
                assert!(!korean::leaves_choice(&text.ko) && !text.en.contains('{'), "{text:?}");
            }
        }
    }
}
