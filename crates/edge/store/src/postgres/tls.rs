//! TLS to a database, as the parameters of its address ask for it; their names and meanings are libpq's
//! (PostgreSQL's documentation, "SSL Support" of libpq).
//!
//! | parameter | meaning |
//! |---|---|
//! | `sslmode` | `disable`, `prefer`, `require`, `verify-ca`, `verify-full` |
//! | `sslrootcert` | authorities (PEM), or `system`, as without it |
//! | `sslcert`, `sslkey` | the client's certificate and its key (PEM) |
//!
//! Three differences, all stricter: where only `sslrootcert` is given the mode is `verify-full`; a parameter that the mode would
//! ignore is refused; and so is `verify-ca` by the system's authorities, from whom anybody has a certificate.

use super::{Error as PostgresError, Which};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use std::{io, path::Path, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_postgres::{Config, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What asks a server whether it has TLS: a length of 8 and the code 80877103 (PostgreSQL's documentation, "Message Formats").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Why an address cannot be used with TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("sslmode={0} is none of disable, prefer, require, verify-ca, verify-full")]
    Mode(String),
    #[error("{0} has no effect with sslmode={1}: write sslmode=verify-full")]
    Idle(&'static str, &'static str),
    #[error(
        "sslmode=verify-ca wants an authority of your own (sslrootcert); with the system's write sslmode=verify-full"
    )]
    Weak,
    #[error("sslcert and sslkey go together")]
    Half,
    #[error("{0} is not percent-encoded UTF-8")]
    Encoding(String),
    #[error("read {0}: {1}")]
    File(String, String),
    #[error("{0} holds no certificate (PEM)")]
    Empty(String),
    #[error("the system has no authorities to check certificates against; name some with sslrootcert")]
    NoAuthorities,
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// How far a server's certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Disable => "disable",
            Mode::Prefer => "prefer",
            Mode::Require => "require",
            Mode::VerifyCa => "verify-ca",
            Mode::VerifyFull => "verify-full",
        }
    }

    fn of(text: &str) -> Option<Mode> {
        let all = [Mode::Disable, Mode::Prefer, Mode::Require, Mode::VerifyCa, Mode::VerifyFull];
        all.into_iter().find(|mode| mode.name() == text)
    }
}

/// What an address says of TLS.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    mode: Option<Mode>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

/// Takes what is said of TLS out of an address, which the client then reads.
fn take_out(url: &str) -> Result<(String, Parameters), Error> {
    let mut parameters = Parameters::default();
    let Some((place, query)) = url.split_once('?').filter(|(place, _)| place.contains("://")) else {
        return Ok((url.to_owned(), parameters));
    };
    let mut rest = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = || {
            let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
            decoded.map(|text| text.into_owned()).map_err(|_| Error::Encoding(name.to_owned()))
        };
        match name {
            "sslmode" => parameters.mode = Some(Mode::of(&text()?).ok_or_else(|| Error::Mode(value.to_owned()))?),
            "sslrootcert" => parameters.root = Some(text()?),
            "sslcert" => parameters.certificate = Some(text()?),
            "sslkey" => parameters.key = Some(text()?),
            _ => rest.push(pair),
        }
    }
    let rest = if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) };
    Ok((rest, parameters))
}

/// Makes the TLS sessions to one database.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    mode: Mode,
}

/// Reads an address.
pub(super) fn address(url: &str, which: Which) -> Result<(Config, Tls), PostgresError> {
    let wrong = |source| PostgresError::Tls { which, source };
    let (rest, parameters) = take_out(url).map_err(wrong)?;
    let mut config: Config = rest.parse().map_err(|source| PostgresError::Address { which, source })?;
    // An address in the older form, `host=... sslmode=...`, has told it to the client.
    let told = match config.get_ssl_mode() {
        SslMode::Disable => Mode::Disable,
        SslMode::Require => Mode::Require,
        _ => Mode::Prefer,
    };
    let tls = Tls::new(parameters, told).map_err(wrong)?;
    config.ssl_mode(match tls.mode {
        Mode::Disable => SslMode::Disable,
        Mode::Prefer => SslMode::Prefer,
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
    });
    Ok((config, tls))
}

impl Tls {
    fn new(parameters: Parameters, told: Mode) -> Result<Tls, Error> {
        let Parameters { mode, root, certificate, key } = parameters;
        let mode = match (mode, &root) {
            // As libpq has it: with authorities at hand they are asked.
            (Some(Mode::Require), Some(_)) => Mode::VerifyCa,
            (None, Some(_)) => Mode::VerifyFull,
            (mode, _) => mode.unwrap_or(told),
        };
        let open = matches!(mode, Mode::Disable | Mode::Prefer);
        for (name, given) in [("sslrootcert", &root), ("sslcert", &certificate), ("sslkey", &key)] {
            if open && given.is_some() {
                return Err(Error::Idle(name, mode.name()));
            }
        }
        if mode == Mode::VerifyCa && root.as_deref().is_none_or(|root| root == "system") {
            return Err(Error::Weak);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authorities = || authorities(root.as_deref().filter(|root| *root != "system"));
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match mode {
            Mode::VerifyFull => builder.with_root_certificates(authorities()?),
            _ => {
                let chain = match mode {
                    Mode::VerifyCa => {
                        let verifier =
                            WebPkiServerVerifier::builder_with_provider(Arc::new(authorities()?), provider.clone());
                        Some(verifier.build().map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))?)
                    }
                    _ => None,
                };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Lenient { chain, provider }))
            }
        };
        let config = match (certificate, key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let read = PrivateKeyDer::from_pem_file(&key);
                let read = read.map_err(|error| Error::File(key, error.to_string()))?;
                builder.with_client_auth_cert(certificates(&certificate)?, read)?
            }
            _ => return Err(Error::Half),
        };
        Ok(Tls { config: Arc::new(config), mode })
    }

    /// As the client wants it.
    pub(super) fn connect(&self) -> MakeRustlsConnect {
        MakeRustlsConnect::new((*self.config).clone())
    }

    /// Connects, for a client that has no TLS of its own. `None`: this is not needed, or the server has none.
    ///
    /// # Errors
    /// Nobody answers, there must be TLS and the server has none, or its certificate is not good.
    pub(super) async fn open(&self, host: &str, port: u16) -> io::Result<Option<TlsStream<TcpStream>>> {
        if self.mode == Mode::Disable {
            return Ok(None);
        }
        let mut stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&SSL_REQUEST).await?;
        match stream.read_u8().await? {
            b'S' => {}
            _ if self.mode == Mode::Prefer => return Ok(None),
            _ => {
                let what = format!("the server has no TLS, and sslmode={} wants it", self.mode.name());
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(self.config.clone()).connect(name, stream).await.map(Some)
    }
}

/// The certificates of a PEM file.
fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |error: rustls::pki_types::pem::Error| Error::File(path.to_owned(), error.to_string());
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(Path::new(path)).map_err(wrong)?.collect();
    let read = read.map_err(wrong)?;
    if read.is_empty() { Err(Error::Empty(path.to_owned())) } else { Ok(read) }
}

/// Authorities of a file, or the system's.
fn authorities(file: Option<&str>) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in certificates(file)? {
                store.add(certificate).map_err(|error| Error::File(file.to_owned(), error.to_string()))?;
            }
        }
        // Some of a system's are too old to be read; the others count.
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() { Err(Error::NoAuthorities) } else { Ok(store) }
}

/// Looks at a certificate less closely than at all of it: not at the name, or at nothing.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: all else was found good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
