//! What this machine can do: memory, fdatasync, loopback, and the limit L of the computation.

use super::{Better, Found, Row, product::own_cpu_seconds, workload};
use anyhow::{Context, Result};
use std::{
    hint::black_box,
    io::{Read, Write},
    time::{Duration, Instant},
};

/// Runs the drill.
pub fn run(seconds: u64) -> Result<Found> {
    let bodies = workload::SEED.bodies(200_000, 5000);
    let limit = limit(&bodies, seconds);
    let (p50, p99) = fdatasync()?;
    let rows = vec![
        Row::figure(
            "L: verified-key parse in place, exact integer windows, three laws, a small network (8-16-1); no class, no fallback",
            limit.per_cpu_second / 1e6,
            "M readings/CPU-s",
            Better::Higher,
        ),
        Row::figure("copy of memory, 64 MiB blocks", memory(), "GB/s", Better::Higher),
        Row::figure("append 4 KiB and fdatasync, p50", p50, "ms", Better::Lower),
        Row::figure("append 4 KiB and fdatasync, p99", p99, "ms", Better::Lower),
        Row::figure("loopback round trip of 64 bytes, p50", loopback()?, "ms", Better::Lower),
    ];
    let notes = vec![format!(
        "workload W1, 1,000 machines x 1 Hz, sha256 {}; {} broken readings found by L",
        workload::hash(&bodies),
        limit.broken
    )];
    Ok(Found { name: "floor", rows, notes })
}

/// The limit of the computation, with what it found, for parity.
pub struct Limit {
    /// Readings per CPU-second.
    pub per_cpu_second: f64,
    /// Readings of one pass over the bodies that break a law.
    pub broken: u64,
}

/// Decodes and judges the bodies again and again with code that knows this one class by heart.
pub fn limit(bodies: &[String], seconds: u64) -> Limit {
    let mut plant = ByHand::default();
    let broken: u64 = bodies.iter().map(|body| plant.take(body.as_bytes())).sum();
    let count: usize = bodies.iter().map(|body| body.lines().count()).sum();
    let (start, cpu) = (Instant::now(), own_cpu_seconds());
    let mut readings = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        for body in bodies {
            black_box(plant.take(body.as_bytes()));
        }
        readings += count;
    }
    Limit { per_cpu_second: readings as f64 / (own_cpu_seconds() - cpu), broken }
}

/// One machine's window of two channels.
struct Seconds {
    ring: [[i32; 60]; 2],
    sum: [i64; 2],
    squares: [i64; 2],
    newest: i64,
}

/// A plant of one class written by hand.
#[derive(Default)]
struct ByHand {
    machines: Vec<Seconds>,
}

impl ByHand {
    /// Takes a body; how many of its readings break a law.
    fn take(&mut self, body: &[u8]) -> u64 {
        let mut at = 0;
        let mut broken = 0;
        while at < body.len() {
            let (reading, next) = parse(body, at);
            at = next;
            broken += u64::from(self.judge(&reading));
        }
        broken
    }

    fn judge(&mut self, reading: &Parsed) -> bool {
        while self.machines.len() <= reading.machine {
            self.machines.push(Seconds {
                ring: [[0; 60]; 2],
                sum: [0; 2],
                squares: [0; 2],
                newest: reading.second - 60,
            });
        }
        let machine = &mut self.machines[reading.machine];
        let values = [reading.process, reading.rpm * 10];
        for second in machine.newest + 1..=reading.second.min(machine.newest + 60) {
            let place = (second % 60) as usize;
            for (channel, value) in values.into_iter().enumerate() {
                let value = if second == reading.second { value } else { 0 };
                let old = i64::from(machine.ring[channel][place]);
                machine.sum[channel] += i64::from(value) - old;
                machine.squares[channel] += i64::from(value) * i64::from(value) - old * old;
                machine.ring[channel][place] = value;
            }
        }
        machine.newest = machine.newest.max(reading.second);
        black_box(machine.sum);
        let decimal = |tenths: i32| f64::from(tenths) / 10.0;
        let power = decimal(reading.torque) * f64::from(reading.rpm) * 2.0 * std::f64::consts::PI / 60.0;
        let strain = decimal(reading.torque) * f64::from(reading.wear);
        let heat = decimal(reading.process) - decimal(reading.air) < 8.6 && reading.rpm < 1380;
        black_box(score([
            decimal(reading.air) as f32 / 300.0,
            decimal(reading.process) as f32 / 310.0,
            reading.rpm as f32 / 1500.0,
            decimal(reading.torque) as f32 / 40.0,
            reading.wear as f32 / 100.0,
            (power / 6000.0) as f32,
            (strain / 4000.0) as f32,
            machine.sum[0] as f32 / 180_000.0,
        ]));
        heat || !(3500.0..=9000.0).contains(&power) || strain > 11_000.0
    }
}

/// What stands for a model: eight inputs, sixteen hidden units, one output; its weights say nothing.
fn score(inputs: [f32; 8]) -> f32 {
    let mut hidden = [0.1f32; 16];
    for (nth, input) in inputs.into_iter().enumerate() {
        for (unit, value) in hidden.iter_mut().enumerate() {
            *value += input * (0.05 + 0.01 * ((nth * 7 + unit * 3) % 11) as f32);
        }
    }
    hidden.into_iter().fold(0.0, |sum, value| sum + 0.0625 * value.max(0.0))
}

/// A line in tenths.
struct Parsed {
    machine: usize,
    second: i64,
    air: i32,
    process: i32,
    rpm: i32,
    torque: i32,
    wear: i32,
}

/// Parses one line whose keys stand in the one order that the workload writes; each key is verified.
fn parse(body: &[u8], at: usize) -> (Parsed, usize) {
    let line = &body[at..];
    assert!(line.starts_with(b"{\"machine_id\":\"") && line[29..].starts_with(b"\",\"timestamp\":\""));
    let machine = line[23..29].iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
    let time = &line[44..];
    let two = |from: usize| i64::from(time[from] - b'0') * 10 + i64::from(time[from + 1] - b'0');
    // The workload stays within one month: days since its first.
    let second = two(8) * 86_400 + two(11) * 3600 + two(14) * 60 + two(17);
    let mut place = 44 + 20;
    let mut number = |key: &[u8]| {
        assert!(line[place..].starts_with(key));
        place += key.len();
        let mut value = 0i32;
        loop {
            match line[place] {
                digit @ b'0'..=b'9' => value = value * 10 + i32::from(digit - b'0'),
                b'.' => {}
                _ => return value,
            }
            place += 1;
        }
    };
    let air = number(b"\",\"air_temp_k\":");
    let process = number(b",\"process_temp_k\":");
    let rpm = number(b",\"rpm\":");
    let torque = number(b",\"torque_nm\":");
    let wear = number(b",\"tool_wear_min\":");
    (Parsed { machine, second, air, process, rpm, torque, wear }, at + place + 2)
}

/// GB/s of a copy.
fn memory() -> f64 {
    let from = vec![1u8; 64 << 20];
    let mut to = vec![0u8; 64 << 20];
    let start = Instant::now();
    for _ in 0..16 {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
    }
    16.0 * from.len() as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// (p50, p99) of an append of 4 KiB made durable, ms.
pub fn fdatasync() -> Result<(f64, f64)> {
    let mut file = tempfile::tempfile().context("make a file")?;
    let mut times: Vec<f64> = (0..200)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&[7; 4096])?;
            file.sync_data()?;
            Ok(start.elapsed().as_secs_f64() * 1e3)
        })
        .collect::<std::io::Result<_>>()
        .context("append and fdatasync")?;
    times.sort_by(f64::total_cmp);
    Ok((times[100], times[197]))
}

/// p50 of a round trip, ms.
fn loopback() -> Result<f64> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
    let address = listener.local_addr().context("listen on loopback")?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut bytes = [0; 64];
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes)?;
        }
        Ok(())
    });
    let mut stream = std::net::TcpStream::connect(address).context("connect on loopback")?;
    stream.set_nodelay(true).context("connect on loopback")?;
    let mut bytes = [7; 64];
    let mut times: Vec<f64> = (0..2000)
        .map(|_| {
            let start = Instant::now();
            stream.write_all(&bytes)?;
            stream.read_exact(&mut bytes)?;
            Ok(start.elapsed().as_secs_f64() * 1e3)
        })
        .collect::<std::io::Result<_>>()
        .context("round trip on loopback")?;
    drop(stream);
    echo.join().expect("the echo does not panic").context("echo on loopback")?;
    times.sort_by(f64::total_cmp);
    Ok(times[1000])
}
