//! One HTTP exchange with limits: no redirect is followed, no status is an error, no header is added.
//!
//! The agent keeps connections; TLS roots and proxies are those of the options, never of the environment.

use std::{io::Read, time::Duration};

use ureq::{
    Agent, AsSendBody, Body, SendBody,
    http::{self, HeaderName, HeaderValue, Method, Response},
    tls::{Certificate, PemItem, RootCerts, TlsConfig},
};

use super::{
    options::{Limits, Proxies},
    text::harmless,
    url::{Scheme, Url, is_loopback},
};

/// The head of an answer, and its body not yet read.
pub type Answer = Response<Body>;

/// The largest head of an answer, in bytes.
const LARGEST_HEAD: usize = 64 * 1024;

/// What is sent with a request.
pub enum Content<'a> {
    /// GET, HEAD.
    None,
    /// A body of no bytes: POST, PUT.
    Empty,
    /// Bytes that can be sent again.
    Bytes(&'a [u8]),
    /// A stream of that many bytes.
    Stream(&'a mut dyn Read, u64),
}

/// How long an answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// A small body.
    Small,
    /// A large body, which the reader watches.
    Stream,
    /// A registry that must first digest what it got.
    Commit,
}

/// One request.
pub struct Request<'a, 'c> {
    /// GET, HEAD, …
    pub method: Method,
    /// Where.
    pub url: &'a Url,
    /// Beside those that the exchange itself needs.
    pub headers: &'a [(HeaderName, String)],
    /// The body.
    pub content: Content<'c>,
    /// How long it may take.
    pub pace: Pace,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Fault {
    /// Which kind.
    pub cause: Cause,
    /// In words, harmless for a terminal.
    pub detail: String,
}

/// The causes that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The certificate is not trusted.
    Certificate,
    /// No TLS is spoken there.
    NotTls,
    /// No address is known for its name.
    NoAddress,
    /// Nobody is there.
    Unreachable,
    /// The connection was lost, or nothing came in time.
    Lost,
    /// What came is no proper HTTP, or what should be sent is none.
    Http,
}

/// Which certificates are believed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trust<'a> {
    /// All: they are not checked.
    pub insecure: bool,
    /// Authorities (PEM), beside the system's.
    pub ca: Option<&'a [u8]>,
}

/// Connections, kept open for the next exchange.
#[derive(Debug)]
pub struct Transport {
    agent: Agent,
    proxies: Proxies,
    limits: Limits,
}

impl Transport {
    /// `Err` says what is wrong with what is trusted.
    pub fn new(trust: Trust<'_>, proxies: &Proxies, limits: Limits) -> Result<Self, String> {
        let roots = trust.ca.map_or(Ok(RootCerts::PlatformVerifier), roots)?;
        let tls = TlsConfig::builder().root_certs(roots).disable_verification(trust.insecure).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(tls)
            .user_agent(concat!("lapstrake/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(LARGEST_HEAD)
            .max_idle_connections_per_host(limits.parallel.max(1))
            .timeout_resolve(Some(limits.connect))
            .timeout_connect(Some(limits.connect))
            .timeout_send_request(Some(limits.answer))
            .timeout_recv_response(Some(limits.answer))
            .timeout_per_read(Some(limits.silence))
            .timeout_per_write(Some(limits.silence))
            .build();
        Ok(Self { agent: config.into(), proxies: proxies.clone(), limits })
    }

    /// Sends a request and reads the head of its answer.
    pub fn send(&self, request: Request<'_, '_>) -> Result<Answer, Fault> {
        let (url, pace) = (request.url, request.pace);
        let mut head = http::Request::builder().method(request.method).uri(url.whole());
        for (name, value) in request.headers {
            let value = HeaderValue::from_str(value).map_err(|_odd| fault(Cause::Http, "a header that cannot be sent"))?;
            head = head.header(name, value);
        }
        let length = match &request.content {
            Content::None => None,
            Content::Empty => Some(0),
            Content::Bytes(bytes) => Some(bytes.len() as u64),
            Content::Stream(_, length) => Some(*length),
        };
        if let Some(length) = length {
            head = head.header(http::header::CONTENT_LENGTH, length);
        }
        match request.content {
            Content::None | Content::Empty => self.run(head.body(()), url, pace),
            Content::Bytes(bytes) => self.run(head.body(bytes), url, pace),
            Content::Stream(stream, _) => self.run(head.body(SendBody::from_reader(stream)), url, pace),
        }
    }

    fn run<B: AsSendBody>(&self, request: Result<http::Request<B>, http::Error>, url: &Url, pace: Pace) -> Result<Answer, Fault> {
        let request = request.map_err(|_odd| fault(Cause::Http, "a URL that cannot be used"))?;
        let answer = self.limits.answer;
        let configured = self
            .agent
            .configure_request(request)
            .proxy(self.proxy(url)?)
            .timeout_recv_body(Some(answer).filter(|_| pace != Pace::Stream))
            .timeout_recv_response(Some(if pace == Pace::Commit { answer * 10 } else { answer }))
            .build();
        self.agent.run(configured).map_err(|error| classify(&error))
    }

    fn proxy(&self, url: &Url) -> Result<Option<ureq::Proxy>, Fault> {
        let chosen = self.proxies.url(url.scheme == Scheme::Https, url.host()).filter(|_| !is_loopback(url.host()));
        chosen.map(ureq::Proxy::new).transpose().map_err(|_secret| fault(Cause::Unreachable, "the proxy's URL cannot be used"))
    }

    /// How long to wait before try number `tries` + 1.
    pub fn backoff(&self, tries: u32) -> Duration {
        const LONGEST: Duration = Duration::from_secs(30);
        self.limits.backoff.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(LONGEST)
    }

    /// Its bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// The system's roots and those of a PEM text.
fn roots(pem: &[u8]) -> Result<RootCerts, String> {
    let mut extra = Vec::new();
    for item in ureq::tls::parse_pem(pem) {
        match item.map_err(|error| format!("its certificate authority is not PEM: {error}"))? {
            PemItem::Certificate(certificate) => extra.push(certificate),
            PemItem::PrivateKey(_) => return Err("its certificate authority has a private key in it".into()),
            // Of items to come, none is a root.
            _ => {}
        }
    }
    if extra.is_empty() {
        return Err("its certificate authority has no certificate in it".into());
    }
    // What cannot be read of the system's is not trusted; a missing bundle must not shut out the registry's own.
    let system = rustls_native_certs::load_native_certs().certs;
    extra.extend(system.iter().map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()));
    Ok(RootCerts::from(extra))
}

fn no_address() -> Fault {
    fault(Cause::NoAddress, "no address is known for its name")
}

fn fault(cause: Cause, detail: &str) -> Fault {
    Fault { cause, detail: detail.to_owned() }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "non-exhaustive; what we cannot name keeps its own words")]
fn classify(error: &ureq::Error) -> Fault {
    match error {
        ureq::Error::Io(error) => classify_io(error),
        ureq::Error::Timeout(_) => fault(Cause::Lost, "no answer in time"),
        ureq::Error::HostNotFound => no_address(),
        ureq::Error::ConnectionFailed => fault(Cause::Unreachable, "no connection"),
        ureq::Error::LargeResponseHeader(..) => fault(Cause::Http, "the head of an answer is too large"),
        // Its text has the URL.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => fault(Cause::Http, "a URL that cannot be used"),
        ureq::Error::Protocol(error) => fault(Cause::Http, &harmless(&format!("an answer that is no proper HTTP ({error})"))),
        ureq::Error::ConnectProxyFailed(_) => fault(Cause::Unreachable, "the proxy refuses"),
        other => by_words(&other.to_string()),
    }
}

/// Of an error of a connection or of a body that is being read.
pub fn classify_io(error: &std::io::Error) -> Fault {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, UnexpectedEof};
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        return classify(inner);
    }
    let kind = error.kind();
    if kind == ConnectionRefused {
        fault(Cause::Unreachable, "connection refused")
    } else if matches!(kind, HostUnreachable | NetworkUnreachable) {
        fault(Cause::Unreachable, "there is no route to it")
    } else if kind == UnexpectedEof {
        fault(Cause::Lost, "the connection was closed")
    } else {
        by_words(&error.to_string())
    }
}

/// The errors of the TLS library and of the resolver arrive as text only.
fn by_words(text: &str) -> Fault {
    let cause = if text.contains("invalid peer certificate") {
        Cause::Certificate
    } else if text.contains("corrupt message") {
        return fault(Cause::NotTls, "it does not speak HTTPS");
    } else if text.contains("failed to lookup address information") {
        // The standard library's own words for what getaddrinfo says: the error has no kind of its own.
        return no_address();
    } else {
        Cause::Lost
    };
    fault(cause, &harmless(text))
}
