//! The engine's process: started, asked, answered, and waited for.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    io::BufReader,
    net::Shutdown,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
};

use super::{
    Agent, CacheFrom, Cancel, Registries, Remotes, Secret, agent, cache,
    remotes::{Order, Sources},
};
use crate::{
    engine::{
        self, Event, Job,
        driver::Place,
        timing::{By, Laps},
        wire::{self, BuiltImage, FromEngine, FromFront},
    },
    error::{Error, Kind},
    sandbox::{
        driver::{Preset, Refusal},
        enter::{self, EngineProcess, EnterError},
    },
    store::Store,
};

/// What the engine may ask for.
pub(super) struct Answers<'a> {
    pub(super) store: &'a Store,
    pub(super) registries: &'a Registries,
    pub(super) remotes: &'a Remotes,
    pub(super) secrets: &'a BTreeMap<String, Secret>,
    pub(super) agents: &'a BTreeMap<String, Arc<Agent>>,
    pub(super) cancel: &'a Cancel,
    /// Where the imported caches of the job come from.
    pub(super) caches: &'a [CacheFrom],
    /// What was fetched for ADD; it lives as long as the engine may read it.
    pub(super) sources: Sources,
}

/// The first argument that makes this program the engine.
pub const ENGINE: &str = "engine-process";

/// The stack of an engine that is a thread.
const STACK: usize = 16 << 20;

/// The outcome of a job.
type Outcome = Result<Vec<BuiltImage>, Error>;

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn broken(error: std::io::Error) -> Error {
    Error::new(Kind::Environment, "cannot speak to the engine").because(&error)
}

/// Has an engine do the job; `event` sees everything that happens. A job that needs no namespace is done by a thread of
/// this process, behind the same socket.
pub(super) fn run(job: &Job, answers: &Answers<'_>, cancel: &Cancel, event: &mut dyn FnMut(Event)) -> Outcome {
    let (ours, theirs) = UnixStream::pair().map_err(broken)?;
    if job.namespaces {
        return in_process(job, answers, cancel, event, ours, theirs);
    }
    let lifeline = cancel.lifeline().try_clone_to_owned().map_err(broken)?;
    let (handoff, their_handoff) = wire::fd_sockets().map_err(broken)?;
    std::thread::scope(|scope| {
        let serve = move || engine::process::serve(theirs, lifeline, their_handoff, &Place::plain(), Laps::begin(By::Engine), Vec::new());
        drop(std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, serve).map_err(broken)?);
        wire::send(&ours, job).map_err(broken)?;
        result(converse(&ours, &handoff, answers, event), cancel, "the engine ended without a result")
    })
}

fn in_process(
    job: &Job,
    answers: &Answers<'_>,
    cancel: &Cancel,
    event: &mut dyn FnMut(Event),
    ours: UnixStream,
    theirs: UnixStream,
) -> Outcome {
    let mut laps = Laps::begin(By::Front);
    let (handoff, their_handoff) = wire::fd_sockets().map_err(broken)?;
    let (engine, refused) = spawn(job.driver, &[theirs.as_fd(), cancel.lifeline(), their_handoff.as_fd()])?;
    event(Event::Phase(laps.lap("started an engine")));
    // Else the sockets would not end with the engine.
    drop((theirs, their_handoff));
    wire::send(&ours, job).map_err(broken)?;
    let mut with_refusals = |mut happened: Event| {
        if let Event::Driver { refused: more, .. } = &mut happened {
            drop(more.splice(..0, refused.iter().cloned()));
        }
        event(happened);
    };
    let outcome = converse(&ours, &handoff, answers, &mut with_refusals);
    event(Event::Phase(laps.lap("heard the engine out")));
    // The engine waits for it.
    drop(ours);
    let status = engine.wait().map_err(broken)?;
    event(Event::Phase(laps.lap("waited for the engine's end")));
    result(outcome, cancel, &format!("the engine's process ended with status {status} and without a result"))
}

/// The engine with the first ids that can be had, and what was refused before it.
fn spawn(preset: Preset, fds: &[BorrowedFd<'_>]) -> Result<(EngineProcess, Vec<Refusal>), Error> {
    let mut refused = Vec::new();
    let mut first = None;
    for ids in preset.ids() {
        match preset.spawn(ids, &[OsString::from(ENGINE)], fds) {
            Ok(engine) => return Ok((engine, refused)),
            Err(error) => {
                refused.push(Refusal::of_ids(ids, &error));
                first = first.or(Some(error));
            }
        }
    }
    Err(no_engine(first, &refused))
}

/// The first refusal is of what is best to have: its way out is the one to name.
fn no_engine(first: Option<EnterError>, refused: &[Refusal]) -> Error {
    let Some(first) = first else { return Error::new(Kind::Environment, "`--driver` leaves no way to run a step") };
    let mut error = Error::from(first);
    if refused.len() > 1 {
        "there is no way here to run a step".clone_into(&mut error.headline);
        error.causes = refused.iter().map(ToString::to_string).collect();
    }
    error
}

fn result(outcome: std::io::Result<Option<Outcome>>, cancel: &Cancel, without: &str) -> Outcome {
    match outcome {
        _ if cancel.is_cancelled() => Err(Error::new(Kind::Interrupted, "the build was interrupted")),
        Ok(Some(outcome)) => outcome,
        Ok(None) => Err(Error::new(Kind::Bug, without)),
        Err(error) => Err(broken(error)),
    }
}

/// The engine's process, from its first instruction.
pub fn engine_main() -> std::process::ExitCode {
    let mut laps = Laps::begin(By::Engine);
    let Ok(entered) = enter::become_engine() else { return std::process::ExitCode::from(Kind::Environment.exit_code()) };
    let place = Place::of(&entered);
    let mut fds = entered.fds.into_iter();
    let (Some(socket), Some(lifeline), Some(handoff)) = (fds.next(), fds.next(), fds.next()) else {
        return std::process::ExitCode::from(Kind::Bug.exit_code());
    };
    let entered = vec![laps.lap("became what runs steps")];
    let served = engine::process::serve(UnixStream::from(socket), lifeline, handoff, &place, laps, entered);
    if served.is_ok() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::from(Kind::Interrupted.exit_code()) }
}

/// So many messages wait while a question is answered.
const WAITING: usize = 256;

/// Answers until there is a result; `None`: the other end is gone. While a question is answered, which may take minutes, what other
/// steps say is heard and shown.
fn converse(
    socket: &UnixStream,
    handoff: &OwnedFd,
    answers: &Answers<'_>,
    event: &mut dyn FnMut(Event),
) -> std::io::Result<Option<Outcome>> {
    let mut from = BufReader::new(socket.try_clone()?);
    std::thread::scope(|scope| {
        let (say, heard) = sync_channel(WAITING);
        let listen = move || {
            while let Some(message) = wire::receive(&mut from).transpose() {
                let is_last = message.is_err();
                if say.send(message).is_err() || is_last {
                    break;
                }
            }
        };
        drop(std::thread::Builder::new().name("listener".to_owned()).spawn_scoped(scope, listen)?);
        let outcome = answer(socket, &heard, handoff, answers, event);
        // The listener may wait for room, or for more to come.
        drop(heard);
        // Refused when the other end is gone.
        socket.shutdown(Shutdown::Both).ok();
        outcome
    })
}

/// What the engine says, in its order.
type Heard = Receiver<std::io::Result<FromEngine>>;

fn answer(
    mut socket: &UnixStream,
    heard: &Heard,
    handoff: &OwnedFd,
    answers: &Answers<'_>,
    event: &mut dyn FnMut(Event),
) -> std::io::Result<Option<Outcome>> {
    let early = RefCell::new(VecDeque::new());
    loop {
        let next = early.borrow_mut().pop_front();
        let Some(message) = next.or_else(|| heard.recv().ok()).transpose()? else { return Ok(None) };
        if let FromEngine::Event(happened) = message {
            event(happened);
            continue;
        }
        // What is told of the answer's progress lets what waits be told first.
        let event: &mut dyn FnMut(Event) = &mut |happened| {
            while let Ok(message) = heard.try_recv() {
                match message {
                    Ok(FromEngine::Event(other)) => event(other),
                    later => early.borrow_mut().push_back(later),
                }
            }
            event(happened);
        };
        let answer = match message {
            FromEngine::Event(_) => continue,
            FromEngine::Built(images) => {
                for BuiltImage { manifest, written, .. } in &images {
                    answers.store.hold(manifest);
                    answers.store.learn_written(written);
                }
                return Ok(Some(Ok(images)));
            }
            FromEngine::Failed(error) => return Ok(Some(Err(error))),
            FromEngine::Fetch { image, blob } => FromFront::Fetched(answers.registries.blob(&image, &blob, answers.store, event)),
            FromEngine::Shared { cache: number, blob } => {
                let unknown = || Err(Error::new(Kind::Bug, "a cache that is not in the job"));
                let from = answers.caches.get(number);
                FromFront::Fetched(from.map_or_else(unknown, |from| cache::fetch(from, &blob, answers, event)))
            }
            FromEngine::Source(source) => {
                let Answers { store, secrets, agents, cancel, .. } = *answers;
                let order = Order { store, secrets, agents, cancel };
                FromFront::Source(answers.sources.fetched(&source, answers.remotes, order, event))
            }
            FromEngine::Agent { id } => {
                let (listener, until) = wire::take_over(handoff)?;
                FromFront::Agent(
                    answers.agents.get(&id).map_or(Ok(false), |agent| agent::serve(agent, &id, listener, until).map(|()| true)),
                )
            }
            FromEngine::Secret { id } => FromFront::Secret(answers.secrets.get(&id).map(|secret| secret.read(&id)).transpose()),
        };
        wire::send(&mut socket, &answer)?;
    }
}
