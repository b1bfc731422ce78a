//! Certificates for engines that are reached over TLS, by the `openssl` program, for this rig alone.

use crate::{folder::Folder, process::run};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The user that engines know by password or by certificate.
pub const USER: &str = "millwright";
/// Its password. Whoever can reach these engines may use it.
pub const PASSWORD: &str = "for-tests-only";

/// Whole: the system's own file has extensions that a server's certificate must not have.
const CONFIGURATION: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost, IP:127.0.0.1
extendedKeyUsage = serverAuth, clientAuth
[client]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = clientAuth
";

/// A folder of PEM files: `ca`, `server` and `client` signed by it, each with its key, and `stranger`, an authority that signed nothing.
#[derive(Debug, Clone)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Those of a rig, made where there are none yet.
    pub fn of(folder: &Folder) -> Result<Certificates> {
        let certificates = Certificates { folder: folder.at("tls") };
        if !certificates.folder.exists() {
            let partial = folder.at("tls.new");
            let _ = fs::remove_dir_all(&partial);
            fs::create_dir_all(&partial)?;
            make(&partial).context("make certificates")?;
            fs::rename(&partial, &certificates.folder)?;
        }
        Ok(certificates)
    }

    /// Where they lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of one, as text.
    pub fn at(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

fn make(folder: &Path) -> Result<()> {
    fs::write(folder.join("openssl.cnf"), CONFIGURATION)?;
    let sign = |name: &str, kind: &str, subject: &str| {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(folder).args(["req", "-x509", "-config", "openssl.cnf", "-extensions", kind, "-noenc"]);
        openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "30"]);
        openssl.args([
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.pem"),
            "-subj",
            &format!("/CN={subject}"),
        ]);
        if kind != "authority" {
            openssl.args(["-CA", "ca.pem", "-CAkey", "ca.key"]);
        }
        run(&mut openssl)
    };
    sign("ca", "authority", "Millwright's authority for tests")?;
    sign("stranger", "authority", "An authority that signed nothing")?;
    sign("server", "server", "localhost")?;
    sign("client", "client", USER)?;
    // As Kafka wants it: key and chain in one file.
    let chain = ["server.key", "server.pem", "ca.pem"].map(|name| fs::read_to_string(folder.join(name)));
    fs::write(folder.join("server.chain"), chain.into_iter().collect::<std::io::Result<String>>()?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_clients_are_known_by_their_authority() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(temp.path()).unwrap();
        let certificates = Certificates::of(&folder).unwrap();
        let verify = |authority: &str, name: &str| {
            let args = ["verify", "-CAfile", authority, name];
            run(Command::new("openssl").current_dir(certificates.folder()).args(args)).is_ok()
        };
        assert!(verify("ca.pem", "server.pem") && verify("ca.pem", "client.pem"));
        assert!(!verify("stranger.pem", "server.pem"));
        let before = fs::read(certificates.at("server.pem")).unwrap();
        Certificates::of(&folder).unwrap();
        assert_eq!(fs::read(certificates.at("server.pem")).unwrap(), before, "they are made once");
    }
}
