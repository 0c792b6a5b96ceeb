//! What is fetched from far off as the rest of the front uses it: with the build's secrets, its cancel and its events.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use super::{Agent, Cancel, Request, Secret, Session, agent};
use crate::{
    engine::{Event, Fetched, FetchedAs},
    error::{Error, Kind},
    fetch::{
        self, Asker, Progress, Settings, Ssh,
        git::{self, Checkout},
        http::{self, Download},
    },
    oci::Digest,
    plan::CopySource,
    remote::{GitAddress, HttpAddress, Transport},
    store::{Scratch, Store},
};

/// How far-off things are fetched.
#[derive(Debug)]
pub struct Remotes {
    settings: Settings,
}

/// On whose behalf.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Where what is fetched goes.
    pub store: &'a Store,
    /// The build's secrets: some are tokens, by their ids.
    pub secrets: &'a BTreeMap<String, Secret>,
    /// The agents of `--ssh`: `default` is git's.
    pub agents: &'a BTreeMap<String, Arc<Agent>>,
    /// The way to stop it.
    pub cancel: &'a Cancel,
}

impl<'a> Order<'a> {
    /// On behalf of a build.
    pub(super) fn of(request: &'a Request, session: &Session<'a>) -> Self {
        Self { store: session.store, secrets: &request.secrets, agents: &request.agents, cancel: session.cancel }
    }
}

impl Remotes {
    /// With what the machine and the user have.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// A file, into the store.
    pub fn download(
        &self,
        address: &HttpAddress,
        wanted: Option<&Digest>,
        order: Order<'_>,
        event: &mut dyn FnMut(Event),
    ) -> Result<Download, Error> {
        asked(&self.settings, order, event, |asker| http::download(order.store, address, wanted, asker))
    }

    /// The files of a commit, in a scratch directory of the store.
    pub fn checkout(&self, address: &GitAddress, order: Order<'_>, event: &mut dyn FnMut(Event)) -> Result<Checkout, Error> {
        let lent = lent(address, order)?;
        let agent = lent.as_ref().map(|lent| lent.socket.clone()).or_else(|| self.settings.ssh.agent.clone());
        let settings = Settings { ssh: Ssh { agent, ..self.settings.ssh.clone() }, ..self.settings.clone() };
        asked(&settings, order, event, |asker| git::checkout(order.store, address, asker))
    }
}

/// The agent of `--ssh default`, on a socket for git; it is served as long as this lives.
struct Lent {
    socket: PathBuf,
    _until: OwnedFd,
    _scratch: Scratch,
}

/// `None`: there is no such agent, or no need of one.
fn lent(address: &GitAddress, order: Order<'_>) -> Result<Option<Lent>, Error> {
    const ID: &str = "default";
    let Some(agent) = order.agents.get(ID).filter(|_| address.transport == Transport::Ssh) else { return Ok(None) };
    let broken = |error: std::io::Error| Error::new(Kind::Environment, "cannot serve an ssh agent to git").because(&error);
    let scratch = order.store.scratch()?;
    let socket = scratch.path().join("agent");
    let listener = UnixListener::bind(&socket).map_err(broken)?;
    listener.set_nonblocking(true).map_err(broken)?;
    let (until, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| broken(errno.into()))?;
    agent::serve(agent, ID, listener.into(), until)?;
    Ok(Some(Lent { socket, _until: held, _scratch: scratch }))
}

/// Has something done with the build's secrets, cancel and events.
fn asked<T>(
    settings: &Settings,
    order: Order<'_>,
    event: &mut dyn FnMut(Event),
    ask: impl FnOnce(&mut Asker<'_>) -> Result<T, fetch::Error>,
) -> Result<T, Error> {
    let secrets = |id: &str| match order.secrets.get(id) {
        Some(secret) => secret.read(id).map(Some).map_err(Into::into),
        None => Ok(None),
    };
    let mut last: Option<Instant> = None;
    let mut progress = |progress: Progress| match progress {
        Progress::Bytes { what, done, total: Some(total) } => event(Event::Transfer { what, done, total }),
        // How far it is from its end is not known: now and then a line says that it lives.
        Progress::Bytes { what, done, total: None } => {
            if last.is_none_or(|last| last.elapsed().as_secs() >= 1) {
                last = Some(Instant::now());
                event(Event::Note { text: format!("{what} {done} bytes") });
            }
        }
        Progress::Note(text) => event(Event::Note { text }),
    };
    let cancelled = || order.cancel.is_cancelled();
    let mut asker = Asker { settings, secrets: &secrets, cancelled: &cancelled, progress: &mut progress };
    ask(&mut asker).map_err(Error::from)
}

/// What one build has fetched for its ADDs: each source once, kept until the build is over.
#[derive(Debug, Default)]
pub(super) struct Sources(RefCell<Vec<(CopySource, Fetched, Scratch)>>);

impl Sources {
    /// The directory of a source, fetched when it is first asked for.
    pub(super) fn fetched(
        &self,
        source: &CopySource,
        remotes: &Remotes,
        order: Order<'_>,
        event: &mut dyn FnMut(Event),
    ) -> Result<Fetched, Error> {
        if let Some((_, fetched, _)) = self.0.borrow().iter().find(|(known, ..)| known == source) {
            return Ok(fetched.clone());
        }
        let (fetched, scratch) = match source {
            CopySource::Http { url, checksum } => {
                let download = remotes.download(url, checksum.as_ref(), order, event)?;
                let scratch = order.store.scratch()?;
                download.place(order.store, scratch.path())?;
                (Fetched { dir: scratch.path().to_owned(), what: FetchedAs::File { name: download.name } }, scratch)
            }
            CopySource::Git(address) => {
                let checkout = remotes.checkout(address, order, event)?;
                let kept = address.keep_git_dir == Some(true);
                let git_dir = kept.then(|| [address.shown_url(), checkout.reference.unwrap_or_default(), checkout.commit].join("\n"));
                (Fetched { dir: checkout.dir, what: FetchedAs::Tree { git_dir } }, checkout.scratch)
            }
            CopySource::Path(_) | CopySource::Inline(_) => return Err(Error::new(Kind::Bug, "a file of the context is not fetched")),
        };
        self.0.borrow_mut().push((source.clone(), fetched.clone(), scratch));
        Ok(fetched)
    }
}
