//! `millwright up` in a folder of its own on a port of its own, gone when the test is.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Longest that anything may take here: far above what a quiet machine needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub fn millwright() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millwright"));
    // The surroundings of whoever runs the tests must not decide what they show.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MILLWRIGHT_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(args: &[&str]) -> Output {
    millwright().args(args).output().unwrap()
}

/// A running `up`.
pub struct Up {
    child: Option<Child>,
    pub folder: PathBuf,
    _own: Option<tempfile::TempDir>,
    pub port: u16,
    /// What it has printed until it was ready.
    pub greeting: Vec<String>,
}

impl Up {
    /// Starts in a folder of its own.
    pub fn start(flags: &[&str]) -> Up {
        let own = tempfile::tempdir().unwrap();
        let mut up = Up::start_in(own.path().to_owned(), flags);
        up._own = Some(own);
        up
    }

    /// Starts on a folder that may hold data already.
    pub fn start_in(folder: PathBuf, flags: &[&str]) -> Up {
        let mut command = millwright();
        command.args(["up", "--port", "0", "--data-dir"]).arg(&folder).args(flags);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut greeting = Vec::new();
        let port = loop {
            let line = lines.next().expect("`up` says where it listens before it ends").unwrap();
            greeting.push(line.clone());
            if let Some(rest) = line.split("http://127.0.0.1:").nth(1) {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break digits.parse().unwrap();
            }
        };
        // What it prints from here on must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let up = Up { child: Some(child), folder, _own: None, port, greeting };
        wait_for("readiness", || up.request("GET", "/readyz", "", b"").0 == 200);
        up
    }

    /// One request: (status, body).
    pub fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A refusal may come before the whole body has been read.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        (status, if chunked { unchunked(body) } else { body.to_owned() })
    }

    /// A GET that must be JSON.
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.request("GET", path, "", b"");
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Posts JSON lines, again while it is told to come later.
    pub fn lines(&self, body: &str) -> Value {
        let start = Instant::now();
        loop {
            let (status, told) = self.request("POST", "/api/readings", "application/x-ndjson", body.as_bytes());
            match status {
                202 => return serde_json::from_str(&told).unwrap(),
                429 | 503 if start.elapsed() < PATIENCE => std::thread::yield_now(),
                _ => panic!("POST /api/readings: {status} {told}"),
            }
        }
    }

    /// Every row of a paged list.
    pub fn pages(&self, path: &str, key: &str) -> Vec<Value> {
        let sign = if path.contains('?') { '&' } else { '?' };
        let mut rows = Vec::new();
        let mut cursor = String::new();
        loop {
            let mut page = self.get(&format!("{path}{sign}limit=1000{cursor}"));
            let some = page[key].as_array_mut().map(std::mem::take).unwrap_or_default();
            let empty = some.is_empty();
            rows.extend(some);
            match page["next_cursor"].as_str() {
                Some(next) if !empty => cursor = format!("&cursor={next}"),
                _ => return rows,
            }
        }
    }

    /// A sum over the sources of the ledger, which must balance.
    pub fn ledger(&self) -> impl Fn(&str) -> u64 {
        let ledger = self.get("/api/ledger");
        assert_eq!(ledger["balanced"], true, "{ledger}");
        let sum = move |key: &str| -> u64 {
            ledger["sources"].as_array().into_iter().flatten().filter_map(|source| source[key].as_u64()).sum()
        };
        assert_eq!(sum("received"), sum("stored") + sum("rejected") + sum("duplicate"));
        sum
    }

    /// SIGTERM; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        end(self.child.take().unwrap())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Up {
    /// In good order, which every test shows so; where one failed already, at once.
    fn drop(&mut self) {
        if let Some(child) = self.child.take_if(|_| !std::thread::panicking()) {
            assert_eq!(end(child), Some(0), "SIGTERM");
        }
        self.kill();
    }
}

/// SIGTERM; the exit code.
pub fn end(mut child: Child) -> Option<i32> {
    let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    child.wait().unwrap().code()
}

/// Asks again until something holds.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn unchunked(body: &str) -> String {
    let mut text = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = after.get(..size).filter(|_| size > 0) else { break };
        text += chunk;
        rest = after.get(size + 2..).unwrap_or("");
    }
    text
}
