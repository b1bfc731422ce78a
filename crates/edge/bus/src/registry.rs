//! A schema registry that speaks Confluent's API, and the wire format that names its schemas: a zero byte, the schema's id
//! in four bytes (big endian), the content.
//!
//! Here the outside is taken off and put on; what a reading is stays unknown. Content by an Avro schema becomes JSON and
//! comes from it ([`avro`]), so one decoder judges all. Ids never change their meaning: what was fetched is kept.

pub mod admin;
mod avro;

use crate::Topic;
use avro::Avro;
use dependency::Dependency;
use reqwest::{Certificate, Method, StatusCode};
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

/// First byte of a value that names its schema; neither JSON nor our batch begins with it.
const MAGIC: u8 = 0;
/// What lies before the content.
const HEAD: usize = 5;
/// A registry that works has answered within this time.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// So long it is asked for a schema before who waits for it is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries at first, doubled up to a second.
const PAUSE: Duration = Duration::from_millis(100);

/// How a registry is reached, and what it is to hold.
#[derive(Clone)]
pub struct Options {
    /// Where its API begins: `http://HOST:PORT`, of Apicurio with `/apis/ccompat/v7`.
    pub url: String,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// Authorities (PEM) that it is checked against, in place of the system's.
    pub ca: Option<Vec<u8>>,
    /// An id that the registry does not have refuses its record; else the record is waited with.
    pub refuse_unknown: bool,
    /// The values of our topics.
    pub subjects: Vec<Subject>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What the values of a topic are.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The topic.
    pub topic: Topic,
    /// Of the schema.
    pub format: Format,
    /// The schema.
    pub schema: String,
    /// What we send names the schema; else it is JSON without one.
    pub named: bool,
}

/// A language of schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub enum Format {
    Json,
    Avro,
}

impl Format {
    /// As the registry calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Json => "JSON",
            Format::Avro => "AVRO",
        }
    }
}

/// Why a registry was of no use.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("make an HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("registry.ca holds no certificate (PEM)")]
    NoAuthorities,
    #[error("it does not answer")]
    NoAnswer(#[source] reqwest::Error),
    #[error("it answers {status}: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("it has no schema {0}, which a record names")]
    Unknown(u32),
    #[error("subject {0} has not this release's schema: register it with `millwright schemas apply`")]
    NotRegistered(String),
    #[error("a schema of our own cannot be read: {0}")]
    Schema(String),
    #[error("a value does not fit the schema of {subject}: {what}")]
    Value { subject: String, what: String },
}

/// Asks a registry.
struct Registry {
    client: reqwest::Client,
    url: String,
    credentials: Option<(String, String)>,
}

impl Registry {
    fn new(options: &Options) -> Result<Registry, Error> {
        // Fails only where a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder().timeout(ANSWER_MAX);
        if let Some(pem) = &options.ca {
            let authorities = Certificate::from_pem_bundle(pem).map_err(Error::Client)?;
            if authorities.is_empty() {
                return Err(Error::NoAuthorities);
            }
            builder = builder.tls_certs_only(authorities);
        }
        let client = builder.build().map_err(Error::Client)?;
        let url = options.url.trim_end_matches('/').to_owned();
        Ok(Registry { client, url, credentials: options.credentials.clone() })
    }

    /// `None`: there is no such thing.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Option<Value>, Error> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some((user, password)) = &self.credentials {
            request = request.basic_auth(user, Some(password));
        }
        if let Some(body) = &body {
            request = request.json(body);
        }
        let no_answer = |error: reqwest::Error| Error::NoAnswer(error.without_url());
        let answer = request.send().await.map_err(no_answer)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(no_answer)?;
        let value: Result<Value, _> = serde_json::from_slice(&body);
        match value {
            Ok(value) if status.is_success() => Ok(Some(value)),
            // Something else answers there where it is no JSON.
            Ok(value) if status == StatusCode::NOT_FOUND && value.get("error_code").is_some() => Ok(None),
            Ok(value) => {
                let message = value["message"].as_str().unwrap_or_default().to_owned();
                Err(Error::Refused { status, message })
            }
            Err(_) => Err(Error::Refused { status, message: "that is no registry's answer".into() }),
        }
    }

    async fn schema(&self, id: u32) -> Result<Option<Known>, Error> {
        let Some(found) = self.ask(Method::GET, &format!("/schemas/ids/{id}"), None).await? else { return Ok(None) };
        let text = found["schema"].as_str().unwrap_or_default();
        let known = match found["schemaType"].as_str().unwrap_or("AVRO") {
            "JSON" => Ok(Known::Json),
            "AVRO" => Avro::parse(text).map(|avro| Known::Avro(Box::new(avro))),
            other => Err(format!("it is in {other}, and only JSON and AVRO are read")),
        };
        Ok(Some(known.unwrap_or_else(|why| Known::Useless(format!("schema {id} cannot be a reading's: {why}")))))
    }

    /// The id that a schema has in a subject.
    async fn find(&self, subject: &str, wanted: &Subject) -> Result<Option<u32>, Error> {
        let found = self.ask(Method::POST, &format!("/subjects/{subject}"), Some(body(wanted))).await?;
        Ok(found.and_then(|found| id(&found)))
    }
}

fn body(subject: &Subject) -> Value {
    json!({ "schemaType": subject.format.as_str(), "schema": subject.schema })
}

fn id(answer: &Value) -> Option<u32> {
    answer["id"].as_u64().and_then(|id| u32::try_from(id).ok())
}

/// A subject's name, as clients build it by default.
fn name(topic: &str) -> String {
    format!("{topic}-value")
}

/// Asks whether it answers.
///
/// # Errors
/// It does not.
pub async fn answers(options: &Options) -> Result<(), Error> {
    match Registry::new(options)?.ask(Method::GET, "/schemas/types", None).await {
        Ok(_) | Err(Error::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is known of the schemas that records name.
#[derive(Default)]
pub struct Schemas {
    registry: Option<Registry>,
    refuse_unknown: bool,
    told: Dependency,
    known: RwLock<BTreeMap<u32, Arc<Known>>>,
}

enum Known {
    Json,
    Avro(Box<Avro>),
    /// Why.
    Useless(String),
}

impl Schemas {
    pub(crate) fn new(options: Option<&Options>, told: &Dependency) -> Result<Schemas, Error> {
        let registry = options.map(Registry::new).transpose()?;
        let refuse_unknown = options.is_some_and(|options| options.refuse_unknown);
        Ok(Schemas { registry, refuse_unknown, told: told.clone(), known: RwLock::default() })
    }

    /// The JSON of a value that a consumer delivered; a value that names no schema is its own.
    ///
    /// # Errors
    /// Why there is none: the value is refused.
    pub fn content<'a>(&self, value: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        if value.first() != Some(&MAGIC) {
            return Ok(Cow::Borrowed(value));
        }
        let (id, content) = split(value).ok_or("it begins as with a schema's id and is cut short")?;
        if self.registry.is_none() {
            return Err(format!("it names schema {id}, and no registry is configured (registry.url)"));
        }
        let known = self.known.read().expect("never poisoned").get(&id).cloned();
        match &*known.expect("a consumer delivers nothing whose schema it has not learned") {
            Known::Json => Ok(Cow::Borrowed(content)),
            Known::Avro(avro) => {
                let json = avro.to_json(content);
                json.map(|json| Cow::Owned(json.into_bytes())).map_err(|why| format!("by schema {id}: {why}"))
            }
            Known::Useless(why) => Err(why.clone()),
        }
    }

    /// The id that must be learned before a value can be delivered.
    pub(crate) fn missing(&self, value: &[u8]) -> Option<u32> {
        if value.first() != Some(&MAGIC) || self.registry.is_none() {
            return None;
        }
        let (id, _) = split(value)?;
        (!self.known.read().expect("never poisoned").contains_key(&id)).then_some(id)
    }

    /// Asks for a schema, again and again for a while.
    pub(crate) async fn learn(&self, id: u32) -> Result<(), Error> {
        let Some(registry) = &self.registry else { return Ok(()) };
        let until = Instant::now() + PATIENCE;
        let mut pause = PAUSE;
        loop {
            let found = registry.schema(id).await;
            self.tell(&found);
            let wrong = match found {
                Ok(Some(known)) => {
                    self.know(id, known);
                    return Ok(());
                }
                Ok(None) if self.refuse_unknown => {
                    self.know(id, Known::Useless(format!("the registry has no schema {id}")));
                    return Ok(());
                }
                Ok(None) => Error::Unknown(id),
                Err(error) => error,
            };
            if Instant::now() + pause > until {
                return Err(wrong);
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(Duration::from_secs(1));
        }
    }

    /// A refusal is an answer.
    fn tell<T>(&self, found: &Result<T, Error>) {
        match found {
            Ok(_) | Err(Error::Refused { .. }) => self.told.answered(),
            Err(error) => self.told.failed(error),
        }
    }

    fn know(&self, id: u32, known: Known) {
        self.known.write().expect("never poisoned").insert(id, Arc::new(known));
    }

    /// Who writes the values of topics that name their schema.
    pub(crate) async fn writers(
        &self,
        options: Option<&Options>,
        topic: impl Fn(Topic) -> String,
    ) -> Result<BTreeMap<Topic, Writer>, Error> {
        let mut writers = BTreeMap::new();
        let (Some(registry), Some(options)) = (&self.registry, options) else { return Ok(writers) };
        for wanted in options.subjects.iter().filter(|subject| subject.named) {
            let subject = name(&topic(wanted.topic));
            let found = registry.find(&subject, wanted).await;
            self.tell(&found);
            let Some(id) = found? else { return Err(Error::NotRegistered(subject)) };
            let avro = match wanted.format {
                Format::Json => None,
                Format::Avro => Some(Avro::parse(&wanted.schema).map_err(Error::Schema)?),
            };
            writers.insert(wanted.topic, Writer { subject, id, avro });
        }
        Ok(writers)
    }
}

/// The schema's id and the content.
fn split(value: &[u8]) -> Option<(u32, &[u8])> {
    let (head, content) = value.split_first_chunk::<HEAD>()?;
    let [_, id @ ..] = *head;
    Some((u32::from_be_bytes(id), content))
}

/// Writes values of one topic.
pub(crate) struct Writer {
    subject: String,
    id: u32,
    avro: Option<Avro>,
}

impl Writer {
    /// A JSON value with its schema's id before it.
    pub(crate) fn write(&self, json: &[u8]) -> Result<Vec<u8>, Error> {
        let content = match &self.avro {
            None => Cow::Borrowed(json),
            Some(avro) => {
                let content = avro.of_json(json);
                content.map_err(|what| Error::Value { subject: self.subject.clone(), what })?.into()
            }
        };
        let mut value = Vec::with_capacity(HEAD + content.len());
        value.push(MAGIC);
        value.extend_from_slice(&self.id.to_be_bytes());
        value.extend_from_slice(&content);
        Ok(value)
    }
}
