//! One registry: where it is, how it is spoken to, and what an answer means.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;
use ureq::http::{HeaderName, Method, StatusCode, header};

use super::{
    error::{Again, Error, Trouble},
    options::{Host, Options},
    token::{Purse, Scope},
};
use crate::http::{
    self, Answer, Cause, Content, Fault, Limits, Pace, Request, Scheme, Transport, Trust, Url, bare_host, harmless, is_internal,
    is_loopback,
};

/// The outcome of one try.
pub(super) type Attempt<T> = Result<T, Trouble>;

/// The most redirects that are followed.
const MOST_REDIRECTS: u32 = 5;

/// One registry.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// As references name it.
    pub(super) registry: String,
    pub(super) host: Host,
    transport: Transport,
    base: Mutex<Option<Url>>,
    purse: Mutex<Purse>,
    warnings: Mutex<Warnings>,
}

/// Words for the user.
#[derive(Debug, Default)]
struct Warnings {
    /// Each is told once.
    heard: BTreeSet<String>,
    untold: Vec<String>,
}

/// One request to the registry, on behalf of a scope.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) content: Content<'a>,
    pub(super) pace: Pace,
    pub(super) scope: &'a Scope,
}

impl<'a> Call<'a> {
    /// Without headers and content.
    pub(super) fn new(method: Method, url: Url, scope: &'a Scope) -> Self {
        Self { method, url, headers: Vec::new(), content: Content::None, pace: Pace::Small, scope }
    }
}

impl Endpoint {
    /// Does not touch the network.
    pub(super) fn new(registry: &str, options: &Options) -> Result<Self, Error> {
        let bad = |detail: String| Error::Options { registry: registry.to_owned(), detail };
        Url::parse(&format!("https://{}/", authority(registry))).map_err(|odd| bad(odd.to_owned()))?;
        let host = options.hosts.get(registry).cloned().unwrap_or_default();
        let transport =
            Transport::new(Trust { insecure: host.insecure, ca: host.ca.as_deref() }, &options.proxies, options.limits).map_err(bad)?;
        Ok(Self {
            registry: registry.to_owned(),
            host,
            transport,
            base: Mutex::default(),
            purse: Mutex::default(),
            warnings: Mutex::default(),
        })
    }

    pub(super) fn limits(&self) -> &Limits {
        self.transport.limits()
    }

    pub(super) fn purse(&self) -> MutexGuard<'_, Purse> {
        self.purse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `path` under `/v2/`.
    pub(super) fn url(&self, path: &str) -> Attempt<Url> {
        let base = self.base()?;
        base.join(&format!("/v2/{path}")).map_err(|odd| self.protocol(odd).into())
    }

    /// Where the registry is; found by a first request, HTTPS before HTTP.
    fn base(&self) -> Attempt<Url> {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(url) = &*base {
            return Ok(url.clone());
        }
        let at = |scheme| Url::new(scheme, authority(&self.registry), "/v2/");
        let found = match self.ping(&at(Scheme::Https)) {
            Ok(()) => at(Scheme::Https),
            Err(https) if self.may_speak_http() && https.cause != Cause::Certificate => match self.ping(&at(Scheme::Http)) {
                Ok(()) => at(Scheme::Http),
                Err(http) if matches!(http.cause, Cause::Unreachable | Cause::NoAddress) => return Err(self.unusable(https)),
                Err(http) => return Err(self.unusable(http)),
            },
            Err(https) => return Err(self.unusable(https)),
        };
        *base = Some(found.clone());
        Ok(found)
    }

    /// Any answer will do. A lost connection is tried once more.
    fn ping(&self, url: &Url) -> Result<(), Fault> {
        let once = || self.transport.send(Request { method: Method::GET, url, headers: &[], content: Content::None, pace: Pace::Small });
        let again = |fault: Fault| if fault.cause == Cause::Lost && !self.may_speak_http() { once() } else { Err(fault) };
        // Read to its end, the connection can be used again.
        once().or_else(again).map(|answer| drop(said(answer)))
    }

    fn may_speak_http(&self) -> bool {
        self.host.insecure || is_loopback(bare_host(authority(&self.registry)))
    }

    /// What must be set for a registry that HTTPS does not reach.
    fn unusable(&self, fault: Fault) -> Trouble {
        let setting = |line: &str| format!("set `{line}` under `[registry.\"{}\"]` in config.toml", self.registry);
        let help = match fault.cause {
            Cause::NotTls => Some(format!("if it is meant to speak plain HTTP, {}", setting("insecure = true"))),
            Cause::Lost if !self.may_speak_http() => Some(format!("if it speaks plain HTTP, {}", setting("insecure = true"))),
            Cause::Certificate => Some(format!("if its certificate is your own, {}", setting("ca = \"FILE.pem\""))),
            Cause::NoAddress => Some(format!("check the name and the network, or {}", setting("mirrors = [\"https://HOST\"]"))),
            Cause::Lost | Cause::Unreachable | Cause::Http => None,
        };
        Error::Network { registry: self.registry.clone(), detail: fault.detail, help }.into()
    }

    /// Sends, with what authorization is known, answers challenges, and follows the redirects of GET and HEAD.
    /// The answer may have any status but 401.
    pub(super) fn ask(&self, call: Call<'_>) -> Attempt<Answer> {
        let Call { method, url, headers, mut content, pace, scope } = call;
        let mut asked = false;
        loop {
            let replay = match &content {
                Content::None => Some(Content::None),
                Content::Empty => Some(Content::Empty),
                Content::Bytes(bytes) => Some(Content::Bytes(bytes)),
                Content::Stream(..) => None,
            };
            let was_basic = self.is_basic();
            let answer = self.follow(&method, &url, &headers, content, pace, scope)?;
            if answer.status() != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            let more = !asked && self.answer_challenge(&answer, scope, was_basic)?;
            let refused = self.refusal(answer, "it");
            match replay {
                Some(same) if more => content = same,
                None if more => return Err(Trouble { again: Again::Soon, ..refused }),
                Some(_) | None => return Err(refused),
            }
            asked = true;
        }
    }

    fn follow(
        &self,
        method: &Method,
        url: &Url,
        headers: &[(HeaderName, String)],
        content: Content<'_>,
        pace: Pace,
        scope: &Scope,
    ) -> Attempt<Answer> {
        let home = self.base()?;
        let mut url = url.clone();
        let mut content = Some(content);
        for _ in 0..=MOST_REDIRECTS {
            let mut headers = headers.to_vec();
            // The credentials of a registry are nobody else's business.
            if let Some(authorization) = self.authorization(scope).filter(|_| url.same_origin(&home)) {
                headers.push((header::AUTHORIZATION, authorization));
            }
            let sent = content.take().unwrap_or(Content::None);
            let answer = self.send(Request { method: method.clone(), url: &url, headers: &headers, content: sent, pace })?;
            let follows = matches!(*method, Method::GET | Method::HEAD) && matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !follows {
                return Ok(answer);
            }
            url = self.location(&answer, &url)?;
        }
        Err(self.protocol(&format!("more than {MOST_REDIRECTS} redirects")).into())
    }

    /// The URL that an answer points to, if it is safe to go there.
    pub(super) fn location(&self, answer: &Answer, from: &Url) -> Attempt<Url> {
        let text = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let text = text.ok_or_else(|| self.protocol("an answer has no `Location`"))?;
        let url = from.join(text).map_err(|odd| self.protocol(&format!("in a `Location`, {odd}")))?;
        self.may_go(&url, "a `Location`")?;
        Ok(url)
    }

    /// Not from HTTPS to HTTP, and not from afar to this machine or its link.
    pub(super) fn may_go(&self, to: &Url, what: &str) -> Attempt<()> {
        let home = self.base()?;
        if to.scheme == Scheme::Http && home.scheme == Scheme::Https && !self.host.insecure {
            return Err(self.protocol(&format!("{what} leads from HTTPS to plain HTTP")).into());
        }
        if is_internal(to.host()) && !is_loopback(home.host()) && to.host() != home.host() {
            return Err(self.protocol(&format!("{what} leads to this machine's own `{}`", to.host())).into());
        }
        Ok(())
    }

    pub(super) fn send(&self, request: Request<'_, '_>) -> Attempt<Answer> {
        let answer = self.transport.send(request).map_err(|fault| self.fault(fault))?;
        self.note_warnings(&answer);
        Ok(answer)
    }

    /// `Warning: 299 - "text"`, as the specification of distribution has it.
    fn note_warnings(&self, answer: &Answer) {
        const MOST: usize = 8;
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        for value in answer.headers().get_all(header::WARNING).iter().filter_map(|value| value.to_str().ok()) {
            let text = value.strip_prefix("299 - ").map(|text| harmless(text.trim().trim_matches('"')));
            let new = text.filter(|text| warnings.heard.len() < MOST && !warnings.heard.contains(text));
            if let Some(text) = new {
                warnings.untold.push(text.clone());
                let _new = warnings.heard.insert(text);
            }
        }
    }

    /// What was not told yet.
    pub(super) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner).untold)
    }

    fn fault(&self, fault: Fault) -> Trouble {
        match fault.cause {
            Cause::Http => self.protocol(&fault.detail).into(),
            Cause::Lost | Cause::Unreachable => {
                let error = Error::Network { registry: self.registry.clone(), detail: fault.detail, help: None };
                Trouble { error, again: Again::Soon }
            }
            Cause::Certificate | Cause::NotTls | Cause::NoAddress => self.unusable(fault),
        }
    }

    /// A body that ended before its time.
    pub(super) fn lost(&self, error: &io::Error) -> Trouble {
        self.fault(http::classify_io(error))
    }

    pub(super) fn protocol(&self, detail: &str) -> Error {
        Error::Protocol { registry: self.registry.clone(), detail: detail.to_owned() }
    }

    pub(super) fn network(&self, detail: &str) -> Trouble {
        let error = Error::Network { registry: self.registry.clone(), detail: detail.to_owned(), help: None };
        Trouble { error, again: Again::Soon }
    }

    pub(super) fn mismatch(&self, what: &str, expected: &impl ToString, found: &impl ToString) -> Error {
        let (expected, found) = (expected.to_string(), found.to_string());
        Error::Mismatch { registry: self.registry.clone(), what: what.to_owned(), expected, found }
    }

    /// What a status that is no success means.
    pub(super) fn refusal(&self, answer: Answer, what: &str) -> Trouble {
        let status = answer.status();
        let wait = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let wait: Option<Duration> = wait.map(Duration::from_secs);
        let said = said(answer);
        let told = if said.is_empty() { String::new() } else { format!(": {said}") };
        match status.as_u16() {
            404 => Error::NotFound { registry: self.registry.clone(), what: what.to_owned() }.into(),
            401 | 403 => self.unauthorized(what, &said).into(),
            408 | 429 | 500 | 502 | 503 | 504 => {
                let asks = wait.map_or(String::new(), |wait| format!(", and asks to wait {} s", wait.as_secs()));
                let error = self.network(&format!("it answers {status}{told}{asks}")).error;
                Trouble { error, again: wait.map_or(Again::Soon, Again::After) }
            }
            _ => self.protocol(&format!("it answers {status} to a request for {what}{told}")).into(),
        }
    }

    /// Tries until it works, it makes no sense, or it was often enough.
    pub(super) fn patiently<T>(&self, mut step: impl FnMut() -> Attempt<T>) -> Result<T, Error> {
        let mut tries = 0;
        loop {
            match step() {
                Ok(value) => return Ok(value),
                Err(trouble) => {
                    tries += 1;
                    self.pause(trouble, tries)?;
                }
            }
        }
    }

    /// Waits before the next try, or returns the error if there is to be none.
    pub(super) fn pause(&self, trouble: Trouble, tries: u32) -> Result<(), Error> {
        let wait = match trouble.again {
            Again::No => None,
            Again::Soon => Some(self.transport.backoff(tries)),
            Again::After(wait) => Some(wait.max(self.transport.backoff(tries))).filter(|_| wait <= self.limits().patience),
        };
        match wait {
            Some(wait) if tries < self.limits().attempts => {
                thread::sleep(wait);
                Ok(())
            }
            Some(_) | None => Err(trouble.error),
        }
    }
}

/// `docker.io` is served elsewhere.
fn authority(registry: &str) -> &str {
    if registry.eq_ignore_ascii_case("docker.io") { "registry-1.docker.io" } else { registry }
}

/// The registry's own words: `{"errors": [{"code": …, "message": …}]}`.
fn said(answer: Answer) -> String {
    #[derive(Deserialize)]
    struct Said {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    const LARGEST: usize = 16 * 1024;
    const LONGEST: Duration = Duration::from_secs(5);
    let (mut bytes, mut buffer, begun) = (Vec::new(), [0; 4096], Instant::now());
    let mut body = answer.into_body().into_reader();
    // The words are a courtesy: without them the status says it.
    while let Ok(count @ 1..) = body.read(&mut buffer) {
        bytes.extend_from_slice(buffer.get(..count).unwrap_or(&[]));
        if bytes.len() > LARGEST || begun.elapsed() > LONGEST {
            break;
        }
    }
    let said: Option<Said> = serde_json::from_slice(&bytes).ok();
    let first = said.and_then(|said| said.errors.into_iter().next());
    first.map_or(String::new(), |one| harmless(&format!("{} ({})", one.message, one.code)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn endpoint(registry: &str, scheme: Scheme, insecure: bool) -> Endpoint {
        let host = Host { insecure, ..Host::default() };
        let options = Options { hosts: [(registry.to_owned(), host)].into(), ..Options::default() };
        let endpoint = Endpoint::new(registry, &options).unwrap();
        *endpoint.base.lock().unwrap() = Some(Url::new(scheme, authority(registry), "/v2/"));
        endpoint
    }

    #[rstest]
    #[case("r.io", "https://storage.example/x", true)]
    #[case("r.io", "http://storage.example/x", false)]
    #[case("r.io", "http://r.io/x", false)]
    #[case("r.io", "https://169.254.169.254/latest", false)]
    #[case("r.io", "https://localhost/x", false)]
    #[case("r.io", "https://[::1]/x", false)]
    #[case("r.io", "https://2130706433/x", false)]
    #[case("r.io", "https://10.0.0.5/x", true)]
    #[case("localhost:5000", "https://127.0.0.1/x", true)]
    fn where_an_answer_may_lead_is_limited(#[case] registry: &str, #[case] to: &str, #[case] allowed: bool) {
        let went = endpoint(registry, Scheme::Https, false).may_go(&Url::parse(to).unwrap(), "it");
        assert_eq!(went.is_ok(), allowed);
    }

    #[test]
    fn an_insecure_registry_may_lead_to_plain_http_but_not_to_this_machine() {
        let endpoint = endpoint("10.0.0.5:5000", Scheme::Https, true);
        assert!(endpoint.may_go(&Url::parse("http://10.0.0.6/x").unwrap(), "it").is_ok());
        assert!(endpoint.may_go(&Url::parse("http://127.0.0.1/x").unwrap(), "it").is_err());
    }

    #[rstest]
    #[case("docker.io", "https://registry-1.docker.io/v2/a")]
    #[case("docker.io.evil.com", "https://docker.io.evil.com/v2/a")]
    #[case("R.io:5000", "https://r.io:5000/v2/a")]
    fn a_registry_is_where_its_name_says(#[case] registry: &str, #[case] url: &str) {
        assert_eq!(endpoint(registry, Scheme::Https, false).url("a").unwrap().whole(), url);
    }

    #[rstest]
    #[case("localhost:5000", true)]
    #[case("127.0.0.9", true)]
    #[case("[::1]:5000", true)]
    #[case("localhost.evil.com", false)]
    #[case("10.0.0.5:5000", false)]
    #[case("docker.io", false)]
    fn plain_http_is_for_loopback(#[case] registry: &str, #[case] expected: bool) {
        assert_eq!(endpoint(registry, Scheme::Https, false).may_speak_http(), expected);
    }

    #[test]
    fn a_name_that_is_no_host_is_refused() {
        assert!(matches!(Endpoint::new("r.io:99999", &Options::default()), Err(Error::Options { .. })));
    }
}
