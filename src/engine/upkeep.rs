//! Work on the store that needs the rights of an engine: what belongs to subordinate ids is neither counted, checked nor
//! removed by anybody else. The front starts it as it starts an engine, with the chore as an argument, and reads the
//! answer from a pipe.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind},
    store::{Limits, Pruned, Pruning, Size, Store, Usage},
};

/// What is to be done, to which store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Chore {
    /// The store.
    pub store: PathBuf,
    /// What it may hold.
    pub limits: Limits,
    /// What to do.
    pub work: Work,
}

/// See [`Chore`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Work {
    /// Count.
    Usage,
    /// Remove what can be made again.
    Prune(Pruning),
    /// Remove everything.
    Reset,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Outcome {
    /// Of [`Work::Usage`].
    Usage(Usage),
    /// Of [`Work::Prune`].
    Pruned(Pruned),
    /// Of [`Work::Reset`].
    Reset(Size),
}

impl Chore {
    /// Does it, with the rights that this process has.
    pub fn run(&self) -> Result<Outcome, Error> {
        let store = Store::open(&self.store)?.within(self.limits).looking();
        match &self.work {
            Work::Usage => Ok(Outcome::Usage(store.usage())),
            Work::Prune(pruning) => Ok(Outcome::Pruned(store.prune(pruning)?)),
            Work::Reset => store.reset()?.map(Outcome::Reset).map_err(|holders| {
                let who = if holders == 1 { "a running build uses".to_owned() } else { format!("{holders} running builds use") };
                Error::new(Kind::Environment, format!("{who} the store `{}`", self.store.display())).help("reset it when they are done")
            }),
        }
    }
}
