//! Alarms as lines on the terminal, in the reader's language.

use super::say;
use crate::{cli::Output, config::Config};
use jiff::{Timestamp, tz::TimeZone};
use store::Store;
use wire::{Alert, Kind};

/// Alerts that are read at once.
const PAGE: usize = 100;

/// A language that texts exist in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    English,
    Korean,
}

impl Language {
    /// As the environment says.
    pub(super) fn of_environment() -> Language {
        let set = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok());
        Language::of(set.into_iter().find(|value| !value.is_empty()).as_deref().unwrap_or_default())
    }

    fn of(locale: &str) -> Language {
        if locale.starts_with("ko") { Language::Korean } else { Language::English }
    }
}

/// Tells what is raised and cleared from where the outbox stood when it was made.
pub(super) struct Terminal {
    store: Store,
    position: i64,
    zone: TimeZone,
    /// `None`: nothing is told.
    language: Option<Language>,
}

impl Terminal {
    pub(super) fn new(store: &Store, config: &Config, output: Output) -> Terminal {
        Terminal {
            store: store.clone(),
            position: *store.outbox_grown().borrow(),
            zone: TimeZone::get(&config.site.timezone).unwrap_or(TimeZone::UTC),
            language: (output == Output::Text).then(Language::of_environment),
        }
    }

    /// Tells alarms as they come; it goes on where it was dropped.
    pub(super) async fn tell_alarms(&mut self) {
        let mut grown = self.store.outbox_grown();
        loop {
            // Before the read: what is committed after it wakes the wait below.
            grown.borrow_and_update();
            self.tell_waiting().await;
            if self.language.is_none() {
                return std::future::pending().await;
            }
            if grown.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells what has come so far.
    pub(super) async fn tell_waiting(&mut self) {
        while let Some(language) = self.language {
            match self.store.outbox_after(self.position, PAGE).await {
                Ok(page) if page.is_empty() => return,
                Ok(page) => {
                    for (at, json) in page {
                        self.position = at;
                        let line = Alert::from_json(&json).ok().and_then(|alert| line(&alert, language, &self.zone));
                        say(&line.unwrap_or_default());
                    }
                }
                Err(error) => {
                    tracing::warn!("alarms are no longer told on the terminal: {error}");
                    self.language = None;
                }
            }
        }
    }
}

/// One alert as a line; `None` where nothing is raised or cleared.
fn line(alert: &Alert, language: Language, zone: &TimeZone) -> Option<String> {
    let (kind, severity) = match language {
        Language::English => {
            let kind = match alert.kind {
                Kind::Raised => "raised ",
                Kind::Cleared => "cleared",
                Kind::Changed => return None,
            };
            let severity = match alert.severity {
                catalog::Severity::Critical => "critical",
                catalog::Severity::Warning => "warning ",
                catalog::Severity::Info => "info    ",
            };
            (kind, severity)
        }
        Language::Korean => {
            let kind = match alert.kind {
                Kind::Raised => "발생",
                Kind::Cleared => "해제",
                Kind::Changed => return None,
            };
            let severity = match alert.severity {
                catalog::Severity::Critical => "위험",
                catalog::Severity::Warning => "경고",
                catalog::Severity::Info => "정보",
            };
            (kind, severity)
        }
    };
    let text = if language == Language::Korean { &alert.text.ko } else { &alert.text.en };
    let time = Timestamp::from_microsecond(alert.timestamp).ok()?.to_zoned(zone.clone());
    Some(format!("{}  {kind}  {severity}  {text}\n", time.strftime("%H:%M:%S")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_names_the_language() {
        assert_eq!(Language::of("ko_KR.UTF-8"), Language::Korean);
        assert_eq!(Language::of("C.UTF-8"), Language::English);
        assert_eq!(Language::of(""), Language::English);
    }
}
