//! What the portal shows.

use crate::oracle::Expected;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

pub struct Portal<'a> {
    pub http: &'a reqwest::Client,
    pub base: String,
}

impl Portal<'_> {
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer =
            self.http.get(format!("{}{path}", self.base)).send().await.with_context(|| format!("GET {path}"))?;
        let status = answer.status();
        let body = answer.text().await.with_context(|| format!("GET {path}"))?;
        if !status.is_success() {
            bail!("GET {path}: {status} {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("GET {path}: {body}"))
    }

    pub async fn pages(&self, path: &str, key: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let mut page = self.get(&format!("{path}{sign}limit=777{cursor}")).await?;
            let rows = page[key].as_array_mut().map(std::mem::take).unwrap_or_default();
            let empty = rows.is_empty();
            all.extend(rows);
            match page["next_cursor"].as_str() {
                Some(next) if !empty => cursor = format!("&cursor={next}"),
                _ => return Ok(all),
            }
        }
    }

    /// Every alert, once all that was accepted has been worked through (or it does not get there in 20 s).
    pub async fn settle(&self, expected: &Expected) -> Result<Vec<Value>> {
        let stored: usize = expected.rows.values().map(BTreeSet::len).sum();
        let until = Instant::now() + Duration::from_secs(20);
        let mut before = usize::MAX;
        loop {
            let ledger = self.get("/api/ledger").await?;
            let alerts = self.pages("/api/alerts", "alerts").await?;
            let at_rest = sum(&ledger, "in_flight") == 0 && sum(&ledger, "stored") >= stored as u64;
            if at_rest && alerts.len() == before && alerts.len() >= expected.alerts.len() || Instant::now() > until {
                return Ok(alerts);
            }
            before = alerts.len();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Durable frames of the event stream after a seq, until none has come for two seconds.
    pub async fn frames(&self, after: u64) -> Result<Vec<Value>> {
        let mut frames = Vec::new();
        let mut until = tokio::time::Instant::now() + Duration::from_secs(2);
        let mut answer = self
            .http
            .get(format!("{}/api/events?after={after}", self.base))
            .send()
            .await
            .context("open the event stream")?;
        // Bytes, since a chunk may end within a character.
        let mut text: Vec<u8> = Vec::new();
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(until, answer.chunk()).await {
            text.extend_from_slice(&chunk);
            while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                let event = String::from_utf8_lossy(&event);
                let data = event.lines().filter_map(|line| line.strip_prefix("data:")).collect::<String>();
                if let Ok(frame) = serde_json::from_str::<Value>(&data)
                    && frame["type"] != "live"
                {
                    until = tokio::time::Instant::now() + Duration::from_secs(2);
                    frames.push(frame);
                }
            }
        }
        Ok(frames)
    }
}

pub fn sum(ledger: &Value, key: &str) -> u64 {
    ledger["sources"].as_array().into_iter().flatten().filter_map(|source| source[key].as_u64()).sum()
}
