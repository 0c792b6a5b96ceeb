//! `prune`: removes what can be made again, all of it or as much as limits ask; and [`Store::reset`], everything.

use std::{
    collections::BTreeMap,
    fs, io,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{
    Error, Limits, Store,
    census::{Census, Kind, entries},
    pin, refs,
    remove::remove_all,
    size::Size,
};
use crate::{oci::Reference, sys::PathError};

/// What is to be removed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pruning {
    /// Images with names too.
    pub all: bool,
    /// No more than these limits ask for; `None`: all that can be.
    pub limits: Option<Limits>,
}

/// What was removed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pruned {
    /// How many things of a kind, and what was gained.
    pub removed: BTreeMap<String, (u64, Size)>,
    /// The names of images.
    pub names: Vec<String>,
    /// What is left in the store.
    pub left: Size,
    /// How many running builds hold something.
    pub holders: usize,
}

impl Pruned {
    /// All that was gained.
    pub fn size(&self) -> Size {
        self.removed.values().map(|(_, size)| *size).sum()
    }
}

impl Store {
    /// Removes the least recently used first, never what a running build uses, and images with names only if all is to go.
    pub fn prune(&self, pruning: &Pruning) -> Result<Pruned, Error> {
        let pruned = self.alone(|state| {
            let mut pruned = Pruned::default();
            let mut graves = Vec::new();
            let mut names = if pruning.all { self.names_by_use() } else { Vec::new() };
            loop {
                let census = Census::take(self);
                let excess = self.excess(pruning, census.total());
                let mut evicted = self.evict(census, excess);
                graves.append(&mut evicted.graves);
                for (kind, size) in evicted.items {
                    let (count, all) = pruned.removed.entry(kind.name().to_owned()).or_default();
                    (*count, *all) = (*count + 1, *all + size);
                }
                let enough = excess.without(evicted.removed).is_nothing();
                // Without limits all names go at once.
                let most = if pruning.limits.is_some() { 1 } else { names.len() };
                if enough || names.is_empty() {
                    break;
                }
                for name in names.drain(..most) {
                    if self.remove_ref(&name).unwrap_or(false) {
                        pruned.names.push(name.familiar());
                    }
                }
            }
            pruned.left = Census::take(self).total();
            pruned.holders = pin::read_all(&self.locks()).1;
            self.recount(state, pruned.left);
            (pruned, graves)
        });
        let no_lock = || PathError::new("lock", &self.root)(io::Error::from(io::ErrorKind::Unsupported));
        let (pruned, graves) = pruned.ok_or_else(no_lock)?;
        drop(graves);
        Ok(pruned)
    }

    fn excess(&self, pruning: &Pruning, used: Size) -> Size {
        match pruning.limits {
            None => Size { bytes: u64::MAX, inodes: u64::MAX },
            Some(limits) => {
                let Some(disk) = self.disk() else { return Size::default() };
                limits.on(disk).excess(used, Some(disk.free))
            }
        }
    }

    /// Names of images, the one first that was not used for longest.
    fn names_by_use(&self) -> Vec<Reference> {
        let used = |name: &Reference| -> SystemTime {
            let found = fs::symlink_metadata(self.refs_dir().join(refs::hashed(name)));
            found.and_then(|found| found.modified()).unwrap_or(UNIX_EPOCH)
        };
        let mut all: Vec<(SystemTime, Reference)> =
            self.refs().unwrap_or_default().into_iter().map(|(name, _)| (used(&name), name)).collect();
        all.sort();
        all.into_iter().map(|(_, name)| name).collect()
    }

    /// Removes everything but the directory itself: the store is as if it had never been. `None`: so many running builds
    /// use it, and nothing was removed.
    pub fn reset(&self) -> Result<Result<Size, usize>, Error> {
        let done = self.alone(|_state| {
            let holders = pin::read_all(&self.locks()).1;
            if holders > 0 {
                return Ok(Err(holders));
            }
            let census = Census::take(self);
            for (path, _) in entries(&self.root) {
                remove_all(&path)?;
            }
            Ok(Ok(census.total() + census.kinds.get(&Kind::Temporary).copied().unwrap_or_default()))
        });
        done.unwrap_or_else(|| Err(PathError::new("lock", &self.root)(io::Error::from(io::ErrorKind::Unsupported)).into()))
    }
}
