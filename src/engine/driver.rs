//! How this engine runs steps: with the ids that it was entered with, and the first way to keep changes that works in the store.

use crate::{
    error::{Error, Kind},
    layer::Owners,
    sandbox::{
        Driver,
        driver::{self, Ids, Refusal, SnapshotWish, Snapshots},
        enter::Entered,
    },
    store::Store,
};

/// Where the engine is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The ownership domain that trees are made in.
    pub domain: String,
    /// Which ids there are; `None`: nothing was entered, and no step is run.
    pub ids: Option<Ids>,
}

impl Place {
    /// A thread of the front: nothing was entered.
    pub fn plain() -> Self {
        Self { domain: "plain".to_owned(), ids: None }
    }

    /// Where an engine's process is.
    pub fn of(entered: &Entered) -> Self {
        Self { domain: entered.domain.to_string(), ids: Some(entered.ids) }
    }
}

/// What was found out about running steps.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    ids: Option<Ids>,
    snapshots: Option<Snapshots>,
    /// What does not work here, in the order in which it was tried.
    pub(super) refused: Vec<Refusal>,
}

impl Ways {
    /// Tries. It takes a mount or two.
    pub(super) fn find(place: &Place, wish: SnapshotWish, store: &Store) -> Result<Self, Error> {
        let Some(ids) = place.ids else { return Ok(Self { ids: None, snapshots: None, refused: Vec::new() }) };
        let scratch = store.scratch()?;
        let (snapshots, refused) = driver::snapshots(ids, wish, scratch.path());
        Ok(Self { ids: Some(ids), snapshots, refused })
    }

    /// How trees say who owns what.
    pub(super) fn owners(&self) -> Owners {
        if self.ids == Some(Ids::Single) { Owners::Marked } else { Owners::Real }
    }

    /// The combination that is used, if a step can be run at all.
    pub(super) fn driver(&self) -> Option<Driver> {
        Some(Driver::of(self.ids?, self.snapshots?))
    }

    /// The combination that a step is run with.
    pub(super) fn needed(&self) -> Result<Driver, Error> {
        self.driver().ok_or_else(|| {
            let mut error = Error::new(Kind::Environment, "there is no way here to keep what a step changes");
            error.causes.extend(self.refused.iter().map(ToString::to_string));
            error.help = self.refused.iter().find_map(|refusal| refusal.help.clone());
            error
        })
    }
}
