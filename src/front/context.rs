//! A context, brought here: a directory is where it is; an archive is unpacked and a repository checked out into a scratch
//! directory of the store, which lives as long as the value.
//!
//! A URL that is no repository's has an archive, or else it is a Dockerfile, alone in its context under the name `context`. An
//! ignore file counts in a user's directory only: it chooses what is sent, and what is far off has been sent already. That
//! is told, because not everybody expects it.
//!
//! An archive is unpacked as the user, in a thread of its own, so that progress is shown and Ctrl-C works while nobody sends
//! anything. What it may do is decided in `layer::unpack`.
//!
//! Source: BuildKit `frontend/dockerui/context.go`, `config.go`; docker buildx `build/opt.go`.

use std::{
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{Order, Request, Session, dockerfile_text};
use crate::{
    context::{self, Unpacked},
    engine::{Event, Files},
    error::{Error, Kind},
    fetch::http::Download,
    layer::archive,
    remote::{GitAddress, HttpAddress, Times},
    store::Scratch,
};

/// What takes longer is shown, and how often.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is asked whether the build was cancelled.
const WATCH: Duration = Duration::from_millis(50);

/// Where the context comes from.
#[derive(Debug)]
pub enum ContextFrom {
    /// There is none: an empty one.
    Nowhere,
    /// A directory of the user's.
    Directory(PathBuf),
    /// An archive that somebody sends.
    Archive(Stream),
    /// An archive or a Dockerfile on a server.
    Http(HttpAddress),
    /// A repository.
    Git(GitAddress),
}

/// What a URL's file is called where it is no archive.
const ALONE: &str = "context";

/// Bytes that come from somewhere.
pub struct Stream(Box<dyn Read + Send>);

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

/// What was sent where it can be a context or a Dockerfile.
#[derive(Debug)]
pub enum Sent {
    /// An archive, by its first bytes.
    Archive(Stream),
    /// Something else: a Dockerfile.
    Other(Stream),
    /// Nothing at all.
    Nothing,
}

impl Sent {
    /// Tells by the first bytes what it is.
    pub fn of(mut from: impl Read + Send + 'static) -> io::Result<Self> {
        let mut head = Vec::with_capacity(archive::BEGINNING);
        let _length = (&mut from).take(archive::BEGINNING as u64).read_to_end(&mut head)?;
        let (is_archive, is_nothing) = (archive::begins(&head), head.is_empty());
        let all = Stream(Box::new(io::Cursor::new(head).chain(from)));
        Ok(match (is_archive, is_nothing) {
            (true, _) => Self::Archive(all),
            (false, false) => Self::Other(all),
            (false, true) => Self::Nothing,
        })
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

/// A context that is here.
#[derive(Debug)]
pub struct Context {
    /// Its files; `None`: it is empty.
    pub(super) files: Option<Files>,
    /// What tells it from other projects' in the cache's explanations.
    pub(super) project: String,
    /// When it was made, in seconds since 1970, if anybody knows.
    pub(super) time: Option<i64>,
    /// It is a Dockerfile and nothing else: its name.
    pub(super) alone: Option<&'static str>,
    /// Of an archive: what it holds.
    unpacked: Option<Unpacked>,
    /// Where it was made; gone with this.
    _scratch: Option<Scratch>,
}

impl Context {
    /// One with nothing in it.
    pub fn empty() -> Self {
        Self { files: None, project: String::new(), time: None, alone: None, unpacked: None, _scratch: None }
    }

    /// Brings the build context here.
    pub fn bring(from: ContextFrom, request: &Request, session: &Session<'_>, event: &mut dyn FnMut(Event)) -> Result<Self, Error> {
        let from =
            if let ContextFrom::Git(address) = from { ContextFrom::Git(address.with_git_dir(request.plan.keeps_git_dir())) } else { from };
        Self::called("the context", from, request, session, event)
    }

    /// Brings one here; `shown` is what messages call it.
    pub(super) fn called(
        shown: &str,
        from: ContextFrom,
        request: &Request,
        session: &Session<'_>,
        event: &mut dyn FnMut(Event),
    ) -> Result<Self, Error> {
        let context = match from {
            ContextFrom::Nowhere => return Ok(Self::empty()),
            ContextFrom::Directory(dir) => {
                let dir = dockerfile_text::directory(&dir)?;
                let project = dir.to_string_lossy().into_owned();
                return Ok(Self { files: Some(Files::Directory { dir, dockerfile: None }), project, ..Self::empty() });
            }
            ContextFrom::Archive(stream) => Self::unpack(stream, shown, session, event).map(|context| context.of("-", None))?,
            ContextFrom::Http(address) => Self::download(&address, shown, request, session, event)?,
            ContextFrom::Git(address) => Self::check_out(address, request, session, event)?,
        };
        if context.small_file(dockerfile_text::IGNORE).is_ok_and(|found| found.is_some()) {
            let text =
                format!("the {} of {shown} is not applied: it chooses what is sent, and this was sent already", dockerfile_text::IGNORE);
            event(Event::Note { text });
        }
        Ok(context)
    }

    /// An archive or a Dockerfile on a server. It is as old as the server says, else as its newest file.
    fn download(
        address: &HttpAddress,
        shown: &str,
        request: &Request,
        session: &Session<'_>,
        event: &mut dyn FnMut(Event),
    ) -> Result<Self, Error> {
        let download = session.remotes.download(address, None, Order::of(request, session), event)?;
        let gone = || Error::new(Kind::Environment, format!("what {address} has is not in the store"));
        let blob = session.store.open_blob(&download.blob())?.ok_or_else(gone)?;
        let time = download.last_modified;
        match Sent::of(blob).map_err(|error| gone().because(&error))? {
            Sent::Archive(stream) => Self::unpack(stream, shown, session, event).map(|context| context.of(&address.to_string(), time)),
            Sent::Other(_) | Sent::Nothing => {
                let scratch = session.store.scratch()?;
                Download { name: ALONE.to_owned(), ..download }.place(session.store, scratch.path())?;
                let files = Some(Files::Fetched(scratch.path().to_owned()));
                let alone = Self { files, alone: Some(ALONE), _scratch: Some(scratch), ..Self::empty() };
                Ok(alone.of(&address.to_string(), time))
            }
        }
    }

    /// The files of a commit. Where a `SOURCE_DATE_EPOCH` is asked for they are as old as the commit.
    fn check_out(mut address: GitAddress, request: &Request, session: &Session<'_>, event: &mut dyn FnMut(Event)) -> Result<Self, Error> {
        if request.plan.gives_epoch() {
            address.times = Times::Commit;
        }
        let checkout = session.remotes.checkout(&address, Order::of(request, session), event)?;
        event(Event::Note { text: format!("{address} is at {}", checkout.commit) });
        let context = Self { files: Some(Files::Fetched(checkout.dir)), _scratch: Some(checkout.scratch), ..Self::empty() };
        Ok(context.of(&address.to_string(), Some(checkout.commit_time)))
    }

    /// Says where it comes from, and when it was made.
    fn of(self, project: &str, time: Option<i64>) -> Self {
        Self { project: project.to_owned(), time: time.or(self.time), ..self }
    }

    /// Unpacks an archive.
    fn unpack(stream: Stream, shown: &str, session: &Session<'_>, event: &mut dyn FnMut(Event)) -> Result<Self, Error> {
        let scratch = session.store.scratch()?;
        let dir = scratch.path().to_owned();
        let into = dir.clone();
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted { from: stream, read: Arc::clone(&read) };
        let (say, hear) = mpsc::channel();
        let worker = thread::Builder::new().spawn(move || {
            // Nobody hears it after Ctrl-C.
            let _unheard = say.send(Unpacked::unpack(counted, &into));
        });
        drop(worker.map_err(|error| Error::new(Kind::Environment, "cannot start a thread").because(&error))?);
        let mut last = Instant::now();
        let unpacked = loop {
            match hear.recv_timeout(WATCH) {
                Ok(result) => break result.map_err(Error::from)?,
                Err(_nothing_yet) if session.cancel.is_cancelled() => {
                    return Err(Error::new(Kind::Interrupted, "the build was interrupted"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Error::new(Kind::Bug, "unpacking ended without a result")),
            }
            if last.elapsed() >= PATIENCE {
                last = Instant::now();
                event(Event::Note { text: format!("unpacking {shown}: {} bytes so far", read.load(Ordering::Relaxed)) });
            }
        };
        event(Event::Note { text: format!("{shown} is an archive of {} bytes", read.load(Ordering::Relaxed)) });
        let time = unpacked.newest();
        Ok(Self { files: Some(Files::Unpacked(dir)), time, unpacked: Some(unpacked), _scratch: Some(scratch), ..Self::empty() })
    }

    /// A small file of a context that somebody else made; links are followed inside of it. `None`: it is not there.
    pub(super) fn small_file(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let found = match (&self.unpacked, &self.files) {
            (Some(unpacked), _) => unpacked.small_file(path, dockerfile_text::LIMIT),
            (None, Some(Files::Directory { dir, .. } | Files::Fetched(dir) | Files::Unpacked(dir))) => {
                context::small_file(dir, path, dockerfile_text::LIMIT)
            }
            (None, None) => return Ok(None),
        };
        found.map_err(|error| Error::new(Kind::Request, format!("cannot read `{}` of the context", path.escape_debug())).because(&error))
    }

    /// The user's directory, if it is one.
    pub(super) fn directory(&self) -> Option<&Path> {
        if let Some(Files::Directory { dir, .. }) = &self.files { Some(dir) } else { None }
    }

    /// Its files for the engine; an ignore file of the Dockerfile's own replaces the directory's.
    pub(super) fn files(&self, dockerfile: Option<&Path>) -> Result<Option<Files>, Error> {
        let Some(Files::Directory { dir, .. }) = &self.files else { return Ok(self.files.clone()) };
        let dockerfile = dockerfile.map(std::path::absolute).transpose();
        let dockerfile = dockerfile.map_err(|error| Error::new(Kind::Environment, "the working directory is gone").because(&error))?;
        Ok(Some(Files::Directory { dir: dir.clone(), dockerfile }))
    }
}

/// Counts what is read.
struct Counted {
    from: Stream,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(into)?;
        let _before = self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
