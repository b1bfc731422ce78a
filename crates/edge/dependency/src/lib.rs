//! What a process needs outside of itself: what answers, what is away, since when and why.
//!
//! Whoever uses a dependency tells how it went; who would wait for one that is known to be away asks first ([`Dependency::away`])
//! and is told at once. So it is a circuit breaker whose half-open trial is somebody's question, asked all the time
//! ([`Dependency::watch`]). Does not know what the dependencies are.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::{sleep, timeout};

/// Failures in a row by which something is away: one alone may be an accident.
pub const AWAY_AFTER: u32 = 2;
/// How often it is asked whether something answers,
const ASK_EVERY: Duration = Duration::from_secs(1);
/// and while it does not: what is back is used again so soon.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// An answer that takes longer is none.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Everything that a process depends on, and what waits for it. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Dependencies(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<&'static str, Entry>,
    buffered: BTreeMap<&'static str, Option<i64>>,
}

#[derive(Debug)]
struct Entry {
    needed: bool,
    failures: u32,
    /// The first and the last of the failures in a row.
    failed: Option<(i64, String)>,
}

/// How a dependency stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What it is called: `kafka`, `postgres_main`.
    pub name: &'static str,
    /// Nothing works without it.
    pub needed: bool,
    /// It is away.
    pub away: Option<Away>,
}

/// Something does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is away since {}: {error}", wire::format_time(*since_us))]
pub struct Away {
    /// What it is called.
    pub name: &'static str,
    /// When it first failed, microseconds since 1970.
    pub since_us: i64,
    /// How it failed last.
    pub error: String,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {ANSWER_MAX:?}")]
struct Silent;

/// One dependency. The default is one that nobody looks after: it is never away.
#[derive(Debug, Clone, Default)]
pub struct Dependency(Option<(Dependencies, &'static str)>);

impl Dependencies {
    /// Something without which nothing works.
    pub fn needed(&self, name: &'static str) -> Dependency {
        self.enter(name, true)
    }

    /// Something that can be away for a while.
    pub fn spared(&self, name: &'static str) -> Dependency {
        self.enter(name, false)
    }

    fn enter(&self, name: &'static str, needed: bool) -> Dependency {
        let new = Entry { needed, failures: 0, failed: None };
        let up = self.lock().entries.entry(name).or_insert(new).away(name).is_none();
        tell(name, up);
        Dependency(Some((self.clone(), name)))
    }

    /// How each stands, by name.
    pub fn states(&self) -> Vec<State> {
        let table = self.lock();
        let state =
            |(name, entry): (&&'static str, &Entry)| State { name, needed: entry.needed, away: entry.away(name) };
        table.entries.iter().map(state).collect()
    }

    /// Notes how much of something waits; `None`: that cannot be told.
    pub fn buffer(&self, what: &'static str, waiting: Option<i64>) {
        self.lock().buffered.insert(what, waiting);
    }

    /// What waits, by name.
    pub fn buffered(&self) -> BTreeMap<&'static str, Option<i64>> {
        self.lock().buffered.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

impl Entry {
    fn away(&self, name: &'static str) -> Option<Away> {
        let (since_us, error) = self.failed.as_ref().filter(|_| self.failures >= AWAY_AFTER)?;
        Some(Away { name, since_us: *since_us, error: error.clone() })
    }
}

impl Dependency {
    /// It did what it was asked.
    pub fn answered(&self) {
        self.change(|name, entry| {
            if entry.away(name).is_some() {
                tell(name, true);
            }
            (entry.failures, entry.failed) = (0, None);
        });
    }

    /// It did not answer; not that it answered with a refusal.
    pub fn failed(&self, error: &dyn Error) {
        self.change(|name, entry| {
            entry.failures = entry.failures.saturating_add(1);
            let since_us = entry.failed.as_ref().map_or_else(now_us, |(since_us, _)| *since_us);
            entry.failed = Some((since_us, chain(error)));
            if entry.failures == AWAY_AFTER {
                tell(name, false);
            }
        });
    }

    /// Whether it is known to be away: nobody needs to wait to find out.
    pub fn away(&self) -> Option<Away> {
        let (all, name) = self.0.as_ref()?;
        all.lock().entries.get(name)?.away(name)
    }

    /// Asks it again and again, for as long as the future is polled.
    pub async fn watch<E: Error>(&self, mut ask: impl AsyncFnMut() -> Result<(), E>) {
        loop {
            let pause = match timeout(ANSWER_MAX, ask()).await {
                Ok(Ok(())) => {
                    self.answered();
                    ASK_EVERY
                }
                Ok(Err(error)) => {
                    self.failed(&error);
                    ASK_AGAIN
                }
                Err(_) => {
                    self.failed(&Silent);
                    ASK_AGAIN
                }
            };
            sleep(pause).await;
        }
    }

    fn change(&self, change: impl FnOnce(&'static str, &mut Entry)) {
        if let Some((all, name)) = &self.0
            && let Some(entry) = all.lock().entries.get_mut(name)
        {
            change(name, entry);
        }
    }
}

fn tell(name: &'static str, up: bool) {
    metrics::gauge!("millwright_dependency_up", "dependency" => name).set(f64::from(u8::from(up)));
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// An error and its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn two_failures_in_a_row_are_away_since_the_first_until_an_answer() {
        let all = Dependencies::default();
        let (kafka, redis) = (all.needed("kafka"), all.spared("redis"));
        let before = now_us();
        kafka.failed(&io::Error::other("first"));
        assert_eq!(kafka.away(), None);
        kafka.answered();
        kafka.failed(&io::Error::other("second"));
        assert_eq!(kafka.away(), None, "the first was an accident");
        let second = now_us();
        kafka.failed(&io::Error::other("third"));
        let away = kafka.away().unwrap();
        assert!((before..=second).contains(&away.since_us));
        assert_eq!((away.name, &*away.error), ("kafka", "third"));
        let states = all.states();
        assert_eq!(states[0], State { name: "kafka", needed: true, away: Some(away) });
        assert_eq!(states[1], State { name: "redis", needed: false, away: redis.away() });
        assert_eq!(redis.away(), None);
        // Every holder asks the same one.
        all.needed("kafka").answered();
        assert_eq!(kafka.away(), None);
        assert!(Dependency::default().away().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_answer_in_time_is_away_and_what_is_back_is_seen_at_once() {
        let all = Dependencies::default();
        let database = all.needed("postgres_main");
        let mut asked = 0;
        let watched = database.clone();
        let watch = watched.watch(async || {
            asked += 1;
            if asked <= 2 {
                sleep(ANSWER_MAX * 2).await;
            }
            Ok::<(), io::Error>(())
        });
        let seen = async {
            sleep(ANSWER_MAX * 2 + ASK_AGAIN + Duration::from_millis(1)).await;
            let away = database.away().unwrap();
            assert!(away.error == "no answer within 2s", "{}", away.error);
            sleep(ASK_AGAIN).await;
            database.away()
        };
        tokio::select! {
            () = watch => unreachable!("it has no end"),
            away = seen => assert_eq!(away, None),
        }
    }
}
