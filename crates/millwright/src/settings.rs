//! What the configuration means, checked before anything is opened.

use crate::{
    class,
    config::{self, Config, LogFormat, Origins, origin_of},
    failure::Failure,
};
use anyhow::{Context, Result};
use catalog::{Catalogue, MatchRule};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use notify::{Notifier, Webhook, WebhookOptions};
use std::{io::IsTerminal, sync::Arc, time::Duration};
use tracing_subscriber::EnvFilter;

/// Seconds up to which a latency is counted, from a good fsync to far beyond the promise of 1 s.
const BUCKETS_S: [f64; 14] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// How often what the figures gathered is folded together.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// What the configuration means.
pub(crate) struct Checked {
    /// Classes and match rules; no machine's own settings.
    pub(crate) catalogue: Catalogue,
    pub(crate) notifiers: Vec<(String, Notifier)>,
    log: EnvFilter,
}

impl Checked {
    /// Finds what is wrong with the values that `origins` tells the origins of.
    pub(crate) fn new(config: &Config, origins: &Origins) -> Result<Checked> {
        // Every TLS connection of the process is made with it; a second one in this process would be a mistake of ours.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let names: Vec<String> = config.classes.iter().map(|class| class.display().to_string()).collect();
        let rules = config.machines.iter();
        let rules = rules.map(|rule| MatchRule { pattern: rule.pattern.clone(), class: rule.class.clone() }).collect();
        let of = |key: &str| origin_of(origins, key);
        let catalogue = class::catalogue(names.iter().map(String::as_str))
            .with_context(|| format!("classes{}", of("classes")))?
            .with_rules(rules)
            .map_err(|error| Failure::configuration("MW-0023", format!("[[machines]]{}: {error}", of("machines"))))?;
        let notifiers = notifiers(config).with_context(|| format!("webhooks{}", of("webhooks")))?;
        let level = &config.log.level;
        let log = EnvFilter::try_new(level).map_err(|error| {
            Failure::configuration("MW-0024", format!("log.level `{level}`{}: {error}", of("log.level")))
                .hint("write error, warn, info, debug or trace, or per part: \"info,portal=debug\"")
        })?;
        Ok(Checked { catalogue, notifiers, log })
    }
}

/// The log and every webhook.
fn notifiers(config: &Config) -> Result<Vec<(String, Notifier)>> {
    let mut notifiers = vec![("log".to_owned(), Notifier::Log)];
    for config::Webhook { name, url, secret, allow_private } in &config.webhooks {
        if notifiers.iter().any(|(taken, _)| taken == name) {
            return Err(Failure::configuration("MW-0025", format!("[[webhooks]]: the name `{name}` is taken")).into());
        }
        let options = WebhookOptions {
            url: url.clone(),
            secret: secret.as_deref().map(config::secret).transpose()?,
            allow_private: *allow_private,
        };
        let webhook = Webhook::new(options)
            .map_err(|error| Failure::configuration("MW-0025", format!("[[webhooks]] {name}: {error}")))?;
        notifiers.push((name.clone(), Notifier::Webhook(Arc::new(webhook))));
    }
    Ok(notifiers)
}

/// Lets the log begin, on stderr.
pub(crate) fn log(config: &Config, checked: &Checked) -> Result<()> {
    let filter = checked.log.clone();
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    let begun = match config.log.format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    begun.map_err(anyhow::Error::from_boxed).context("begin the log")
}

/// Where figures gather; a task of the runtime that calls this folds together what has gathered.
pub(crate) fn metrics() -> Result<PrometheusHandle> {
    let metrics = PrometheusBuilder::new()
        .set_buckets(&BUCKETS_S)
        .and_then(PrometheusBuilder::install_recorder)
        .context("install the recorder of figures")?;
    let folded = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            folded.run_upkeep();
        }
    });
    Ok(metrics)
}
