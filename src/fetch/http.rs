//! A file over http or https, into the store: asked for again only if it changed, continued after a lost connection.
//!
//! - Redirects are followed, ten at most, to http and https only; from elsewhere none leads to this machine or its local
//!   link, where a cloud's metadata are.
//! - A password or token goes to the origin that the address names, and to no other.
//! - What came is a blob; by the URL the store remembers which, and what validates it (`ETag`, `Last-Modified`).
//! - `Content-Encoding: gzip` is taken off, as BuildKit's client takes it off.
//!
//! Source: BuildKit `source/http/source.go`, by behaviour; RFC 9110 8.8 (validators), 13 (conditions), 14 (ranges).

use std::{
    io::{self, Read, Write},
    net::ToSocketAddrs as _,
    path::Path,
    thread,
};

use serde::{Deserialize, Serialize};
use ureq::http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::{Asker, Error, Patience, Progress, date};
use crate::{
    http::{
        self as exchange, Answer, Cause, Content, Fault, Pace, Request, Transport, Trust, Url, basic, harmless, is_internal, is_loopback,
    },
    oci::{Descriptor, Digest},
    remote::HttpAddress,
    store::{BlobWriter, Store},
    sys::{PathError, dir},
};

/// The most redirects that are followed.
const MOST_REDIRECTS: usize = 10;
const BUFFER: usize = 128 * 1024;
/// So much new counts as a transfer that works: the tries are counted from anew.
const PROOF_OF_LIFE: u64 = 1024 * 1024;

/// A file that was downloaded: its bytes are a blob of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// What ADD calls it.
    pub name: String,
    /// Seconds since 1970; `None`: the server did not say.
    pub last_modified: Option<i64>,
}

impl Download {
    /// The blob, for [`Store::open_blob`].
    pub fn blob(&self) -> Descriptor {
        blob(self.digest, self.size)
    }

    /// Writes it as a file of its name into a directory: mode 0600, the time the server gave, or 1970.
    pub fn place(&self, store: &Store, into: &Path) -> Result<(), Error> {
        let dir = dir::open_root(into)?;
        let mut file = dir::create_file(&dir, self.name.as_bytes())?;
        let Some(mut blob) = store.open_blob(&self.blob())? else {
            return Err(PathError::new("read", into)(io::Error::from(io::ErrorKind::NotFound)).into());
        };
        let _size: u64 = io::copy(&mut blob, &mut file).map_err(PathError::new("write", into.join(&self.name)))?;
        blob.finish().map_err(PathError::new("read", store.root()))?;
        dir::set_mode_open(&file, 0o600)?;
        dir::set_times_open(&file, self.last_modified.unwrap_or(0))?;
        Ok(())
    }
}

fn blob(digest: Digest, size: u64) -> Descriptor {
    Descriptor::new("application/octet-stream", digest, size)
}

/// What is remembered of a URL.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    digest: Digest,
    size: u64,
    /// As sent.
    etag: Option<String>,
    /// As sent.
    last_modified: Option<String>,
    /// The file was not touched for long enough when it was sent that its time says whether it is the same.
    dated: bool,
}

impl Known {
    fn key(address: &HttpAddress) -> String {
        blake3::Hash::from_bytes(blake3::derive_key("lapstrake fetch: what came from a URL, version 1", address.url().as_bytes()))
            .to_hex()
            .to_string()
    }

    /// What is remembered, if the bytes are still there.
    fn recall(store: &Store, address: &HttpAddress) -> Result<Option<Self>, Error> {
        let record = store.record(&Self::key(address))?;
        let known: Option<Self> = record.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(known) = known else { return Ok(None) };
        // Read to its end: the store removes what is damaged, and then it is fetched anew.
        Ok(store.has_whole_blob(&blob(known.digest, known.size)).then_some(known))
    }

    fn of(digest: Digest, size: u64, headers: &HeaderMap) -> Self {
        let etag = text(headers, &header::ETAG);
        let last_modified = text(headers, &header::LAST_MODIFIED);
        let sent = text(headers, &header::DATE).and_then(|date| date::parse(&date));
        let changed = last_modified.as_deref().and_then(date::parse);
        // RFC 9110 8.8.2.2: a time is a strong validator if it is a minute older than the answer.
        let dated = sent.zip(changed).is_some_and(|(sent, changed)| sent >= changed.saturating_add(60));
        Self { digest, size, etag, last_modified, dated }
    }

    fn remember(&self, store: &Store, address: &HttpAddress) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        Ok(store.put_record(&Self::key(address), &bytes)?)
    }

    fn download(&self, address: &HttpAddress) -> Download {
        let last_modified = self.last_modified.as_deref().and_then(date::parse);
        Download { digest: self.digest, size: self.size, name: address.file_name(), last_modified }
    }

    /// What asks for the file only if it is another.
    fn conditions(&self) -> Vec<(HeaderName, String)> {
        match (&self.etag, &self.last_modified) {
            (Some(etag), _) => vec![(header::IF_NONE_MATCH, etag.clone())],
            (None, Some(time)) if self.dated => vec![(header::IF_MODIFIED_SINCE, time.clone())],
            (None, _) => Vec::new(),
        }
    }

    /// Some servers send the file with the same tag again.
    fn is_same(&self, headers: &HeaderMap) -> bool {
        let plain = |tag: &str| tag.trim_start_matches("W/").to_owned();
        self.etag.as_deref().map(plain).is_some_and(|tag| text(headers, &header::ETAG).as_deref().map(plain) == Some(tag))
    }
}

/// Downloads a file, or finds that what is in the store is still what the URL has. With `wanted`, nothing else than that is
/// taken, and no question is asked if it is known.
pub fn download(store: &Store, address: &HttpAddress, wanted: Option<&Digest>, asker: &mut Asker<'_>) -> Result<Download, Error> {
    let known = Known::recall(store, address)?;
    if let Some(known) = known.as_ref().filter(|known| Some(&known.digest) == wanted) {
        return Ok(known.download(address));
    }
    let client = Client::new(address, asker)?;
    let download = client.fetch(store, known.as_ref(), asker)?;
    match wanted.filter(|wanted| **wanted != download.digest) {
        Some(wanted) => {
            Err(Error::Mismatch { what: address.to_string(), expected: wanted.to_string(), found: download.digest.to_string() })
        }
        None => Ok(download),
    }
}

/// The failure of one try.
struct Trouble {
    error: Error,
    /// May another try help?
    again: bool,
}

impl<E: Into<Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self { error: error.into(), again: false }
    }
}

/// What has come so far.
struct Part {
    writer: BlobWriter,
    /// What the rest must belong to, as `If-Range` wants it; `None`: the transfer cannot be continued.
    validator: Option<String>,
}

/// One address that is asked.
struct Client<'a> {
    address: &'a HttpAddress,
    first: Url,
    authorization: Option<String>,
    transport: Transport,
}

impl<'a> Client<'a> {
    fn new(address: &'a HttpAddress, asker: &Asker<'_>) -> Result<Self, Error> {
        let refused = |detail: &str| Error::Refused { what: address.to_string(), detail: detail.to_owned(), help: None };
        let first = Url::parse(&escaped(&address.without_userinfo())).map_err(refused)?;
        let transport = Transport::new(Trust::default(), &asker.settings.proxies, asker.settings.limits).map_err(|odd| refused(&odd))?;
        Ok(Self { address, first, authorization: authorization(address, asker)?, transport })
    }

    fn fetch(&self, store: &Store, known: Option<&Known>, asker: &mut Asker<'_>) -> Result<Download, Error> {
        let limits = *self.transport.limits();
        let (mut part, mut tries, mut proved) = (None, 0, 0);
        loop {
            asker.go_on()?;
            match self.once(store, known, &mut part, asker) {
                Ok(found) => {
                    found.remember(store, self.address)?;
                    return Ok(found.download(self.address));
                }
                Err(trouble) => {
                    let done = part.as_ref().map_or(0, |part: &Part| part.writer.size());
                    tries = if done >= proved + PROOF_OF_LIFE { 1 } else { tries + 1 };
                    proved = proved.max(done);
                    if !trouble.again || tries >= limits.attempts {
                        return Err(trouble.error);
                    }
                    thread::sleep(self.transport.backoff(tries));
                }
            }
        }
    }

    /// One try; what came before the connection was lost stays in `part`.
    fn once(&self, store: &Store, known: Option<&Known>, part: &mut Option<Part>, asker: &mut Asker<'_>) -> Result<Known, Trouble> {
        let mut begun = part.take().filter(|part| part.validator.is_some() && part.writer.size() > 0);
        let mut headers = vec![(header::ACCEPT_ENCODING, "identity".to_owned())];
        match &begun {
            Some(begun) => {
                headers.push((header::RANGE, format!("bytes={}-", begun.writer.size())));
                headers.extend(begun.validator.clone().map(|validator| (header::IF_RANGE, validator)));
            }
            None => headers.extend(known.map(Known::conditions).unwrap_or_default()),
        }
        let answer = self.ask(&headers)?;
        let status = answer.status();
        let had = known.filter(|_| begun.is_none());
        if let Some(known) =
            had.filter(|known| status == StatusCode::NOT_MODIFIED || (status.is_success() && known.is_same(answer.headers())))
        {
            return Ok(known.clone());
        }
        if status == StatusCode::PARTIAL_CONTENT {
            // Not the range that was asked for: the next try begins anew.
            let size = begun.as_ref().map(|begun| begun.writer.size());
            if size.is_none() || first_byte(answer.headers()) != size {
                return Err(self.network("it does not continue where a transfer was broken off"));
            }
        } else if !status.is_success() {
            *part = begun;
            return Err(self.refusal(&answer));
        } else {
            begun = None;
        }
        let mut current = match begun {
            Some(begun) => begun,
            None => Part { writer: store.blob_writer()?, validator: validator(answer.headers()) },
        };
        let headers = answer.headers().clone();
        match self.pour(answer, &mut current.writer, asker) {
            Ok(()) => {
                let (digest, size) = current.writer.commit(None)?;
                Ok(Known::of(digest, size, &headers))
            }
            Err(trouble) => {
                *part = Some(current);
                Err(trouble)
            }
        }
    }

    /// Asks, and follows where it is sent.
    fn ask(&self, headers: &[(HeaderName, String)]) -> Result<Answer, Trouble> {
        let mut url = self.first.clone();
        for _redirect in 0..=MOST_REDIRECTS {
            let mut all = headers.to_vec();
            if let Some(value) = self.authorization.as_ref().filter(|_| url.same_origin(&self.first)) {
                all.push((header::AUTHORIZATION, value.clone()));
            }
            let request = Request { method: Method::GET, url: &url, headers: &all, content: Content::None, pace: Pace::Stream };
            let answer = self.transport.send(request).map_err(|fault| self.fault(&fault))?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = text(answer.headers(), &header::LOCATION).ok_or_else(|| self.hostile("a redirect to nowhere"))?;
            let next = url.join(&location).map_err(|odd| self.hostile(&format!("a redirect that is not one: {odd}")))?;
            self.check(&next)?;
            url = next;
        }
        Err(self.hostile(&format!("more than {MOST_REDIRECTS} redirects")).into())
    }

    /// Nobody has business to send us to the local link, where a cloud's metadata are, and no stranger to this machine.
    fn check(&self, next: &Url) -> Result<(), Error> {
        if next.host() == self.first.host() {
            return Ok(());
        }
        let places = |host: &str| {
            let found = (host, 0).to_socket_addrs().into_iter().flatten().map(|place| place.ip().to_string());
            found.chain([host.to_owned()]).collect::<Vec<_>>()
        };
        let next_places = places(next.host());
        let on_link = next_places.iter().any(|place| is_internal(place) && !is_loopback(place));
        let here = |all: &[String]| all.iter().any(|place| is_loopback(place));
        if on_link || (here(&next_places) && !here(&places(self.first.host()))) {
            return Err(self.hostile(&format!("a redirect to `{}`, which is this machine or its local link", next.host())));
        }
        Ok(())
    }

    /// Copies a body to its end.
    fn pour(&self, answer: Answer, writer: &mut BlobWriter, asker: &mut Asker<'_>) -> Result<(), Trouble> {
        let encoding = text(answer.headers(), &header::CONTENT_ENCODING).map(|encoding| encoding.trim().to_ascii_lowercase());
        let packed = match encoding.as_deref() {
            None | Some("" | "identity") => false,
            Some("gzip") => true,
            Some(other) => return Err(self.hostile(&format!("the content encoding `{}`", harmless(other))).into()),
        };
        let length: Option<u64> = text(answer.headers(), &header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let total = length.filter(|_| !packed).map(|length| writer.size().saturating_add(length));
        let body = answer.into_body().into_reader();
        let mut body: Box<dyn Read> = if packed { Box::new(flate2::read::MultiGzDecoder::new(body)) } else { Box::new(body) };
        let mut buffer = vec![0; BUFFER];
        let mut patience = Patience::new();
        loop {
            let count = body.read(&mut buffer).map_err(|error| self.fault(&exchange::classify_io(&error)))?;
            if count == 0 {
                break;
            }
            writer.write_all(buffer.get(..count).unwrap_or_default()).map_err(PathError::new("write", "a download"))?;
            asker.go_on()?;
            let (done, what) = (writer.size(), format!("downloading {}", self.address));
            if total.is_some() || patience.is_due() {
                (asker.progress)(Progress::Bytes { what, done, total });
            }
        }
        match total.filter(|total| writer.size() != *total) {
            Some(total) => Err(self.network(&format!("the connection ended after {} of {total} bytes", writer.size()))),
            None => Ok(()),
        }
    }

    fn network(&self, detail: &str) -> Trouble {
        Trouble { error: Error::Network { what: self.address.to_string(), detail: detail.to_owned() }, again: true }
    }

    fn hostile(&self, detail: &str) -> Error {
        Error::Hostile { what: self.address.to_string(), detail: detail.to_owned() }
    }

    fn fault(&self, fault: &Fault) -> Trouble {
        Trouble { again: fault.cause == Cause::Lost, ..self.network(&fault.detail) }
    }

    fn refusal(&self, answer: &Answer) -> Trouble {
        let (what, status) = (self.address.to_string(), answer.status());
        let detail = format!("the server answers {}", harmless(&status.to_string()));
        match status.as_u16() {
            401 | 403 | 407 => {
                let help = format!("a token is given as the secret `HTTP_AUTH_TOKEN_{}`", self.address.host());
                Error::Denied { what, detail, help: Some(help) }.into()
            }
            408 | 429 | 500..=599 => self.network(&detail),
            400..=499 => Error::Missing { what, detail, help: None }.into(),
            _ => self.hostile(&detail).into(),
        }
    }
}

/// Who we are there: BuildKit's secrets by host, else what stands in the URL.
fn authorization(address: &HttpAddress, asker: &Asker<'_>) -> Result<Option<String>, Error> {
    if let Some(token) = asker.secret(&format!("HTTP_AUTH_TOKEN_{}", address.host()))? {
        return Ok(Some(format!("Bearer {token}")));
    }
    if let Some(value) = asker.secret(&format!("HTTP_AUTH_HEADER_{}", address.host()))? {
        return Ok(Some(value));
    }
    Ok(address.userinfo().map(|(user, password)| basic(&user, &password)))
}

/// What the rest of a transfer must belong to: a strong tag, or nothing.
fn validator(headers: &HeaderMap) -> Option<String> {
    let packed = headers.contains_key(header::CONTENT_ENCODING);
    text(headers, &header::ETAG).filter(|tag| tag.starts_with('"') && !packed)
}

fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = text(headers, &header::CONTENT_RANGE)?;
    range.trim().strip_prefix("bytes")?.trim().split('-').next()?.parse().ok()
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// What a URL may be written with and not be sent with, as Go escapes it.
fn escaped(url: &str) -> String {
    use std::fmt::Write as _;
    url.bytes().fold(String::with_capacity(url.len()), |mut text, byte| {
        if byte == b' ' || byte >= 0x80 {
            // Writing to a String cannot fail.
            let _ignored = write!(text, "%{byte:02X}");
        } else {
            text.push(char::from(byte));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_validates_only_what_was_old_when_it_was_sent() {
        let headers = |last: &str| {
            let mut headers = HeaderMap::new();
            drop(headers.insert(header::DATE, "Sun, 06 Nov 1994 08:50:00 GMT".parse().unwrap()));
            drop(headers.insert(header::LAST_MODIFIED, last.parse().unwrap()));
            headers
        };
        let digest = Digest::of(b"");
        let old = Known::of(digest, 0, &headers("Sun, 06 Nov 1994 08:49:00 GMT"));
        assert_eq!(old.conditions(), [(header::IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:00 GMT".to_owned())]);
        assert!(Known::of(digest, 0, &headers("Sun, 06 Nov 1994 08:49:59 GMT")).conditions().is_empty());
    }

    #[test]
    fn a_weak_tag_is_the_same_tag_and_continues_nothing() {
        let mut headers = HeaderMap::new();
        drop(headers.insert(header::ETAG, "W/\"a\"".parse().unwrap()));
        let known = Known { digest: Digest::of(b""), size: 0, etag: Some("\"a\"".into()), last_modified: None, dated: false };
        assert!(known.is_same(&headers));
        assert_eq!(validator(&headers), None);
    }
}
