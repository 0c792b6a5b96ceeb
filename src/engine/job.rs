//! What the front asks the engine to build.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    cache::{Shared, Why},
    layer::Compression,
    oci::{Descriptor, DiffId},
    plan::Plan,
    sandbox::{
        Limits,
        driver::{Preset, SnapshotWish},
    },
    store,
};

/// A context: where files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Files {
    /// A directory of the user's.
    Directory {
        /// Where.
        dir: PathBuf,
        /// The Dockerfile, whose own ignore file replaces the directory's.
        dockerfile: Option<PathBuf>,
    },
    /// A directory that was made for this build of what somebody else sent. Nothing is ignored, nothing remembered.
    Fetched(PathBuf),
    /// An archive that was unpacked for this build, as `context::Unpacked` leaves it.
    Unpacked(PathBuf),
}

/// A build, complete: the engine reads no argument, no environment and no configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The store.
    pub store: PathBuf,
    /// What it may hold.
    pub bounds: store::Limits,
    /// What to do.
    pub plan: Plan,
    /// The build context; `None`: an empty one.
    pub context: Option<Files>,
    /// Named contexts that are no images.
    pub named: BTreeMap<String, Files>,
    /// What tells this project's instructions from another's that stand in the same place: where its context is.
    pub project: String,
    /// Stages whose records are not looked at; an empty name stands for all.
    pub no_cache: Vec<String>,
    /// Records and layers that were made elsewhere.
    pub imported: Vec<Import>,
    /// The salt of the records that are told of each step, to be taken elsewhere; `None`: none is told.
    pub share: Option<[u8; 32]>,
    /// The ids of the secrets and of the ssh agents that are given, for suggestions.
    pub secrets: Vec<String>,
    /// See `secrets`.
    pub agents: Vec<String>,
    /// Values of `--add-host`, as lines of /etc/hosts.
    pub hosts: Vec<String>,
    /// What each step may use.
    pub limits: Limits,
    /// What steps may ask for beyond what each has.
    pub allowed: Allowed,
    /// How new layers are compressed.
    pub compression: Compression,
    /// Must the engine enter a user namespace? Not when no step has to see a tree.
    pub namespaces: bool,
    /// Is it only to be looked whether all steps are known? Then the first one that is not ends the build, and nothing is made or asked for.
    pub only_look: bool,
    /// So many steps run at once.
    pub max_steps: usize,
    /// So many threads hash, compress and extract.
    pub jobs: usize,
    /// Is the engine to tell of its parts ([`super::Event::Phase`])?
    pub phases: bool,
    /// How the user wants steps to be run.
    pub driver: Preset,
    /// How the user wants what a step changes to be kept.
    pub snapshots: SnapshotWish,
}

/// A cache that was made elsewhere. Its place among [`Job::imported`] is its name for [`super::Front::shared`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Import {
    /// What messages call it.
    pub shown: String,
    /// Its records.
    pub shared: Shared,
    /// The blobs of its layers.
    pub blobs: Vec<(DiffId, Descriptor)>,
}

/// What `--allow` and the network of the build allow to steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// `RUN --network=host`
    pub host_network: bool,
    /// `RUN --security=insecure`
    pub insecure: bool,
}

impl Job {
    /// Why the records of that stage are not looked at; `None`: they are.
    pub fn without_cache(&self, stage: &str) -> Option<Why> {
        let named = |wanted: &str| self.no_cache.iter().any(|name| name == wanted);
        if named("") {
            return Some(Why::NoCache);
        }
        named(stage).then(|| Why::NoCacheFilter { stage: stage.to_owned() })
    }
}
