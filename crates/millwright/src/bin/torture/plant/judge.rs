//! Holds what the engines have against what was sent.
//!
//! The order of a machine's readings is that of the bus, so it is the topic that is read, and every line of it must be one
//! that was sent; all else is arithmetic.

use super::{
    live::{self, Hook},
    log::{Log, Seen},
    rig::Addresses,
    sender::{self, Sent},
};
use crate::{
    client::Client,
    input::{MACHINES, Plan, Reading, cells, cells_of, machine_name, rfc3339},
    oracle::PowerCondition,
    portal::Portal,
};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::{NoTls, Row};

/// A connection to a database of the plant; it ends with its client.
pub async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("connect to PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}

/// Next offset of each partition of a topic.
pub async fn positions(client: &tokio_postgres::Client, topic: &str, partitions: usize) -> Result<Vec<i64>> {
    let rows = client.query("select partition, next_offset from consumer_offset where topic = $1", &[&topic]).await?;
    let mut next = vec![0; partitions];
    for row in rows {
        next[row.get::<_, i32>(0) as usize] = row.get(1);
    }
    Ok(next)
}

/// What there was before a history began, and what is there since.
pub struct Judge {
    at: Addresses,
    plan: Plan,
    /// Of the history: its clients are `10 * number ..`.
    number: u64,
    readings: Log,
    alerts: Log,
    letters: Log,
    ledger: [i64; 4],
    /// Newest seq of the event stream.
    seq: i64,
    hook: Hook,
    /// The topic of dead letters may repeat what its table holds once.
    pub two_writers: bool,
}

/// What was seen.
#[derive(Default)]
pub struct Verdict {
    pub wrong: Vec<String>,
    /// Every position is where its topic ends.
    pub at_rest: bool,
    pub readings: usize,
    pub refused: usize,
    pub repeats: usize,
    pub alerts: usize,
    /// Notifications that rang.
    pub heard: usize,
    /// When the last of those that wait is to be tried again, microseconds since 1970.
    pub due_us: Option<i64>,
    /// On their topic, where that may be.
    pub letters_repeated: usize,
}

/// What the topic says must be there.
#[derive(Default)]
struct Must {
    rows: BTreeMap<String, BTreeSet<Reading>>,
    alerts: BTreeSet<(String, String, i64)>,
    /// Refused lines with the place of each.
    refused: BTreeMap<String, Vec<(i32, i64)>>,
    repeats: usize,
}

impl Judge {
    pub async fn begin(at: &Addresses, plan: Plan, number: u64, hook: Hook) -> Result<Judge> {
        let log = |topic| tokio::task::block_in_place(|| Log::from_end(&at.kafka, topic));
        let main = connect(&at.postgres_main).await?;
        Ok(Judge {
            at: at.clone(),
            plan,
            number,
            readings: log("sensor-raw-data")?,
            alerts: log("anomaly-alerts")?,
            letters: log("sensor-raw-data.dlq")?,
            ledger: ledger(&main).await?,
            hook,
            two_writers: false,
            seq: main.query_one("select coalesce(max(seq), 0) from event", &[]).await?.get(0),
        })
    }

    pub async fn look(&mut self, http: &reqwest::Client, clients: &[Client], sent: &Sent) -> Result<Verdict> {
        tokio::task::block_in_place(|| {
            self.readings.catch_up()?;
            self.letters.catch_up()?;
            self.alerts.catch_up()
        })?;
        let mut verdict = Verdict::default();
        let must = self.must(&mut verdict.wrong);
        self.accepted(&must, clients, sent, &mut verdict.wrong);
        verdict.wrong.extend(clients.iter().flat_map(|client| client.complaints.clone()));
        let (main, ai) = (connect(&self.at.postgres_main).await?, connect(&self.at.postgres_ai).await?);
        verdict.at_rest = self.at_rest(&main, &ai, &mut verdict.wrong).await?;
        self.stored(&main, &must, &mut verdict.wrong).await?;
        verdict.letters_repeated = self.dead_letters(&main, &must, clients, &mut verdict.wrong).await?;
        let told = self.told(&main, &ai, &must, &mut verdict.wrong).await?;
        (verdict.heard, verdict.due_us) = self.rung(&main, &must, &mut verdict.wrong).await?;
        // It takes seconds, and tells nothing new of what is wrong already.
        if verdict.wrong.is_empty() {
            self.stream(&main, http, &told, &mut verdict.wrong).await?;
        }
        verdict.readings = must.rows.values().map(BTreeSet::len).sum();
        verdict.refused = must.refused.len() + clients.iter().map(|client| client.refusals.len()).sum::<usize>();
        verdict.repeats = must.repeats;
        verdict.alerts = told.len();
        Ok(verdict)
    }

    fn is_ours(&self, client: u64) -> bool {
        client / 10 == self.number
    }

    /// `t-CLIENT-MACHINE` of this history.
    fn machine(&self, name: &str) -> Option<(u64, u64)> {
        let (client, machine) = name.strip_prefix("t-")?.split_once('-')?;
        let (client, machine) = (client.parse().ok()?, machine.parse().ok()?);
        self.is_ours(client).then_some((client, machine))
    }

    /// A refused line of this history tells its client.
    fn is_our_refused(&self, text: &str) -> bool {
        let tag = text.split_once(r#""tag":""#).map(|(_, rest)| rest);
        tag.and_then(|tag| tag.split_once('.')?.0.parse().ok()).is_some_and(|client| self.is_ours(client))
    }

    fn must(&self, wrong: &mut Vec<String>) -> Must {
        let mut must = Must::default();
        let mut conditions: BTreeMap<String, PowerCondition> = BTreeMap::new();
        for Seen { partition, offset, value, .. } in &self.readings.records {
            let text = String::from_utf8_lossy(value);
            let lines: Vec<String> = match serde_json::from_str::<Vec<Value>>(&text) {
                Ok(array) => array.iter().map(Value::to_string).collect(),
                Err(_) => text.lines().map(str::to_owned).collect(),
            };
            for line in lines {
                if line.contains(r#""tag":"#) {
                    if self.is_our_refused(&line) {
                        must.refused.entry(line).or_default().push((*partition, *offset));
                    }
                    continue;
                }
                let log: Value = serde_json::from_str(&line).unwrap_or_default();
                let name = log["machine_id"].as_str().unwrap_or_default();
                let Some((client, machine)) = self.machine(name) else { continue };
                let second = log["timestamp"].as_str().and_then(|at| self.plan.second_of(at));
                let Some(reading) = second.map(|second| self.plan.reading(client, machine, second)) else {
                    wrong.push(format!("bus: {name} never sent {line}"));
                    continue;
                };
                if cells(&log) != cells_of(&reading) {
                    wrong.push(format!("bus: {name} sent {}, the topic holds {line}", cells_of(&reading)));
                }
                if !must.rows.entry(name.to_owned()).or_default().insert(reading) {
                    must.repeats += 1;
                } else if let Some(kind) = conditions.entry(name.to_owned()).or_default().judge(&reading) {
                    must.alerts.insert((name.to_owned(), kind.to_owned(), reading.second));
                }
            }
        }
        must
    }

    /// I6, and what the brokers acknowledged to the foreign producer.
    fn accepted(&self, must: &Must, clients: &[Client], sent: &Sent, wrong: &mut Vec<String>) {
        let none = BTreeSet::new();
        let mut missing = BTreeMap::<&str, Vec<String>>::new();
        for machine in 0..sender::MACHINES {
            let name = machine_name(self.number * 10, machine);
            let held = must.rows.get(&name).unwrap_or(&none);
            let readings = (0..sent.seconds).map(|second| self.plan.reading(self.number * 10, machine, second));
            let lost = readings.filter(|reading| !held.contains(reading));
            missing.entry("acknowledged").or_default().extend(lost.map(|reading| format!("{name} {reading:?}")));
        }
        let client = live::client(self.number);
        let of_live = |machine| sent.live.iter().map(move |second| (machine, *second));
        for (machine, second) in (0..live::MACHINES).flat_map(of_live) {
            let reading = self.plan.reading(client, machine, second);
            if !must.rows.get(&machine_name(client, machine)).is_some_and(|held| held.contains(&reading)) {
                missing.entry("answered 202").or_default().push(format!("t-{client}-{machine} {reading:?}"));
            }
        }
        let lost = sent.refused.iter().filter(|line| !must.refused.contains_key(*line));
        missing.entry("acknowledged").or_default().extend(lost.cloned());
        for client in clients {
            for machine in 0..MACHINES {
                let name = machine_name(client.id, machine);
                let held = must.rows.get(&name).unwrap_or(&none);
                let seconds = 0..client.next * crate::input::SECONDS;
                let readings = seconds.map(|second| self.plan.reading(client.id, machine, second));
                let lost = readings.filter(|reading| !held.contains(reading));
                missing.entry("answered 202").or_default().extend(lost.map(|reading| format!("{name} {reading:?}")));
            }
        }
        for (what, some) in missing.into_iter().filter(|(_, some)| !some.is_empty()) {
            wrong.push(format!("I6 lost: {} that were {what} are not on the topic, e.g. {}", some.len(), some[0]));
        }
    }

    /// I2.
    async fn at_rest(
        &self,
        main: &tokio_postgres::Client,
        ai: &tokio_postgres::Client,
        wrong: &mut Vec<String>,
    ) -> Result<bool> {
        let before = wrong.len();
        for (who, client, log) in
            [("ingest", main, &self.readings), ("detect", ai, &self.readings), ("portal", main, &self.alerts)]
        {
            let next = positions(client, log.topic, log.next.len()).await?;
            if next != log.next {
                wrong.push(format!("I2 {who} stands at {next:?}, the topic ends at {:?}", log.next));
            }
        }
        Ok(wrong.len() == before)
    }

    /// I1: every reading once, with equal values.
    async fn stored(&self, main: &tokio_postgres::Client, must: &Must, wrong: &mut Vec<String>) -> Result<()> {
        let sql = "select machine_id, extract(epoch from timestamp)::int8, (air_temp_k * 100)::int8,
                (process_temp_k * 100)::int8, rpm::int8, (torque_nm * 100)::int8, tool_wear_min::int8
            from sensor_log where machine_id ~ $1";
        let rows = main.query(sql, &[&format!("^t-{}[0-9]-", self.number)]).await?;
        let mut found: BTreeMap<(String, Reading), u64> = BTreeMap::new();
        for row in &rows {
            let [second, air, process, rpm, torque, wear] = std::array::from_fn(|at| row.get(at + 1));
            let reading = Reading { second, air, process, rpm, torque, wear };
            *found.entry((row.get(0), reading)).or_default() += 1;
        }
        let all = must.rows.iter().flat_map(|(name, rows)| rows.iter().map(|row| (name.clone(), *row)));
        let all: BTreeSet<(String, Reading)> = all.collect();
        tell(wrong, "I1 lost: readings are not stored", all.iter().filter(|key| !found.contains_key(key)));
        tell(wrong, "I1 doubled: readings are stored more than once", found.iter().filter(|(_, times)| **times > 1));
        tell(wrong, "I1 false: readings are stored that nobody sent", found.keys().filter(|key| !all.contains(key)));
        let now = ledger(main).await?;
        let [received, stored, rejected, duplicate] = std::array::from_fn(|at| now[at] - self.ledger[at]);
        if received != stored + rejected + duplicate || stored != rows.len() as i64 || stored != all.len() as i64 {
            wrong.push(format!(
                "ledger: received {received}, stored {stored}, rejected {rejected}, duplicate {duplicate}; {} rows, {} must be",
                rows.len(),
                all.len()
            ));
        }
        Ok(())
    }

    /// I1: every refused line in the table and on the topic, once; how many the topic repeats where it may.
    async fn dead_letters(
        &self,
        main: &tokio_postgres::Client,
        must: &Must,
        clients: &[Client],
        wrong: &mut Vec<String>,
    ) -> Result<usize> {
        let rows = main
            .query(r#"select payload, coalesce(partition, -1), coalesce("offset", -1) from dead_letter"#, &[])
            .await?;
        let place = |row: &Row| (row.get::<_, i32>(1), row.get::<_, i64>(2));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let table: Vec<_> = rows.iter().map(|row| (text(row.get(0)), place(row))).collect();
        let number = |seen: &Seen, name: &str| seen.headers.get(name).and_then(|text| text.parse::<i64>().ok());
        let topic: Vec<_> = self
            .letters
            .records
            .iter()
            .map(|seen| {
                let partition = number(seen, "x-orig-partition").unwrap_or(-1) as i32;
                (text(&seen.value), (partition, number(seen, "x-orig-offset").unwrap_or(-1)))
            })
            .collect();
        let mut all: Vec<(String, (i32, i64))> = Vec::new();
        for (line, places) in &must.refused {
            all.extend(places.iter().map(|place| (line.clone(), *place)));
        }
        all.sort();
        let mut repeated = 0;
        for (what, held) in [("table", &table), ("topic", &topic)] {
            let ours = held.iter().filter(|(line, (partition, _))| *partition >= 0 && self.is_our_refused(line));
            let mut ours: Vec<_> = ours.cloned().collect();
            ours.sort();
            if what == "topic" && self.two_writers {
                let before = ours.len();
                ours.dedup();
                repeated = before - ours.len();
            }
            if ours != all {
                let (held, must): (BTreeSet<_>, BTreeSet<_>) = (ours.iter().collect(), all.iter().collect());
                wrong.push(format!(
                    "I1 dead letters: the {what} holds {}, {} were refused; missing {:?}, false {:?}, doubled {:?}",
                    ours.len(),
                    all.len(),
                    must.difference(&held).next(),
                    held.difference(&must).next(),
                    ours.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &pair[0])
                ));
            }
        }
        let mut held: BTreeMap<&str, u64> = BTreeMap::new();
        for (line, _) in table.iter().filter(|(_, (partition, _))| *partition < 0) {
            *held.entry(line).or_default() += 1;
        }
        for (line, (answered, sent)) in clients.iter().flat_map(|client| &client.refusals) {
            let held = held.get(line.as_str()).copied().unwrap_or(0);
            if !(*answered..=*sent).contains(&held) {
                wrong.push(format!(
                    "I1 a line refused at the door is held {held} times, answered {answered}, sent {sent}: {line}"
                ));
            }
        }
        Ok(repeated)
    }

    /// I3, I4, I5; the ids of the history.
    async fn told(
        &self,
        main: &tokio_postgres::Client,
        ai: &tokio_postgres::Client,
        must: &Must,
        wrong: &mut Vec<String>,
    ) -> Result<BTreeSet<String>> {
        let ours = format!("^t-{}[0-9]-", self.number);
        let sql = "select id::text, machine_id, kind, extract(epoch from timestamp)::int8, condition = 'power_failure'
            from anomaly_history where machine_id ~ $1 order by position";
        let history = ai.query(sql, &[&ours]).await?;
        let of_law = history.iter().filter(|row| row.get(4));
        let of_law: Vec<(String, String, i64)> = of_law.map(|row| (row.get(1), row.get(2), row.get(3))).collect();
        let found: BTreeSet<_> = of_law.iter().cloned().collect();
        let readable = |(name, kind, second): &(String, String, i64)| format!("{name} {kind} {}", rfc3339(*second));
        tell(wrong, "I3 lost: alerts are missing", must.alerts.difference(&found).map(readable));
        tell(wrong, "I3 false: alerts are not those of the law", found.difference(&must.alerts).map(readable));
        if of_law.len() != found.len() {
            wrong.push(format!("I3 doubled: {} alerts", of_law.len() - found.len()));
        }
        let ids: BTreeSet<String> = history.iter().map(|row| row.get(0)).collect();

        let mut on_topic: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut times: BTreeMap<String, u64> = BTreeMap::new();
        for seen in &self.alerts.records {
            let value: Value = serde_json::from_slice(&seen.value).unwrap_or_default();
            let machine = value["machine_id"].as_str().unwrap_or_default();
            if self.machine(machine).is_none() {
                continue;
            }
            let id = value["alert_id"].as_str().unwrap_or_default().to_owned();
            if seen.headers.get("id") != Some(&id) {
                wrong.push(format!("I4 record {}/{} names another id in its header", seen.partition, seen.offset));
            }
            let count = times.entry(id.clone()).or_default();
            *count += 1;
            if *count == 1 {
                on_topic.entry(machine.to_owned()).or_default().push(id);
            }
        }
        tell(wrong, "I4 lost: alerts are not on the topic", ids.iter().filter(|id| !times.contains_key(*id)));
        tell(
            wrong,
            "I4 doubled: alerts are on the topic more than once",
            times.iter().filter(|(_, count)| **count > 1),
        );
        tell(
            wrong,
            "I4 false: the topic tells what the history does not",
            times.keys().filter(|id| !ids.contains(*id)),
        );
        let mut in_order: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in &history {
            in_order.entry(row.get(1)).or_default().push(row.get(0));
        }
        tell(
            wrong,
            "I4 order: machines' alerts are told in another order",
            in_order.iter().filter(|(machine, ids)| {
                on_topic.get(*machine).is_some_and(|told| told.len() == ids.len() && told != *ids)
            }),
        );

        let sql = "select alert_id from alert where data ->> 'machine_id' ~ $1";
        let shown: BTreeSet<String> = main.query(sql, &[&ours]).await?.iter().map(|row| row.get(0)).collect();
        tell(wrong, "I5 lost: the portal has not the alerts", ids.difference(&shown));
        tell(wrong, "I5 false: the portal has alerts of its own", shown.difference(&ids));
        let sql = "select machine_id, (state ->> 'standing')::boolean, (state ->> 'count')::int8 from alarm
            where machine_id ~ $1 and condition = 'power_failure'";
        let rows = main.query(sql, &[&ours]).await?;
        let alarms: BTreeMap<String, (bool, i64)> =
            rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
        let mut must_alarm: BTreeMap<String, (bool, i64)> = BTreeMap::new();
        let mut of_law = must.alerts.iter().collect::<Vec<_>>();
        of_law.sort_by_key(|(_, _, second)| *second);
        for (machine, kind, _) in of_law {
            let (standing, count) = must_alarm.entry(machine.clone()).or_default();
            *standing = kind == "raised";
            *count += i64::from(*standing);
        }
        tell(
            wrong,
            "I5 alarms: standing and count are not as the alerts make them",
            must_alarm
                .iter()
                .filter(|(machine, must)| alarms.get(*machine) != Some(must))
                .map(|(machine, must)| format!("{machine} must be {must:?}, is {:?}", alarms.get(machine))),
        );
        Ok(ids)
    }

    /// I5: what rings is told to the webhook, under one key for each line of the audit log; how much that is, and when
    /// the last that waits is to be tried again.
    async fn rung(
        &self,
        main: &tokio_postgres::Client,
        must: &Must,
        wrong: &mut Vec<String>,
    ) -> Result<(usize, Option<i64>)> {
        // Before the tables: what is told is queued before.
        let heard = self.hook.heard(|name| self.machine(name).is_some());
        let ours = format!("^t-{}[0-9]-", self.number);
        let sql = "select line::jsonb ->> 'alert_id', sequence, machine_id, condition, line::jsonb ->> 'action'
            from audit join alarm on subject = 'alarm:' || alarm.id
            where machine_id ~ $1 and (line::jsonb ->> 'annunciates')::boolean";
        let lines = main.query(sql, &[&ours]).await?;
        let rang: BTreeSet<(String, i64)> = lines.iter().map(|row| (row.get(0), row.get(1))).collect();
        let sql = "select alert_id::text, sequence, notification.id::text, notification.state = 'sent', payload,
                notification.attempts, notification.due_us
            from notification join alarm on alarm_id = alarm.id where machine_id ~ $1 and channel = 'hook'";
        let rows = main.query(sql, &[&ours]).await?;
        let queued: BTreeSet<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        tell(wrong, "I5 lost: what rings is not queued", rang.difference(&queued));
        tell(wrong, "I5 false: it is queued and does not ring", queued.difference(&rang));
        if rows.len() != queued.len() {
            wrong.push(format!("I5 doubled: {} notifications of {}", rows.len(), queued.len()));
        }
        let (sent, waiting): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.get(3));
        let key = |row: &&Row| row.get::<_, String>(2);
        // How often it was tried changes with each attempt, so the time until the next counts, not that since the first.
        let tried = |row: &&Row| format!("{}, tried {} times", key(row), row.get::<_, i64>(5));
        tell(wrong, "I5 late: notifications wait", waiting.iter().map(tried));
        let due_us = waiting.iter().map(|row| row.get(6)).max();
        let unheard = sent.iter().map(key).filter(|key| !heard.contains_key(key));
        tell(wrong, "I5 unheard: notifications are noted as sent that nobody was told", unheard);
        let mut queued: BTreeMap<String, Value> = BTreeMap::new();
        for row in &rows {
            queued.insert(row.get(2), serde_json::from_str(row.get(4)).unwrap_or_default());
        }
        let otherwise =
            heard.iter().filter(|(key, bodies)| queued.get(*key).is_none_or(|body| bodies[..] != [body.clone()]));
        tell(wrong, "I5 false: the webhook was told what is not queued so", otherwise);

        // Each live machine that broke the law rings once in ten minutes. One that rings of something else is in a group.
        let live = format!("t-{}-", live::client(self.number));
        let mut rings: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for row in lines.iter().filter(|row| row.get::<_, &str>(2).starts_with(&live)) {
            rings.entry(row.get(2)).or_default().push((row.get(3), row.get(4)));
        }
        let broke = must.alerts.iter().map(|(name, ..)| name).filter(|name| name.starts_with(&live));
        let broke: BTreeSet<&String> = broke.collect();
        let as_must = |name: &str| match rings.get(name) {
            Some(rings) if rings.iter().any(|(condition, _)| *condition != "power_failure") => true,
            rings => rings.is_some_and(|rings| rings[..] == [("power_failure", "raised")]),
        };
        tell(wrong, "I5 alarms: they must ring once", broke.into_iter().filter(|name| !as_must(name)));
        Ok((heard.len(), due_us))
    }

    /// I9: a stream that is resumed from anywhere tells what the database has.
    async fn stream(
        &self,
        main: &tokio_postgres::Client,
        http: &reqwest::Client,
        ids: &BTreeSet<String>,
        wrong: &mut Vec<String>,
    ) -> Result<()> {
        let rows = main.query("select seq, kind, data from event where seq > $1 order by seq", &[&self.seq]).await?;
        let portal = Portal { http, base: self.at.portal.clone() };
        let events: Vec<(i64, String, Value)> = rows
            .iter()
            .map(|row| (row.get(0), row.get(1), serde_json::from_str(row.get(2)).unwrap_or_default()))
            .collect();
        if events.iter().zip(self.seq + 1..).any(|((seq, ..), must)| *seq != must) {
            wrong.push("I9 the seqs of the events have a gap".to_owned());
        }
        let told: Vec<&str> = events
            .iter()
            .filter(|(_, kind, _)| kind == "alert")
            .filter_map(|(.., data)| data["alert_id"].as_str())
            .filter(|id| ids.contains(*id))
            .collect();
        if told.len() != ids.len() || told.iter().collect::<BTreeSet<_>>().len() != ids.len() {
            wrong.push(format!("I5 lost or doubled: {} alerts were told, the history has {}", told.len(), ids.len()));
        }
        let middle = self.seq + events.len() as i64 / 2;
        for after in [self.seq, middle] {
            let frames = portal.frames(after as u64).await?;
            let frames = frames.iter().map(|frame| {
                (
                    frame["seq"].as_i64().unwrap_or(-1),
                    frame["type"].as_str().unwrap_or_default().to_owned(),
                    frame["data"].clone(),
                )
            });
            let frames: Vec<_> = frames.filter(|(seq, ..)| *seq <= self.seq + events.len() as i64).collect();
            if frames.iter().ne(events.iter().filter(|(seq, ..)| *seq > after)) {
                wrong.push(format!("I9 the stream after {after} tells {} events of {}", frames.len(), events.len()));
            }
        }
        Ok(())
    }
}

/// Received, stored, rejected, duplicate of every source.
async fn ledger(main: &tokio_postgres::Client) -> Result<[i64; 4]> {
    let sql =
        "select coalesce(sum(received), 0)::int8, coalesce(sum(stored), 0)::int8, coalesce(sum(rejected), 0)::int8,
        coalesce(sum(duplicate), 0)::int8 from ledger";
    let row = main.query_one(sql, &[]).await?;
    Ok(std::array::from_fn(|at| row.get(at)))
}

/// Notes how many there are, and one.
fn tell(wrong: &mut Vec<String>, what: &str, some: impl Iterator<Item = impl std::fmt::Debug>) {
    let mut some = some.peekable();
    if let Some(first) = some.peek() {
        let first = format!("{first:?}");
        wrong.push(format!("{what}: {}, e.g. {first}", some.count()));
    }
}
