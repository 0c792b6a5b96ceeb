//! The engine's own process: its end of the socket, and the way in.

use std::{
    io::BufReader,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Mutex,
};

use super::{
    Event, Fetched, Front, Job, build,
    driver::Place,
    timing::{Laps, Phase},
    whole,
    wire::{self, BuiltImage, FromEngine, FromFront},
};
use crate::{
    error::{Error, Kind},
    oci::Descriptor,
    plan::CopySource,
    store::Store,
};

/// The front, at the other end of a socket.
#[derive(Debug)]
pub struct Remote {
    /// Held from a question to its answer: one at a time.
    answers: Mutex<BufReader<UnixStream>>,
    /// Held for one message.
    to: Mutex<UnixStream>,
    lifeline: OwnedFd,
    /// For fds.
    handoff: OwnedFd,
}

impl Remote {
    /// `lifeline` hangs up when the build is cancelled or the front is gone; `handoff` takes fds.
    pub fn new(socket: UnixStream, lifeline: OwnedFd, handoff: OwnedFd) -> std::io::Result<Self> {
        let to = Mutex::new(socket.try_clone()?);
        Ok(Self { answers: Mutex::new(BufReader::new(socket)), to, lifeline, handoff })
    }

    /// Meanwhile the events of other steps go on.
    fn ask(&self, question: &FromEngine) -> Result<FromFront, Error> {
        self.ask_with(question, || Ok(()))
    }

    /// With something that the front takes when it has the question.
    fn ask_with(&self, question: &FromEngine, hand_over: impl FnOnce() -> std::io::Result<()>) -> Result<FromFront, Error> {
        let mut answers = self.answers.lock().map_err(|_poisoned| gone())?;
        hand_over().map_err(|_error| gone())?;
        self.send(question).map_err(|_error| gone())?;
        wire::receive(&mut *answers).ok().flatten().ok_or_else(gone)
    }

    fn send(&self, message: &FromEngine) -> std::io::Result<()> {
        wire::send(&mut *whole(&self.to), message)
    }

    fn tell(&self, message: &FromEngine) {
        // If nobody listens any more, the lifeline has hung up as well, and ends the build.
        let _gone = self.send(message);
    }
}

fn gone() -> Error {
    Error::new(Kind::Interrupted, "the program that asked for this build is gone")
}

impl Front for Remote {
    fn fetch(&self, image: &str, blob: &Descriptor) -> Result<(), Error> {
        match self.ask(&FromEngine::Fetch { image: image.to_owned(), blob: blob.clone() })? {
            FromFront::Fetched(result) => result,
            FromFront::Secret(_) | FromFront::Agent(_) | FromFront::Source(_) => Err(gone()),
        }
    }

    fn shared(&self, cache: usize, blob: &Descriptor) -> Result<(), Error> {
        match self.ask(&FromEngine::Shared { cache, blob: blob.clone() })? {
            FromFront::Fetched(result) => result,
            FromFront::Secret(_) | FromFront::Agent(_) | FromFront::Source(_) => Err(gone()),
        }
    }

    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.ask(&FromEngine::Secret { id: id.to_owned() })? {
            FromFront::Secret(result) => result,
            FromFront::Fetched(_) | FromFront::Agent(_) | FromFront::Source(_) => Err(gone()),
        }
    }

    fn source(&self, source: &CopySource) -> Result<Fetched, Error> {
        match self.ask(&FromEngine::Source(source.clone()))? {
            FromFront::Source(result) => result,
            FromFront::Fetched(_) | FromFront::Secret(_) | FromFront::Agent(_) => Err(gone()),
        }
    }

    fn agent(&self, id: &str, listener: BorrowedFd<'_>, until: BorrowedFd<'_>) -> Result<bool, Error> {
        match self.ask_with(&FromEngine::Agent { id: id.to_owned() }, || wire::hand_over(&self.handoff, listener, until))? {
            FromFront::Agent(result) => result,
            FromFront::Source(_) | FromFront::Fetched(_) | FromFront::Secret(_) => Err(gone()),
        }
    }

    fn event(&self, event: Event) {
        self.tell(&FromEngine::Event(event));
    }

    fn cancelled(&self) -> BorrowedFd<'_> {
        self.lifeline.as_fd()
    }
}

/// Serves one job on a socket, inside of the user namespace if there is to be one. `done` are the parts that are over already.
pub fn serve(
    socket: UnixStream,
    lifeline: OwnedFd,
    handoff: OwnedFd,
    place: &Place,
    mut laps: Laps,
    mut done: Vec<Phase>,
) -> Result<(), Error> {
    let remote = Remote::new(socket, lifeline, handoff).map_err(|_error| gone())?;
    let job: Option<Job> = wire::receive(&mut *whole(&remote.answers)).ok().flatten();
    let Some(job) = job else { return Err(gone()) };
    done.push(laps.lap("received what is to be done"));
    let store = Store::open(&job.store).map_err(Error::from).map(|store| store.within(job.bounds));
    done.push(laps.lap("opened the store"));
    if job.phases {
        for phase in done {
            remote.event(Event::Phase(phase));
        }
    }
    let built = store.as_ref().map_err(Clone::clone).and_then(|store| {
        let built = build::build(&job, store, place, &remote).map_err(|error| error.with_room(store));
        if let Some(told) = store.told() {
            remote.event(Event::Note { text: told.to_string() });
        }
        built
    });
    remote.tell(&match built {
        Ok(images) => {
            let written = store.as_ref().map(Store::written).unwrap_or_default();
            let built = images.into_iter().map(|(platform, made)| BuiltImage {
                platform,
                manifest: made.image.manifest,
                moments: made.moments,
                written: written.clone(),
            });
            FromEngine::Built(built.collect())
        }
        Err(error) => FromEngine::Failed(error),
    });
    // What it holds in the store is held until the front holds it, and says so by hanging up.
    if let (Ok(_store), Ok(mut socket)) = (&store, remote.answers.lock()) {
        let _hung_up: std::io::Result<Option<FromFront>> = wire::receive(&mut *socket);
    }
    Ok(())
}
