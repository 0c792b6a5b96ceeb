//! Work on the store that needs the rights of an engine: what belongs to subordinate ids is neither counted, checked nor
//! removed by anybody else. The front starts it as it starts an engine, with the chore as an argument, and reads the
//! answer from a pipe.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::driver::Place;
use crate::{
    cache,
    error::{Error, Kind},
    layer::{self, Owners},
    oci::DiffId,
    sandbox::driver::Ids,
    store::{Checked, Limits, Pruned, Pruning, Size, Store, Usage},
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
    /// Check everything, and remove what is wrong.
    Fsck,
}

/// A recorded instruction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// How it begins.
    pub shown: String,
    /// The layer that it made.
    pub layer: DiffId,
    /// When.
    pub created: String,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Outcome {
    /// Of [`Work::Usage`], with what each recorded instruction made.
    Usage(Usage, Vec<Step>),
    /// Of [`Work::Prune`].
    Pruned(Pruned),
    /// Of [`Work::Reset`].
    Reset(Size),
    /// Of [`Work::Fsck`].
    Checked(Checked),
}

impl Chore {
    /// Does it, with the rights that this process has.
    pub fn run(&self, place: &Place) -> Result<Outcome, Error> {
        let store = Store::open(&self.store)?.within(self.limits).looking();
        match &self.work {
            Work::Fsck => {
                let mut checked = store.fsck()?;
                trees(&store, place, &mut checked)?;
                Ok(Outcome::Checked(checked))
            }
            Work::Usage => {
                let steps = cache::list(&store)?.into_iter().map(|(shown, outcome)| Step {
                    shown,
                    layer: outcome.diff_id,
                    created: outcome.created,
                });
                Ok(Outcome::Usage(store.usage(), steps.collect()))
            }
            Work::Prune(pruning) => Ok(Outcome::Pruned(store.prune(pruning)?)),
            Work::Reset => store.reset()?.map(Outcome::Reset).map_err(|holders| {
                let who = if holders == 1 { "a running build uses".to_owned() } else { format!("{holders} running builds use") };
                Error::new(Kind::Environment, format!("{who} the store `{}`", self.store.display())).help("reset it when they are done")
            }),
        }
    }
}

/// Checks the trees whose owners can be seen from here. One without an index cannot be checked, and goes: a build that was killed
/// before it committed the layer leaves it, or somebody removed the index; nothing is wrong with it that anybody could say.
fn trees(store: &Store, place: &Place, checked: &mut Checked) -> Result<(), Error> {
    let owners = if place.ids == Some(Ids::Single) { Owners::Marked } else { Owners::Real };
    for (layer, path) in store.trees_of(&place.domain) {
        checked.saw();
        let index = store.index(&layer)?;
        if index.as_ref().is_some_and(|index| layer::is_whole(&path, index, owners)) {
            continue;
        }
        // A build may have it mounted: it keeps its files until it ends.
        store.remove_tree(&place.domain, &layer)?;
        if index.is_some() {
            checked.found(format!("the tree of {layer}"), "it is not what its index says");
        }
    }
    Ok(())
}
