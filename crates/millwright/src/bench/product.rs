//! This very binary as the thing that is measured: started, spoken to over HTTP, its CPU and memory read from /proc.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running `millwright up` in a folder of its own.
pub struct Product {
    child: Child,
    _folder: tempfile::TempDir,
    /// Port of its HTTP.
    pub port: u16,
    /// From exec to the first answer of /readyz, seconds.
    pub ready_s: f64,
}

impl Product {
    /// Starts `millwright up` with more flags and waits until it is ready.
    pub fn start(flags: &[&str]) -> Result<Product> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let bin = std::env::current_exe().context("find this program")?;
        let port = free_port()?;
        let start = Instant::now();
        let child = Command::new(bin)
            .args(["up", "--port", &port.to_string(), "--data-dir"])
            .arg(folder.path())
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the product")?;
        let mut product = Product { child, _folder: folder, port, ready_s: 0.0 };
        while start.elapsed() < Duration::from_secs(20) {
            if let Ok((200, _)) = product.get("/readyz") {
                product.ready_s = start.elapsed().as_secs_f64();
                return Ok(product);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("the product is not ready after 20 s")
    }

    /// CPU-seconds of all its threads so far.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(&self.child.id().to_string())
    }

    /// Resident memory, MB.
    pub fn rss_mb(&self) -> f64 {
        rss_mb(self.child.id())
    }

    /// One GET on a connection of its own: (status, body).
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        Http::connect(self.port)?.request("GET", path, b"")
    }

    /// One GET that must be JSON.
    pub fn json(&self, path: &str) -> Result<Value> {
        let (status, body) = self.get(path)?;
        if status != 200 {
            bail!("GET {path}: {status} {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("GET {path}"))
    }

    /// Waits until the ledger has stored so many readings and nothing is in flight; seconds waited.
    pub fn wait_stored(&self, stored: u64) -> Result<f64> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(120) {
            let ledger = self.json("/api/ledger")?;
            let sum = |key: &str| -> u64 {
                ledger["sources"].as_array().into_iter().flatten().filter_map(|source| source[key].as_u64()).sum()
            };
            if sum("stored") == stored && sum("in_flight") == 0 {
                return Ok(start.elapsed().as_secs_f64());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("the ledger does not reach {stored} stored readings")
    }

    /// Waits until so many conditions of a failure type have been raised, so that detection has passed what raises them.
    pub fn wait_raised(&self, failure_type: &str, count: usize) -> Result<()> {
        let start = Instant::now();
        let mut raised = 0;
        while start.elapsed() < Duration::from_secs(60) {
            raised = 0;
            let mut cursor = String::new();
            loop {
                let page = self.json(&format!("/api/alerts?failure_type={failure_type}&limit=1000{cursor}"))?;
                let alerts = page["alerts"].as_array().map_or(&[][..], Vec::as_slice);
                raised += alerts.iter().filter(|alert| alert["kind"] == "raised").count();
                match page["next_cursor"].as_str() {
                    Some(next) if !alerts.is_empty() => cursor = format!("&cursor={next}"),
                    _ => break,
                }
            }
            if raised >= count {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("NOT COMPARABLE: {raised} conditions were raised on a workload with {count} broken readings")
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // It may have ended by itself; nothing else can be done about it here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of loopback that is free now.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

/// CPU-seconds of this process.
pub fn own_cpu_seconds() -> f64 {
    cpu_seconds("self")
}

/// Resident memory of a process, MB.
pub fn rss_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime and stime; Linux counts them in hundredths of a second on every platform it runs on.
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// A kept-alive HTTP/1.1 connection that costs the sender next to nothing, so that what is measured is the product.
pub struct Http {
    stream: BufReader<TcpStream>,
}

impl Http {
    /// Connects to loopback.
    pub fn connect(port: u16) -> Result<Http> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connect to the product")?;
        stream.set_nodelay(true).context("connect to the product")?;
        Ok(Http { stream: BufReader::new(stream) })
    }

    /// Sends a request and reads its answer: (status, body).
    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(u16, String)> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let stream = self.stream.get_mut();
        if body.len() < 4096 {
            stream.write_all(&[head.as_bytes(), body].concat()).context("send a request")?;
        } else {
            stream.write_all(head.as_bytes()).context("send a request")?;
            stream.write_all(body).context("send a request")?;
        }
        let mut line = String::new();
        self.stream.read_line(&mut line).context("read an answer")?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).context("read an answer")?;
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line).context("read an answer")?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().context("read an answer")?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).context("read an answer")?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Opens the event stream on this connection: the frames that follow, one JSON document each.
    pub fn events(mut self) -> Result<impl Iterator<Item = String>> {
        let head = "GET /api/events HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n";
        self.stream.get_mut().write_all(head.as_bytes()).context("open the event stream")?;
        let mut line = String::new();
        self.stream.read_line(&mut line).context("open the event stream")?;
        if !line.contains(" 200") {
            bail!("the event stream answers {line}");
        }
        Ok(self
            .stream
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("data:").map(|data| data.trim().to_owned())))
    }

    /// Makes a WebSocket of this connection: the text frames that follow.
    pub fn websocket(mut self) -> Result<impl Iterator<Item = String>> {
        let head = "GET /ws HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        self.stream.get_mut().write_all(head.as_bytes()).context("open the WebSocket")?;
        let mut line = String::new();
        self.stream.read_line(&mut line).context("open the WebSocket")?;
        if !line.contains(" 101") {
            bail!("the WebSocket answers {line}");
        }
        while !line.trim().is_empty() {
            line.clear();
            self.stream.read_line(&mut line).context("open the WebSocket")?;
        }
        Ok(std::iter::from_fn(move || {
            loop {
                let mut start = [0; 2];
                self.stream.read_exact(&mut start).ok()?;
                let mut long = [0; 8];
                let length = match start[1] & 0x7f {
                    126 => {
                        self.stream.read_exact(&mut long[6..]).ok()?;
                        u64::from_be_bytes(long)
                    }
                    127 => {
                        self.stream.read_exact(&mut long).ok()?;
                        u64::from_be_bytes(long)
                    }
                    short => short.into(),
                };
                let mut payload = vec![0; length as usize];
                self.stream.read_exact(&mut payload).ok()?;
                if start[0] & 0x0f == 1 {
                    return String::from_utf8(payload).ok();
                }
            }
        }))
    }
}
