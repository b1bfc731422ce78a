//! A client of the HTTP door that sends again what was not answered.

use crate::input::{Lots, Plan};
use anyhow::{Result, bail};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

pub struct Client {
    pub id: u64,
    pub plan: Plan,
    /// Bodies before this one were answered 202.
    pub next: u64,
    /// The body `next` was sent and not answered.
    pub unanswered: bool,
    /// Refused lines by text: (answered, sent at all).
    pub refusals: BTreeMap<String, (u64, u64)>,
    pub resent: u64,
    /// A refusal or an answer that should not have been.
    pub complaints: Vec<String>,
    pub lots: Lots,
}

impl Client {
    pub fn new(id: u64, plan: Plan) -> Client {
        let lots = Lots(plan.seed ^ 0xc11e ^ id);
        Client {
            id,
            plan,
            next: 0,
            unanswered: false,
            refusals: BTreeMap::new(),
            resent: 0,
            complaints: Vec::new(),
            lots,
        }
    }

    pub async fn send_until(&mut self, http: &reqwest::Client, url: &str, deadline: tokio::time::Instant) {
        while tokio::time::Instant::now() < deadline {
            // A client that comes back sends its last answered body again too, now and then.
            if self.next > 0 && self.lots.below(8) == 0 {
                self.resent += 1;
                tokio::select! { () = tokio::time::sleep_until(deadline) => { self.sent(self.next - 1); return; }
                answered = self.send(http, url, self.next - 1) => if !answered { return } }
            }
            self.resent += u64::from(self.unanswered);
            let number = self.next;
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => { self.sent(number); self.unanswered = true; return }
                answered = self.send(http, url, number) => {
                    self.unanswered = !answered;
                    if !answered { return }
                    self.next += 1;
                }
            }
        }
    }

    /// Sends the next body, now and then the last answered one before it.
    pub async fn go_on(&mut self, http: &reqwest::Client, url: &str) {
        if self.next > 0 && self.lots.below(8) == 0 {
            self.resent += 1;
            self.send(http, url, self.next - 1).await;
        }
        self.resent += u64::from(self.unanswered);
        self.unanswered = !self.send(http, url, self.next).await;
        self.next += u64::from(!self.unanswered);
    }

    /// Sends until every body that was begun is answered.
    pub async fn finish(&mut self, http: &reqwest::Client, url: &str) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        while self.unanswered {
            if self.send(http, url, self.next).await {
                self.unanswered = false;
                self.next += 1;
            } else if Instant::now() > until {
                bail!("client {}: body {} is not taken", self.id, self.next);
            }
        }
        Ok(())
    }

    /// Notes a body's bad lines as sent, whatever came of it.
    pub fn sent(&mut self, number: u64) {
        for line in self.plan.body(self.id, number).into_iter().filter(|line| line.reading.is_none()) {
            self.refusals.entry(line.text).or_default().1 += 1;
        }
    }

    /// Sends a body; true once it is answered 202. A 429 or 503 is tried again.
    pub async fn send(&mut self, http: &reqwest::Client, url: &str, number: u64) -> bool {
        let lines = self.plan.body(self.id, number);
        let text: Vec<&str> = lines.iter().map(|line| &*line.text).collect();
        let body = text.join("\n");
        loop {
            let answer = http.post(url).header("content-type", "application/x-ndjson").body(body.clone()).send().await;
            let Ok(answer) = answer else {
                self.sent(number);
                return false;
            };
            match answer.status().as_u16() {
                202 => {
                    let Ok(told) = answer.json::<Value>().await else {
                        self.sent(number);
                        return false;
                    };
                    let bad: BTreeSet<u64> =
                        (0..).zip(&lines).filter(|(_, line)| line.reading.is_none()).map(|(at, _)| at).collect();
                    let told_bad: BTreeSet<u64> = told["errors"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|error| error["index"].as_u64())
                        .collect();
                    if bad != told_bad || told["rejected"] != bad.len() || told["accepted"] != lines.len() - bad.len() {
                        self.complaints
                            .push(format!("client {} body {number}: answered {told}, bad lines are {bad:?}", self.id));
                    }
                    for line in lines.into_iter().filter(|line| line.reading.is_none()) {
                        let (answered, sent) = self.refusals.entry(line.text).or_default();
                        *answered += 1;
                        *sent += 1;
                    }
                    return true;
                }
                // Nothing of it was taken, or the readings and perhaps the refusals.
                429 | 503 => {
                    if answer.text().await.is_ok_and(|said| said.contains("no_dead_letters")) {
                        self.sent(number);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                status => {
                    self.complaints.push(format!("client {} body {number}: HTTP {status}", self.id));
                    return false;
                }
            }
        }
    }
}
