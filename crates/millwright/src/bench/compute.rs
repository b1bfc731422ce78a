//! Decode, windows, laws and score on one core, against the limit L of the same run.

use super::{Better, Found, Row, floor, product::own_cpu_seconds, workload};
use anyhow::{Context, Result, bail};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Runs the drill.
pub fn run(seconds: u64) -> Result<Found> {
    // Most readings come after the cold start, in which fits are made.
    let bodies = workload::SEED.bodies(2_000_000, 5000);
    let limit = floor::limit(&bodies, seconds);
    let mut whole = Path::new();
    let broken: u64 = bodies.iter().map(|body| whole.take(body)).sum();
    if broken != limit.broken {
        bail!("NOT COMPARABLE: the engine found {broken} broken readings, the limit's arithmetic {}", limit.broken);
    }
    let python = python(&bodies)?;
    let figures = Stage::ALL.map(|stage| stage.measure(&bodies, seconds));
    let [decode, path] = figures;
    let mut notes = vec![format!(
        "workload W1, sha256 {}; parity: {broken} broken readings found by each",
        workload::hash(&bodies)
    )];
    let mut rows = vec![
        Row::figure("L, the limit in this run", limit.per_cpu_second / 1e6, "M readings/CPU-s", Better::Higher),
        Row::figure("decode alone", decode / 1e6, "M readings/CPU-s", Better::Higher),
        Row::figure("decode, order, windows, bands, laws, conditions", path / 1e6, "M readings/CPU-s", Better::Higher),
        Row::goal("G1", "share of L", 100.0 * path / limit.per_cpu_second, "% of L", Better::Higher, 25.0, 50.0),
    ];
    match python {
        None => notes.push("no python3 on this machine: the Python stack was not measured".to_owned()),
        Some(python) if python.broken != broken => {
            bail!("NOT COMPARABLE: the Python stack found {} broken readings, the engine {broken}", python.broken)
        }
        Some(python) => {
            rows.push(Row::figure(
                "the seed's stack in Python, batched, in memory",
                python.per_cpu_second / 1e6,
                "M readings/CPU-s",
                Better::Higher,
            ));
            rows.push(Row::goal(
                "G1",
                "times the Python stack",
                path / python.per_cpu_second,
                "x",
                Better::Higher,
                10.0,
                20.0,
            ));
            notes.push(format!("bench/python_stack.py with {}", python.made_of));
        }
    }
    Ok(Found { name: "compute", rows, notes })
}

/// What the Python stack did with the same lines.
struct Python {
    per_cpu_second: f64,
    broken: u64,
    made_of: String,
}

/// Runs `bench/python_stack.py`, whose text is built in; `None` without a python3.
fn python(bodies: &[String]) -> Result<Option<Python>> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let (script, lines) = (folder.path().join("stack.py"), folder.path().join("lines"));
    std::fs::write(&script, include_str!("../../../../bench/python_stack.py")).context("write the Python stack")?;
    std::fs::write(&lines, bodies.concat()).context("write its input")?;
    let interpreter = std::env::var("MILLWRIGHT_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let Ok(ran) = std::process::Command::new(interpreter).arg(&script).arg(&lines).output() else { return Ok(None) };
    let told: serde_json::Value = serde_json::from_slice(&ran.stdout).context("run the Python stack")?;
    Ok(Some(Python {
        per_cpu_second: told["readings_per_cpu_second"].as_f64().context("run the Python stack")?,
        broken: told["broken"].as_u64().context("run the Python stack")?,
        made_of: format!(
            "Python {}, {}",
            told["python"].as_str().unwrap_or("?"),
            told["decoder"].as_str().unwrap_or("?")
        ),
    }))
}

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Decode,
    Whole,
}

impl Stage {
    const ALL: [Stage; 2] = [Stage::Decode, Stage::Whole];

    /// Readings per CPU-second.
    fn measure(self, bodies: &[String], seconds: u64) -> f64 {
        let mut path = Path::new();
        let count: usize = bodies.iter().map(|body| body.lines().count()).sum();
        let (start, cpu) = (Instant::now(), own_cpu_seconds());
        let mut readings = 0;
        while start.elapsed() < Duration::from_secs(seconds) {
            // A pass begins with fresh machines: the same log twice would be late, not judged.
            path = Path { decoder: path.decoder, ..Path::new() };
            for body in bodies {
                match self {
                    Stage::Decode => {
                        std::hint::black_box(path.decode(body));
                    }
                    Stage::Whole => {
                        std::hint::black_box(path.take(body));
                    }
                }
            }
            readings += count;
        }
        readings as f64 / (own_cpu_seconds() - cpu)
    }
}

/// The product's own path without bus and store.
struct Path {
    decoder: wire::Decoder,
    engines: Vec<engine::Engine>,
    offsets: Vec<i64>,
    effects: engine::Effects,
}

impl Path {
    fn new() -> Path {
        let catalogue = Arc::new(catalog::Catalogue::builtin());
        Path {
            decoder: wire::Decoder::new(catalogue.clone(), wire::READINGS_PARTITIONS),
            engines: (0..wire::READINGS_PARTITIONS)
                .map(|partition| engine::Engine::new(partition, catalogue.clone()))
                .collect(),
            offsets: vec![0; usize::from(wire::READINGS_PARTITIONS)],
            effects: engine::Effects::default(),
        }
    }

    fn decode(&mut self, body: &str) -> wire::Decoded {
        let arrived_us = (workload::START_S + 86_400) * 1_000_000;
        self.decoder.decode(body.as_bytes(), wire::Framing::Lines, arrived_us, &|_| None).expect("lines are readings")
    }

    /// Takes a body; how many of its readings broke a law, by the conditions raised and what the workload does to them.
    fn take(&mut self, body: &str) -> u64 {
        let decoded = self.decode(body);
        assert!(decoded.rejects.is_empty(), "the workload is clean");
        for (partition, mut batch) in decoded.batches {
            let at = usize::from(partition);
            batch.spans = vec![wire::Span {
                first_row: 0,
                offset: self.offsets[at],
                arrived_us: (workload::START_S + 86_400) * 1_000_000,
                source: "bench".into(),
            }];
            self.offsets[at] += 1;
            self.engines[at].apply(engine::Input::Readings(&batch), &mut self.effects);
        }
        let raised = self.effects.alerts.iter().filter(|alert| alert.kind == wire::Kind::Raised).count();
        self.effects = engine::Effects::default();
        raised as u64
    }
}
