//! A foreign producer: readings one a record, as arrays and as lines, some twice, some out of order, some refused.

use crate::input::{Lots, Plan, bad, json, machine_name};
use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Machines whose readings come this way.
pub const MACHINES: u64 = 30;
/// Between two sends of every machine's next seconds.
const TICK: Duration = Duration::from_millis(100);
/// Event-time seconds a tick in a burst.
const BURST: u64 = 30;
/// Records that may wait for the brokers.
const WAITING: i32 = 20_000;

/// What was sent.
pub struct Sent {
    /// Every machine has sent the seconds before this one.
    pub seconds: u64,
    /// Lines that must be refused.
    pub refused: Vec<String>,
    pub records: u64,
    /// By the live client: seconds of each of its machines that were answered 202.
    pub live: Vec<u64>,
}

/// A running producer.
pub struct Sender {
    stop: Arc<AtomicBool>,
    burst: Arc<AtomicBool>,
    thread: JoinHandle<Result<Sent>>,
}

/// Counts what the brokers did not take.
struct Failures(AtomicU64);

impl ClientContext for Failures {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            eprintln!("torture: not delivered to partition {}: {error}", message.partition());
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Sender {
    /// Sends `pace` event-time seconds of each machine a tick.
    pub fn start(brokers: &str, plan: Plan, client: u64, pace: u64) -> Result<Sender> {
        let mut config = ClientConfig::new();
        for (name, value) in [
            ("bootstrap.servers", brokers),
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("enable.gapless.guarantee", "true"),
            ("message.timeout.ms", "0"),
            ("partitioner", "murmur2_random"),
            ("linger.ms", "2"),
            ("retry.backoff.ms", "20"),
            ("reconnect.backoff.ms", "20"),
            ("reconnect.backoff.max.ms", "200"),
            ("topic.metadata.refresh.fast.interval.ms", "50"),
            ("retry.backoff.max.ms", "200"),
        ] {
            config.set(name, value);
        }
        let producer = config.create_with_context(Failures(AtomicU64::new(0))).context("make a producer")?;
        let (stop, burst) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (stopped, bursting) = (stop.clone(), burst.clone());
        let thread = std::thread::spawn(move || send(&producer, plan, client, pace, &stopped, &bursting));
        Ok(Sender { stop, burst, thread })
    }

    /// Far more than usual, so that every member of a group has something in hand at any moment.
    pub fn burst(&self, on: bool) {
        self.burst.store(on, Ordering::Relaxed);
    }

    /// Stops, once the brokers have all of it.
    pub fn finish(self) -> Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the producer panicked"))?
    }
}

fn send(
    producer: &BaseProducer<Failures>,
    plan: Plan,
    client: u64,
    pace: u64,
    stop: &AtomicBool,
    burst: &AtomicBool,
) -> Result<Sent> {
    let mut sent = Sent { seconds: 0, refused: Vec::new(), records: 0, live: Vec::new() };
    while !stop.load(Ordering::Relaxed) {
        let next = Instant::now() + TICK;
        if producer.in_flight_count() < WAITING {
            let pace = if burst.load(Ordering::Relaxed) { pace.max(BURST) } else { pace };
            for machine in 0..MACHINES {
                let name = machine_name(client, machine);
                for value in values(plan, client, machine, sent.seconds, pace, &mut sent.refused) {
                    let mut record = BaseRecord::to("sensor-raw-data").key(&name).payload(&value);
                    while let Err((error, again)) = producer.send(record) {
                        if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                            bail!("produce: {error}");
                        }
                        producer.poll(Duration::from_millis(10));
                        record = again;
                    }
                    sent.records += 1;
                }
            }
            sent.seconds += pace;
        }
        while Instant::now() < next {
            producer.poll(next.saturating_duration_since(Instant::now()));
        }
    }
    producer.flush(Duration::from_secs(60)).context("the brokers take what was sent")?;
    match producer.context().0.load(Ordering::Relaxed) {
        0 => Ok(sent),
        failed => bail!("{failed} records were not delivered"),
    }
}

/// The next seconds of a machine as values of records.
fn values(plan: Plan, client: u64, machine: u64, from: u64, count: u64, refused: &mut Vec<String>) -> Vec<String> {
    let mut lots =
        Lots(plan.seed ^ 0x5e4d ^ (client << 32) ^ (machine << 48) ^ from.wrapping_mul(0xa076_1d64_78bd_642f));
    let name = machine_name(client, machine);
    let mut seconds: Vec<u64> = (from..from + count).collect();
    // Neighbours swapped: out of order, inside the allowed lateness of 5 s.
    if count > 1 && lots.below(6) == 0 {
        let at = lots.below(count - 1) as usize;
        seconds.swap(at, at + 1);
    }
    let line = |second: u64| json(&name, &plan.reading(client, machine, second));
    let mut lines: Vec<String> = seconds.iter().map(|second| line(*second)).collect();
    // Sent again: at once, and when it is late by then.
    if lots.below(20) == 0 {
        lines.push(line(seconds[lots.below(count) as usize]));
    }
    if from > 60 && lots.below(40) == 0 {
        lines.push(line(from - 60));
    }
    let form = lots.below(8);
    // What cannot be parsed makes an array something else, so bad lines come among lines or alone.
    if form > 0 && lots.below(60) == 0 {
        let tag = format!("{client}.{from}.{machine}");
        let line = bad(&mut lots, &name, &tag, &plan.reading(client, machine, from));
        refused.push(line.clone());
        lines.push(line);
    }
    match form {
        0 => vec![format!("[{}]", lines.join(","))],
        1 => vec![lines.join("\n")],
        _ => lines,
    }
}
