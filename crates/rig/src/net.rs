//! Ports, and the few bytes each engine needs to show that it answers.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Mutex, PoisonError},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(2);
/// Below the range from which the kernel takes the ports of outgoing connections: such a connection could take the port of a process
/// that is just being restarted.
const PORTS: std::ops::Range<u64> = 12_000..32_000;

/// A random loopback port that nobody listens on, given out once.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = PORTS.start + RandomState::new().build_hasher().finish() % (PORTS.end - PORTS.start);
        let port = u16::try_from(port).expect("the range lies below 65,536");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && given.insert(port) {
            return port;
        }
    }
}

/// Sends bytes and reads an answer of at least so many.
fn exchange(port: u16, request: &[u8], answer: &mut [u8]) -> io::Result<()> {
    let mut stream = connect(port)?;
    stream.write_all(request)?;
    stream.read_exact(answer)
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whether a Redis server takes commands.
pub fn redis_answers(port: u16) -> bool {
    let mut answer = [0; 5];
    exchange(port, b"PING\r\n", &mut answer).is_ok() && &answer == b"+PONG"
}

/// How many brokers this one knows of, once it serves requests (Metadata, version 1, of no topic).
pub fn kafka_brokers(port: u16) -> Option<u32> {
    let request = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
    let mut answer = [0; 12];
    exchange(port, &request, &mut answer).ok()?;
    Some(u32::from_be_bytes([answer[8], answer[9], answer[10], answer[11]]))
}

/// One HTTP request to `http://host:port`; status and body.
pub fn http(method: &str, base: &str, path: &str, body: Option<&Value>) -> Result<(u16, String)> {
    let host = base.strip_prefix("http://").context("the address does not begin with http://")?;
    let port = host.rsplit_once(':').context("the address has no port")?.1.parse()?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = connect(port)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("{base} gave no HTTP answer") };
    let status = head.split(' ').nth(1).context("the answer has no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// Whether a GET is answered with 200.
pub fn http_ok(base: &str, path: &str) -> bool {
    http("GET", base, path, None).is_ok_and(|(status, _)| status == 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_given_once() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| PORTS.contains(&u64::from(*port))));
        let _listeners: Vec<TcpListener> =
            ports.iter().map(|port| TcpListener::bind(("127.0.0.1", *port)).unwrap()).collect();
    }

    #[test]
    fn a_server_that_says_something_else_does_not_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for answer in ["+PONG\r\n", "-LOADING\r\n", "HTTP/1.1 503 No\r\n\r\nnot yet"] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert!(redis_answers(port));
        assert!(!redis_answers(port));
        assert_eq!(http("GET", &format!("http://127.0.0.1:{port}"), "/", None).unwrap(), (503, "not yet".to_owned()));
        server.join().unwrap();
        assert!(!redis_answers(port), "nobody listens");
    }
}
