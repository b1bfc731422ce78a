//! TLS for the replication client, whose own would bring a second library of cryptography, no authorities of the system and no
//! server named by its IP address (decision 0016).
//!
//! The client is led through a Unix socket in a folder that this user alone may enter. One connection is taken there, then
//! socket and folder are gone.

use super::super::tls::Tls;
use pgwire_replication::ReplicationConfig;
use std::{env, fs, io, os::unix::fs::DirBuilderExt, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split},
    net::UnixListener,
    time::timeout,
};
use uuid::Uuid;

/// Longest wait for the server, as for any connection to it.
const CONNECT: Duration = Duration::from_secs(3);
/// The client is of this process: it comes at once or not at all.
const COMES: Duration = Duration::from_secs(3);
/// How long a server that says nothing may take to hear that a session has ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// A configuration that leads to the same server, over TLS where its address asks for it.
///
/// # Errors
/// Nobody answers, the server has no TLS and must, or its certificate is not good.
pub(super) async fn over_tls(mut config: ReplicationConfig, tls: &Tls) -> io::Result<ReplicationConfig> {
    // A path to a Unix socket: the way leaves no machine.
    if config.is_unix_socket() {
        return Ok(config);
    }
    let opened = timeout(CONNECT, tls.open(&config.host, config.port)).await;
    let Some(server) = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? else { return Ok(config) };
    let folder = Folder::new()?;
    let socket = folder.0.join(format!(".s.PGSQL.{}", config.port));
    let listener = UnixListener::bind(&socket)
        .map_err(|error| io::Error::new(error.kind(), format!("listen at {}: {error}", socket.display())))?;
    config.host = folder.0.display().to_string();
    tokio::spawn(async move {
        let client = timeout(COMES, listener.accept()).await;
        drop((listener, folder));
        if let Ok(Ok((client, _))) = client {
            pass(client, server).await;
        }
    });
    Ok(config)
}

/// Passes everything on until either side ends.
async fn pass(client: impl AsyncRead + AsyncWrite, server: impl AsyncRead + AsyncWrite) {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = split(server);
    let ended = tokio::select! {
        ended = copy(&mut from_client, &mut to_server) => ended,
        ended = copy(&mut from_server, &mut to_client) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a replication session over TLS ended");
    }
    // The client sees the end of its socket, whatever comes of this.
    let _ = timeout(FAREWELL, to_server.shutdown()).await;
}

/// A folder of this user alone, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Folder> {
        let folder = env::temp_dir().join(format!("millwright-{}", Uuid::now_v7()));
        let made = fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| io::Error::new(error.kind(), format!("make {}: {error}", folder.display())))?;
        Ok(Folder(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "a folder for a replication session stays behind");
        }
    }
}
