//! One blob from a registry into the store: continued after a lost connection, never more than was promised.
//!
//! Source: distribution-spec "Pulling blobs"; RFC 9110 14 (ranges).

use std::{io::Read, time::Instant};

use ureq::http::{Method, StatusCode, header};

use super::{
    Progress,
    client::{Client, Report},
    endpoint::{Attempt, Call, Endpoint},
    error::{Error, Trouble},
    token::Scope,
};
use crate::{
    http::{Answer, Limits, Pace},
    oci::{Descriptor, Reference},
    store::{self, BlobWriter, Store},
};

/// So much new counts as a transfer that works: the tries are counted from anew.
const PROOF_OF_LIFE: u64 = 1024 * 1024;
const BUFFER: usize = 128 * 1024;

/// What has come so far.
struct Part {
    writer: BlobWriter,
    done: u64,
    /// More than one answer is in it.
    patched: bool,
}

impl Client {
    pub(super) fn download(&self, name: &Reference, blob: &Descriptor, store: &Store, report: &mut Report<'_>) -> Result<(), Error> {
        if store.has_blob(&blob.digest, blob.size) {
            return Ok(());
        }
        let endpoint = self.endpoint(&name.registry)?;
        let again = match Self::transfer(&endpoint, name, blob, store, report)? {
            Outcome::Committed => return Ok(()),
            Outcome::PatchedWrong => Self::transfer(&endpoint, name, blob, store, report)?,
        };
        match again {
            Outcome::Committed => Ok(()),
            Outcome::PatchedWrong => Err(endpoint.mismatch("a blob in two parts", &blob.digest, &"other bytes")),
        }
    }

    fn transfer(
        endpoint: &Endpoint,
        name: &Reference,
        blob: &Descriptor,
        store: &Store,
        report: &mut Report<'_>,
    ) -> Result<Outcome, Error> {
        let (mut part, mut tries, mut proved) = (None, 0, 0);
        let part = loop {
            let current = match part.take() {
                Some(current) => current,
                None => Part { writer: store.blob_writer()?, done: 0, patched: false },
            };
            let mut current = Some(current);
            match read_on(endpoint, name, blob, &mut current, report) {
                Ok(whole) => break whole,
                Err(trouble) => {
                    let done = current.as_ref().map_or(0, |part: &Part| part.done);
                    tries = if done >= proved + PROOF_OF_LIFE { 1 } else { tries + 1 };
                    proved = proved.max(done);
                    endpoint.pause(trouble, tries)?;
                    part = current;
                }
            }
        };
        match part.writer.commit(Some((&blob.digest, blob.size))) {
            Ok(_) => Ok(Outcome::Committed),
            Err(store::Error::Mismatch { .. }) if part.patched => Ok(Outcome::PatchedWrong),
            Err(store::Error::Mismatch { expected, found, .. }) => Err(endpoint.mismatch("a blob", &expected, &found)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Of a transfer that came to its end.
enum Outcome {
    Committed,
    /// The parts may be of different servers that do not agree; once more, in one piece, may do.
    PatchedWrong,
}

/// Reads to the end; what came before an error stays in `part`, if it is of use.
fn read_on(endpoint: &Endpoint, name: &Reference, blob: &Descriptor, part: &mut Option<Part>, report: &mut Report<'_>) -> Attempt<Part> {
    let what = format!("blob {} of `{}`", blob.digest, name.familiar());
    let Some(mut current) = part.take() else { return Err(endpoint.network("nothing was begun")) };
    let begin = current.done;
    let scope = Scope::pull(&name.repository);
    let asked = endpoint.url(&format!("{}/blobs/{}", name.repository, blob.digest)).and_then(|url| {
        let mut call = Call { pace: Pace::Stream, ..Call::new(Method::GET, url, &scope) };
        // Bytes that a proxy packed are not the blob's.
        call.headers.push((header::ACCEPT_ENCODING, "identity".to_owned()));
        if begin > 0 {
            call.headers.push((header::RANGE, format!("bytes={begin}-")));
        }
        endpoint.ask(call)
    });
    let answer = match asked {
        Ok(answer) => answer,
        Err(trouble) => {
            *part = Some(current);
            return Err(trouble);
        }
    };
    let skip = match first_byte(endpoint, &answer, begin, blob, &what) {
        Ok(first) => begin - first,
        // Not the range that was asked for: the part is dropped, the next try begins anew.
        Err(None) => return Err(endpoint.network("it does not continue where a transfer was broken off")),
        Err(Some(trouble)) => return Err(trouble),
    };
    if !answer.status().is_success() {
        *part = Some(current);
        return Err(endpoint.refusal(answer, &what));
    }
    current.patched |= begin > 0;
    match pour(endpoint, answer, &mut current, skip, blob, report) {
        Ok(()) => Ok(current),
        Err(trouble) => {
            *part = Some(current);
            Err(trouble)
        }
    }
}

/// Where the answer begins. `Err(None)`: the range is not the one that was asked for.
fn first_byte(endpoint: &Endpoint, answer: &Answer, begin: u64, blob: &Descriptor, what: &str) -> Result<u64, Option<Trouble>> {
    let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let length: Option<u64> = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let promised = |first: u64| match length.filter(|length| *length != blob.size - first) {
        Some(length) => Err(Some(endpoint.mismatch(&format!("the size of {what}"), &blob.size, &(length + first)).into())),
        None => Ok(first),
    };
    match answer.status() {
        StatusCode::OK => promised(0),
        StatusCode::PARTIAL_CONTENT => {
            let range = text(header::CONTENT_RANGE).and_then(|range| range.trim().strip_prefix("bytes"));
            let first = range.and_then(|range| range.trim().split('-').next()?.parse::<u64>().ok());
            if first == Some(begin) && begin > 0 { promised(begin) } else { Err(None) }
        }
        StatusCode::RANGE_NOT_SATISFIABLE => Err(None),
        _ => Ok(0),
    }
}

/// Copies a body into the part; the first `skip` bytes are there already.
fn pour(endpoint: &Endpoint, answer: Answer, part: &mut Part, mut skip: u64, blob: &Descriptor, report: &mut Report<'_>) -> Attempt<()> {
    let mut body = answer.into_body().into_reader();
    let mut buffer = Vec::new();
    let mut watch = Watch::new(endpoint.limits());
    loop {
        buffer.resize(BUFFER, 0);
        let count = body.read(&mut buffer).map_err(|error| endpoint.lost(&error))?;
        if count == 0 {
            break;
        }
        buffer.truncate(count);
        let old = usize::try_from(skip.min(count as u64)).unwrap_or(count);
        skip -= old as u64;
        drop(buffer.drain(..old));
        let done = part.done + buffer.len() as u64;
        if done > blob.size {
            return Err(endpoint.mismatch("the size of a blob", &blob.size, &"more").into());
        }
        buffer = part.writer.write_block(buffer).map_err(|source| Error::Disk { digest: blob.digest, source })?;
        part.done = done;
        if !report(Progress { what: blob.digest, done: part.done, total: blob.size }) {
            return Err(Trouble { again: super::error::Again::No, ..endpoint.network("the transfer was stopped") });
        }
        if !watch.is_alive(count as u64) {
            return Err(endpoint.network("the transfer is too slow"));
        }
    }
    if part.done < blob.size {
        return Err(endpoint.network(&format!("the connection ended after {} of {} bytes", part.done, blob.size)));
    }
    Ok(())
}

/// Sees a sender that gives a byte now and then.
struct Watch {
    began: Instant,
    bytes: u64,
    limits: Limits,
}

impl Watch {
    fn new(limits: &Limits) -> Self {
        Self { began: Instant::now(), bytes: 0, limits: *limits }
    }

    fn is_alive(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        if self.began.elapsed() < self.limits.window {
            return true;
        }
        let enough = self.bytes >= self.limits.least;
        *self = Self::new(&self.limits);
        enough
    }
}
