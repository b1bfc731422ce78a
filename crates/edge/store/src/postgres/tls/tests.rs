//! What an address says of TLS, and what a real PostgreSQL and servers that play one make of it.

use super::{super::pool, *};
use crate::postgres::outbox_log;
use std::time::Duration;
use tokio::{io::copy_bidirectional, net::TcpListener, time::timeout};

const URL: &str = "postgresql://mw@db:5432/plant";

fn mode(query: &str) -> Result<Mode, Error> {
    let (_, parameters) = take_out(&format!("{URL}{query}"))?;
    Ok(Tls::new(parameters, Mode::Prefer)?.mode)
}

fn refused(query: &str) -> String {
    mode(query).map(Mode::name).unwrap_err().to_string()
}

#[test]
fn what_is_said_of_tls_is_taken_out_of_an_address() {
    let taken = take_out(&format!(
        "{URL}?connect_timeout=3&sslmode=verify-ca&sslrootcert=/etc/my%20plant/ca.pem&sslcert=c&application_name=x&sslkey=k"
    ));
    let (rest, parameters) = taken.unwrap();
    assert_eq!(rest, format!("{URL}?connect_timeout=3&application_name=x"));
    let wanted = Parameters {
        mode: Some(Mode::VerifyCa),
        root: Some("/etc/my plant/ca.pem".to_owned()),
        certificate: Some("c".to_owned()),
        key: Some("k".to_owned()),
    };
    assert_eq!(parameters, wanted);
    assert_eq!(take_out(&format!("{URL}?sslmode=require")).unwrap().0, URL);
    let older = "host=db sslmode=require";
    assert_eq!(take_out(older).unwrap(), (older.to_owned(), Parameters::default()));
    assert_eq!(address(older, Which::Main).unwrap().1.mode, Mode::Require);
    assert_eq!(address("host=db", Which::Main).unwrap().1.mode, Mode::Prefer);
}

#[test]
fn what_would_be_less_than_it_looks_is_refused() {
    assert_eq!(mode("").unwrap(), Mode::Prefer);
    assert_eq!(mode("?sslmode=disable").unwrap(), Mode::Disable);
    assert_eq!(refused("?sslmode=allow"), "sslmode=allow is none of disable, prefer, require, verify-ca, verify-full");
    assert_eq!(
        refused("?sslmode=prefer&sslrootcert=ca.pem"),
        "sslrootcert has no effect with sslmode=prefer: write sslmode=verify-full"
    );
    assert!(refused("?sslcert=c.pem&sslkey=k.pem").starts_with("sslcert has no effect"));
    assert_eq!(refused("?sslmode=require&sslcert=c.pem"), "sslcert and sslkey go together");
    for query in ["?sslmode=verify-ca", "?sslmode=verify-ca&sslrootcert=system", "?sslmode=require&sslrootcert=system"]
    {
        assert!(refused(query).starts_with("sslmode=verify-ca wants an authority of your own"), "{query}");
    }
    assert!(refused("?sslmode=verify-full&sslrootcert=/no/such.pem").starts_with("read /no/such.pem: "));
    let empty = tempfile::NamedTempFile::new().unwrap();
    let query = format!("?sslrootcert={}", empty.path().display());
    assert_eq!(refused(&query), format!("{} holds no certificate (PEM)", empty.path().display()));
    assert_eq!(refused("?sslmode=%ff"), "sslmode is not percent-encoded UTF-8");
}

/// The address of the AI database and the folder of its certificates, where tests have engines.
fn engine() -> Option<(String, String)> {
    let found = ["MILLWRIGHT_TEST_POSTGRES_AI", "MILLWRIGHT_TEST_TLS"].map(std::env::var);
    let required = std::env::var_os("MILLWRIGHT_TEST_REQUIRED").is_some();
    let [Ok(url), Ok(folder)] = found else {
        assert!(!required, "MILLWRIGHT_TEST_TLS is not set");
        println!("skipped: MILLWRIGHT_TEST_TLS is not set (./dev services start)");
        return None;
    };
    Some((url, folder))
}

/// Whether a session over this address is encrypted, and whose it is.
async fn session(url: &str) -> Result<(bool, String), String> {
    let client = pool::connect(url, Which::Ai).await.map_err(|error| dependency::chain(&error))?;
    let sql = "select ssl, current_user::text from pg_stat_ssl where pid = pg_backend_pid()";
    let row = client.query_one(sql, &[]).await.map_err(|error| dependency::chain(&error))?;
    Ok((row.get(0), row.get(1)))
}

/// The same of a relay's.
async fn relay(url: &str) -> Result<(), String> {
    let slot = format!("mw_test_{}", uuid::Uuid::now_v7().simple());
    let mut session = outbox_log::Session::connect(url, &slot).await.map_err(|error| dependency::chain(&error))?;
    session.cluster().await.map(|_| ()).map_err(|error| dependency::chain(&error))
}

#[tokio::test]
async fn a_server_is_trusted_as_far_as_its_address_says() {
    let Some((url, folder)) = engine() else { return };
    // By this name the certificate does not know the server.
    let other_name = forward(&url).await;
    let ca = format!("sslrootcert={folder}/ca.pem");
    let stranger = format!("sslrootcert={folder}/stranger.pem");
    for (url, query, wanted) in [
        (&url, "sslmode=disable".to_owned(), Ok(false)),
        (&url, "sslmode=prefer".to_owned(), Ok(true)),
        (&url, "sslmode=require".to_owned(), Ok(true)),
        (&url, format!("sslmode=verify-full&{ca}"), Ok(true)),
        (&url, ca.clone(), Ok(true)),
        (&url, format!("sslmode=verify-full&{stranger}"), Err("UnknownIssuer")),
        (&url, format!("sslmode=verify-ca&{stranger}"), Err("UnknownIssuer")),
        (&url, format!("sslmode=require&{stranger}"), Err("UnknownIssuer")),
        (&url, "sslmode=verify-full&sslrootcert=system".to_owned(), Err("UnknownIssuer")),
        (&other_name, format!("sslmode=verify-full&{ca}"), Err("not valid for name")),
        (&other_name, format!("sslmode=verify-ca&{ca}"), Ok(true)),
        (&other_name, "sslmode=require".to_owned(), Ok(true)),
    ] {
        let url = format!("{url}?{query}");
        let found = session(&url).await;
        let streamed = relay(&url).await;
        match wanted {
            Ok(encrypted) => {
                assert_eq!(found.as_ref().map(|(found, _)| *found), Ok(encrypted), "{url}");
                assert_eq!(streamed, Ok(()), "{url}");
            }
            Err(what) => {
                for told in [found.map(|_| ()), streamed] {
                    assert!(told.as_ref().is_err_and(|told| told.contains(what)), "{url}: {told:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let Some((url, folder)) = engine() else { return };
    let url = url.replace("//postgres@", "//millwright@");
    let trusted = format!("sslmode=verify-full&sslrootcert={folder}/ca.pem");
    let own = format!("{url}?{trusted}&sslcert={folder}/client.pem&sslkey={folder}/client.key");
    assert_eq!(session(&own).await, Ok((true, "millwright".to_owned())));
    assert_eq!(relay(&own).await, Ok(()));
    for wrong in [format!("{url}?{trusted}"), format!("{url}?sslmode=disable")] {
        assert!(session(&wrong).await.is_err() && relay(&wrong).await.is_err(), "{wrong}");
    }
}

/// The same server under another loopback address.
async fn forward(url: &str) -> String {
    let (before, after) = url.split_once("127.0.0.1:").expect("engines of tests listen there");
    let (port, after) = after.split_once('/').unwrap();
    let port: u16 = port.parse().unwrap();
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    format!("{before}{place}/{after}")
}

/// What a client says to a server without TLS, after that was told; nothing where it leaves.
async fn said_in_the_open(query: &str, by_relay: bool) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgresql://mw:secret@{}/plant?{query}", listener.local_addr().unwrap());
    let client =
        tokio::spawn(async move { if by_relay { relay(&url).await } else { session(&url).await.map(|_| ()) } });
    let mut heard = 0;
    // A client that may go on without TLS may also come a second time to do so.
    while let Ok(Ok((mut stream, _))) = timeout(Duration::from_millis(500), listener.accept()).await {
        let mut first = [0; 8];
        stream.read_exact(&mut first).await.unwrap();
        if first == SSL_REQUEST {
            stream.write_all(b"N").await.unwrap();
            heard += stream.read(&mut [0; 64]).await.unwrap_or(0);
        } else {
            heard += first.len();
        }
    }
    assert!(timeout(Duration::from_secs(10), client).await.unwrap().unwrap().is_err(), "nobody answered it");
    heard
}

#[tokio::test]
async fn a_server_without_tls_hears_nothing_where_there_must_be_some() {
    for by_relay in [false, true] {
        for query in ["sslmode=require", "sslmode=verify-full"] {
            assert_eq!(said_in_the_open(query, by_relay).await, 0, "{query} {by_relay}");
        }
        assert!(said_in_the_open("sslmode=prefer", by_relay).await > 0, "{by_relay}");
    }
}
