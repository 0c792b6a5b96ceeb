//! One blob from the store into a registry: asked for first, mounted if it can be, and otherwise uploaded, going on
//! where the server says it is when a connection was lost.
//!
//! ```text
//! HEAD ─ there ──────────────────────────────────────────→ done
//!   └ POST?mount&from ─ 201 ─────────────────────────────→ done
//!       └ 202, or POST ─→ PATCH… ─→ PUT?digest ─ 201 ────→ done
//!                          └ lost ─→ GET: how much is there? ─→ PATCH from there, or POST again
//! ```
//!
//! Source: distribution-spec "Pushing blobs", "Mounting a blob", "Push in chunks".

use std::io::{self, Read};

use ureq::http::{Method, StatusCode, header};

use super::{
    Progress,
    client::Report,
    endpoint::{Attempt, Call, Endpoint},
    error::{Again, Error, Trouble},
    token::Scope,
};
use crate::{
    http::{self, Answer, Content, Pace, Url},
    oci::{Descriptor, Digest},
    store::Store,
};

/// Blobs up to this size go with the last request, without a PATCH.
const SMALL: u64 = 64 * 1024;

/// What is uploaded, and to where.
pub(super) struct Upload<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) repository: &'a str,
    pub(super) blob: &'a Descriptor,
    /// Another repository of the registry that should have it.
    pub(super) from: Option<&'a str>,
}

/// An upload that the server knows.
pub(super) struct Session {
    url: Url,
    offset: u64,
}

impl Upload<'_> {
    /// Does the repository have it?
    pub(super) fn is_there(&self) -> Attempt<bool> {
        let scope = Scope::push(self.repository);
        let url = self.endpoint.url(&format!("{}/blobs/{}", self.repository, self.blob.digest))?;
        let answer = self.endpoint.ask(Call::new(Method::HEAD, url, &scope))?;
        let status = answer.status();
        if status.is_server_error() || matches!(status.as_u16(), 403 | 408 | 429) {
            return Err(self.endpoint.refusal(answer, &self.what()));
        }
        let length = answer.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        // A blob of this digest and another size is none that we could use.
        Ok(status.is_success() && length.is_none_or(|length: u64| length == self.blob.size))
    }

    /// Mounts it. `Err(Some)`: not mounted, but an upload was begun. `Err(None)`: neither; no reason to give up.
    pub(super) fn mount(&self, from: &str) -> Attempt<Result<(), Option<Session>>> {
        let scope = Scope { from: Some(from.to_owned()), ..Scope::push(self.repository) };
        let url = self.endpoint.url(&format!("{}/blobs/uploads/", self.repository))?;
        let url = url.with("mount", &self.blob.digest.to_string()).with("from", from);
        let call = Call { content: Content::Empty, ..Call::new(Method::POST, url.clone(), &scope) };
        let answer = self.endpoint.ask(call)?;
        Ok(match answer.status() {
            StatusCode::CREATED => Ok(()),
            StatusCode::ACCEPTED => Err(Some(self.session(&answer, &url, 0)?)),
            _ => Err(None),
        })
    }

    /// Uploads it from the store.
    pub(super) fn run(&self, store: &Store, begun: Option<Session>, report: &mut Report<'_>) -> Result<(), Error> {
        let (mut session, mut tries, mut best) = (begun, 0, 0);
        loop {
            let trouble = match self.attempt(store, &mut session, report) {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            let offset = session.as_ref().map_or(0, |session| session.offset);
            tries = if offset > best { 1 } else { tries + 1 };
            best = best.max(offset);
            self.endpoint.pause(trouble, tries)?;
            // A last answer that was lost: it may all be there.
            if matches!(self.is_there(), Ok(true)) {
                return Ok(());
            }
            session = session.and_then(|session| self.resume(&session));
        }
    }

    fn attempt(&self, store: &Store, session: &mut Option<Session>, report: &mut Report<'_>) -> Attempt<()> {
        let mut current = match session.take() {
            Some(current) => current,
            None => self.begin()?,
        };
        if current.offset == 0 && self.blob.size <= SMALL {
            return self.put(store, &current.url, true, report);
        }
        while current.offset < self.blob.size {
            match self.patch(store, &current, report) {
                Ok(next) if next.offset > current.offset => current = next,
                Ok(_) => return Err(self.endpoint.network("an upload does not move on")),
                Err(trouble) => {
                    *session = Some(current);
                    return Err(trouble);
                }
            }
        }
        // The session stays known: a lost PUT is asked after, not begun anew.
        let put = self.put(store, &current.url, false, report);
        *session = Some(current).filter(|_| put.is_err());
        put
    }

    fn begin(&self) -> Attempt<Session> {
        let scope = self.scope();
        let url = self.endpoint.url(&format!("{}/blobs/uploads/", self.repository))?;
        let call = Call { content: Content::Empty, ..Call::new(Method::POST, url.clone(), &scope) };
        let answer = self.endpoint.ask(call)?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.endpoint.refusal(answer, &self.what()));
        }
        self.session(&answer, &url, 0)
    }

    /// All that is left in one PATCH; the server may take less.
    fn patch(&self, store: &Store, at: &Session, report: &mut Report<'_>) -> Attempt<Session> {
        let (scope, left) = (self.scope(), self.blob.size - at.offset);
        let mut source = self.source(store, at.offset, report)?;
        let mut call = Call::new(Method::PATCH, at.url.clone(), &scope);
        call.headers.push((header::CONTENT_TYPE, "application/octet-stream".to_owned()));
        call.headers.push((header::CONTENT_RANGE, format!("{}-{}", at.offset, self.blob.size - 1)));
        let answer = self.endpoint.ask(Call { content: Content::Stream(&mut source, left), pace: Pace::Commit, ..call });
        let answer = source.blame(self.blob.digest, answer)?;
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(self.endpoint.network("an upload is not where it was expected to be"));
        }
        if !answer.status().is_success() {
            return Err(soon_if_lost(self.endpoint.refusal(answer, &self.what())));
        }
        let offset = match range_end(&answer) {
            None => self.blob.size,
            Some(end) if end < self.blob.size => end + 1,
            Some(_) => return Err(self.endpoint.protocol("an upload has more bytes than were sent").into()),
        };
        self.session_or(&answer, &at.url, offset)
    }

    /// Closes the upload, with the whole blob as its body if nothing was sent before.
    fn put(&self, store: &Store, url: &Url, whole: bool, report: &mut Report<'_>) -> Attempt<()> {
        let scope = self.scope();
        let mut call = Call::new(Method::PUT, url.with("digest", &self.blob.digest.to_string()), &scope);
        call.pace = Pace::Commit;
        let answer = if whole {
            let mut source = self.source(store, 0, report)?;
            call.headers.push((header::CONTENT_TYPE, "application/octet-stream".to_owned()));
            let answer = self.endpoint.ask(Call { content: Content::Stream(&mut source, self.blob.size), ..call });
            source.blame(self.blob.digest, answer)?
        } else {
            self.endpoint.ask(Call { content: Content::Empty, ..call })?
        };
        if !answer.status().is_success() {
            return Err(soon_if_lost(self.endpoint.refusal(answer, &self.what())));
        }
        confirm(self.endpoint, &answer, &self.blob.digest, "an uploaded blob")
    }

    /// Where the server is. `None`: the upload must begin anew.
    fn resume(&self, session: &Session) -> Option<Session> {
        let scope = self.scope();
        let answer = self.endpoint.ask(Call::new(Method::GET, session.url.clone(), &scope)).ok()?;
        // `0-0` is one byte, or none: old registries mean both by it.
        let end = range_end(&answer).filter(|end| *end > 0 && *end < self.blob.size && answer.status().is_success())?;
        self.session_or(&answer, &session.url, end + 1).ok()
    }

    fn session(&self, answer: &Answer, from: &Url, offset: u64) -> Attempt<Session> {
        Ok(Session { url: self.endpoint.location(answer, from)?, offset })
    }

    /// Without a new `Location` the old one stays.
    fn session_or(&self, answer: &Answer, from: &Url, offset: u64) -> Attempt<Session> {
        if answer.headers().contains_key(header::LOCATION) {
            self.session(answer, from, offset)
        } else {
            Ok(Session { url: from.clone(), offset })
        }
    }

    fn source<'s, 'f>(&self, store: &Store, offset: u64, report: &'s mut Report<'f>) -> Attempt<Source<'s, 'f>> {
        let disk = |source| Error::Disk { digest: self.blob.digest, source };
        let mut reader = store.open_blob(self.blob)?.ok_or(Error::Missing { digest: self.blob.digest })?;
        // Read, not sought: the digest is checked over all of it.
        let skipped = io::copy(&mut reader.by_ref().take(offset), &mut io::sink()).map_err(disk)?;
        if skipped != offset {
            return Err(disk(io::ErrorKind::UnexpectedEof.into()).into());
        }
        Ok(Source { reader: Box::new(reader), what: self.blob.digest, done: offset, total: self.blob.size, report, failed: None })
    }

    fn scope(&self) -> Scope {
        Scope { from: self.from.map(str::to_owned), ..Scope::push(self.repository) }
    }

    fn what(&self) -> String {
        format!("blob {} in `{}`", self.blob.digest, self.repository)
    }
}

/// An upload that the server no longer knows, or whose bytes it did not get right, is worth a new one.
fn soon_if_lost(trouble: Trouble) -> Trouble {
    if matches!(trouble.error, Error::NotFound { .. } | Error::Protocol { .. }) {
        Trouble { again: Again::Soon, ..trouble }
    } else {
        trouble
    }
}

/// The last byte of `Range: 0-<last>`.
fn range_end(answer: &Answer) -> Option<u64> {
    let text = answer.headers().get(header::RANGE)?.to_str().ok()?;
    let text = text.trim();
    text.strip_prefix("bytes=").unwrap_or(text).strip_prefix("0-")?.parse().ok()
}

/// What the registry says it stored must be what we sent.
pub(super) fn confirm(endpoint: &Endpoint, answer: &Answer, digest: &Digest, what: &str) -> Attempt<()> {
    let said = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
    match said.filter(|said| said.starts_with("sha256:") && **said != digest.to_string()) {
        Some(other) => Err(endpoint.mismatch(what, digest, &http::harmless(other)).into()),
        None => Ok(()),
    }
}

/// A blob of the store that is being sent.
struct Source<'s, 'f> {
    reader: Box<dyn Read>,
    what: Digest,
    done: u64,
    total: u64,
    report: &'s mut Report<'f>,
    failed: Option<io::Error>,
}

impl Source<'_, '_> {
    /// A failure of our own disk is not the registry's.
    fn blame(self, digest: Digest, answer: Attempt<Answer>) -> Attempt<Answer> {
        match self.failed {
            Some(source) => Err(Error::Disk { digest, source }.into()),
            None => answer,
        }
    }
}

impl Read for Source<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let fail = |this: &mut Self, error: io::Error| {
            let copy = io::Error::new(error.kind(), error.to_string());
            this.failed = Some(error);
            Err(copy)
        };
        match self.reader.read(buffer) {
            // The body has a length: an early end would be waited for.
            Ok(0) if self.done < self.total && !buffer.is_empty() => fail(self, io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.done += count as u64;
                if (self.report)(Progress { what: self.what, done: self.done, total: self.total }) {
                    Ok(count)
                } else {
                    fail(self, io::Error::other("the transfer was stopped"))
                }
            }
            Err(error) => fail(self, error),
        }
    }
}
