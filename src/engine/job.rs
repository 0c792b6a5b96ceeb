//! What the front asks the engine to build.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{layer::Compression, plan::Plan};

/// A directory that files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Where.
    pub dir: PathBuf,
    /// The Dockerfile, whose own ignore file replaces the directory's.
    pub dockerfile: Option<PathBuf>,
}

/// A build, complete: the engine reads no argument, no environment and no configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The store.
    pub store: PathBuf,
    /// What to do.
    pub plan: Plan,
    /// The build context; `None`: an empty one.
    pub context: Option<Directory>,
    /// Named contexts that are directories.
    pub named: BTreeMap<String, Directory>,
    /// Stages whose records are not looked at; an empty name stands for all.
    pub no_cache: Vec<String>,
    /// Values of `--add-host`, as lines of /etc/hosts.
    pub hosts: Vec<String>,
    /// How new layers are compressed.
    pub compression: Compression,
    /// Must the engine enter a user namespace? Not when no step has to see a tree.
    pub namespaces: bool,
}

impl Job {
    /// Are the records of that stage looked at?
    pub fn may_use_cache(&self, stage: &str) -> bool {
        !self.no_cache.iter().any(|name| name.is_empty() || name == stage)
    }
}
