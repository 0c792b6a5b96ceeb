//! Order, cache decisions, events: runs a [`Plan`](crate::plan::Plan) to its images.
//!
//! The plan becomes a [graph](graph::Graph) of steps; [`build`](build::build) runs it: the [schedule]
//! begins each step when those that it needs are done.
//! For each step the [key] comes before the work: only a miss makes a layer. What the engine may not hold itself, because it
//! runs in a user namespace and beside hostile steps (credentials, secrets, the network of the user), it asks the
//! [`Front`] for. Everything that happens is an [`Event`]; every progress form reads those and nothing else.
//!
//! Across processes the questions and events are the messages of [`wire`]; [`process`] is the engine's own process.

mod behind;
pub mod build;
mod contexts;
mod copying;
pub mod driver;
pub mod event;
mod fault;
pub mod graph;
mod job;
mod key;
mod looking;
mod mounts;
mod permits;
pub mod process;
mod remembered;
mod running;
mod schedule;
mod snapshot;
mod sources;
mod stop;
pub mod timing;
mod trees;
mod turns;
pub mod upkeep;
pub mod wire;
mod workplace;

pub use event::{Event, How, StepInfo};
pub use job::{Allowed, Files, Import, Job};

use std::{
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{error::Error, oci::Descriptor, plan::CopySource};

/// A source of ADD that was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Where it is.
    pub dir: PathBuf,
    /// What it is.
    pub what: FetchedAs,
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchedAs {
    /// One file.
    File {
        /// Its name in the directory.
        name: String,
    },
    /// All that is in the directory.
    Tree {
        /// With a `.git`, which is what these words say, whatever its files are: they hold times and packs.
        git_dir: Option<String>,
    },
}

/// What the engine asks of the user's side, and where its events go.
///
/// Two implementations: the socket to the front's process, and the tests' own.
pub trait Front: Sync {
    /// Has the blob of an image fetched into the store.
    fn fetch(&self, image: &str, blob: &Descriptor) -> Result<(), Error>;
    /// Has the blob of an imported cache brought into the store.
    fn shared(&self, cache: usize, blob: &Descriptor) -> Result<(), Error>;
    /// Has what ADD names by a URL fetched into a directory of the store, which is there until the build is over.
    fn source(&self, source: &CopySource) -> Result<Fetched, Error>;
    /// The bytes of a secret; `None`: there is none of that id.
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Error>;
    /// Has the ssh agent of that id accept on a listening socket until `until` hangs up; `false`: there is none of that id.
    fn agent(&self, id: &str, listener: BorrowedFd<'_>, until: BorrowedFd<'_>) -> Result<bool, Error>;
    /// Something happened.
    fn event(&self, event: Event);
    /// Readable or hung up as soon as the build is cancelled.
    fn cancelled(&self) -> BorrowedFd<'_>;
}

/// What threads share. If one of them panicked, what it held is whole: nothing is changed in two parts.
fn whole<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
