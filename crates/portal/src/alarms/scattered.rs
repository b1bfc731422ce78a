//! Machines whose readings come on two partitions: one system alarm for all of them, which names the mend.

use super::step::Step;
use alarm::{Alarm, Change};
use catalog::Severity;
use store::{AlarmRow, history::Scattered};
use uuid::Uuid;
use wire::{AlertText, READINGS_TOPIC};

/// A machine comes on two partitions as long as its newest readings on them are no further apart, microseconds of event
/// time.
const APART_US: i64 = 60 * 60 * 1_000_000;
const CONDITION: &str = "two_partitions";

/// Raises or clears the alarm; `false` where it stands as it should.
pub(super) fn judge(step: &mut Step<'_>, machines: &[Scattered], at_us: i64) -> bool {
    let part = format!("topic:{READINGS_TOPIC}");
    let id = store::alarm_id(&part, CONDITION);
    let row = step.row(id).cloned();
    let standing = row.as_ref().is_some_and(|row| row.alarm.standing);
    let mut machines = machines.iter().filter(|machine| machine.newest_us.0 - machine.newest_us.1 <= APART_US);
    match (machines.next(), row) {
        (Some(first), row) if !standing => {
            let mut row = row.unwrap_or_else(|| AlarmRow {
                id,
                alarm: Alarm::of_system(&part, CONDITION, "Partitions"),
                alert: None,
                text: None,
                group: None,
            });
            row.text = Some(text(first, machines.count()));
            step.system(row, Change::Raised, Uuid::now_v7(), Severity::Critical, at_us, "");
            true
        }
        (None, Some(row)) if standing => {
            step.system(row, Change::Cleared, Uuid::now_v7(), Severity::Critical, at_us, "");
            true
        }
        _ => false,
    }
}

fn text(machine: &Scattered, others: usize) -> AlertText {
    let Scattered { machine_id, partitions, .. } = machine;
    let listed = |between: &str| partitions.iter().map(u16::to_string).collect::<Vec<_>>().join(between);
    let (more, more_ko) = match others {
        0 => (String::new(), String::new()),
        1 => (" and one more".to_owned(), " 외 1대".to_owned()),
        _ => (format!(" and {others} more"), format!(" 외 {others}대")),
    };
    AlertText {
        en: format!(
            "machine {machine_id}{more}: readings come on partitions {} of {READINGS_TOPIC}, so repeats are not found and \
             order is not kept; set partitioner=murmur2_random (Java's default) in every producer",
            listed(" and ")
        ),
        ko: format!(
            "설비 {machine_id}{more_ko}: 데이터가 {READINGS_TOPIC}의 파티션 {}에 나뉘어 들어와 중복과 순서를 가릴 수 없음. \
             모든 프로듀서를 partitioner=murmur2_random(Java 기본값)으로 설정하세요",
            listed(", ")
        ),
    }
}
