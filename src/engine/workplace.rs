//! Where a step works: its root before it runs, and what it left as a layer.
//!
//! Under [`Snapshots::Copy`] the merged trees are kept for the next steps of the build: a step takes the one that holds most of
//! what it needs, which need not be copied again. There are as many as steps that were ever run at once.

use std::{
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    behind::Pending,
    build::{At, Site},
    snapshot::Held,
    whole,
};
use crate::{
    error::{Error, Kind},
    layer::{self, Before, Merged, Owners},
    sandbox::{self, Driver, Finished, Memory, Overlay, Root, driver::Snapshots},
    store::{Scratch, Store},
    tree::Chain,
};

/// Where one step works.
pub(super) enum Workplace {
    /// In an overlay.
    Overlay(Changed),
    /// In a tree.
    Tree(Kept, Before),
}

/// The directories of an overlay's changes.
pub(super) struct Changed {
    lowers: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
    /// The directory in memory that they are in, if they are.
    in_memory: Option<PathBuf>,
}

/// A file system in memory for one build: what steps change, and trees that the store's file system cannot hold.
pub(super) struct InMemory {
    memory: Memory,
    scratch: Scratch,
}

impl InMemory {
    /// If that driver needs it.
    pub(super) fn mount(store: &Store, driver: Option<Driver>) -> Result<Option<Self>, Error> {
        if driver.is_none_or(|driver| driver.snapshots != Snapshots::Memory) {
            return Ok(None);
        }
        let scratch = store.scratch()?;
        let place = scratch.path().join("memory");
        drop(crate::sys::dir::make_root(&place)?);
        Ok(Some(Self { memory: Memory::mount(&place)?, scratch }))
    }

    /// Where it is.
    pub(super) fn dir(&self) -> PathBuf {
        self.scratch.path().join("memory")
    }
}

/// A merged tree that outlives a step.
pub(super) struct Kept {
    merged: Merged,
    scratch: Scratch,
}

impl Kept {
    fn dir(&self) -> PathBuf {
        self.scratch.path().join("root")
    }
}

impl Workplace {
    /// Makes the root of a step on these layers. `scratch` is the step's own directory.
    pub(super) fn make(site: &Site<'_>, layers: &[Held], scratch: &Scratch, snapshots: Snapshots) -> Result<Self, Error> {
        if snapshots == Snapshots::Copy {
            return tree(site, layers);
        }
        let lowers = site.trees.overlay_dirs(layers)?;
        let in_memory = match (&site.memory, scratch.path().file_name()) {
            (Some(memory), Some(name)) => Some(memory.dir().join(name)),
            _ => None,
        };
        if let Some(own) = &in_memory {
            drop(crate::sys::dir::make_root(own)?);
        }
        let within = in_memory.as_deref().unwrap_or(scratch.path());
        let (upper, work) = (within.join("upper"), within.join("work"));
        drop(crate::sys::dir::make_root(&upper)?);
        drop(crate::sys::dir::make_root(&work)?);
        Ok(Self::Overlay(Changed { lowers, upper, work, in_memory }))
    }

    /// As a sandbox takes it. `scratch` is the step's own directory.
    pub(super) fn root(&self, scratch: &Scratch) -> Result<Root, Error> {
        match self {
            Self::Overlay(Changed { lowers, upper, work, .. }) => {
                Ok(Root::Overlay(Overlay { lowers: lowers.clone(), upper: upper.clone(), work: work.clone() }))
            }
            Self::Tree(kept, _) => {
                let work = scratch.path().join("work");
                drop(crate::sys::dir::make_root(&work)?);
                Ok(Root::Tree(sandbox::Tree { dir: kept.dir(), work }))
            }
        }
    }

    /// What to say of a step that failed here, if the place may be why.
    pub(super) fn full(&self, site: &Site<'_>) -> Option<String> {
        let Self::Overlay(Changed { in_memory: Some(_), .. }) = self else { return None };
        let all = site.memory.as_ref()?.memory.is_full()? >> 20;
        Some(format!(
            "what a step changes is kept in memory here, because the store's file system cannot hold an overlay's changes, and all \
             {all} MiB of that are used: put the store on another file system with --root, or use --snapshots copy"
        ))
    }

    /// Makes a layer of what the step left, and keeps the tree for the next step.
    pub(super) fn keep(self, site: &Site<'_>, at: At<'_>, chain: &Chain, finished: &Finished) -> Result<Pending, Error> {
        let Finished { stubs, owners, .. } = finished;
        let awaited = at.is_awaited(&site.job.plan);
        let table = (site.ways.owners() == Owners::Marked).then_some(owners);
        match self {
            Self::Overlay(Changed { upper, in_memory, .. }) => {
                let at: Arc<OwnedFd> = Arc::new(crate::sys::dir::open_root(&upper)?);
                let processor = site.processors.one();
                let made = write(site, &layer::diff(&at, chain, stubs, table)?, chain, awaited)?;
                match in_memory {
                    None => {
                        layer::seal(&at, &made.layer.index, stubs, site.ways.owners())?;
                        drop(processor);
                        site.trees.adopt(made.layer.diff_id, &upper)?;
                    }
                    // The store cannot hold it.
                    Some(_) if made.layer.index.has_whiteouts() => {
                        layer::seal(&at, &made.layer.index, stubs, site.ways.owners())?;
                        site.trees.remember(made.layer.diff_id, upper);
                    }
                    // The store can, and a rename leads to no other file system: the layer is extracted when it is needed.
                    Some(own) => {
                        drop(at);
                        free(&own)?;
                    }
                }
                Ok(made)
            }
            Self::Tree(mut kept, before) => {
                let _processor = site.processors.one();
                let worked = kept.merged.diff(&before, stubs, table)?;
                let made = write(site, &worked.changes, chain, awaited)?;
                kept.merged.settle(&worked, &made.layer.index)?;
                whole(&site.kept).push(kept);
                Ok(made)
            }
        }
    }
}

/// Gives a step's memory back.
fn free(own: &Path) -> Result<(), Error> {
    let (Some(parent), Some(name)) = (own.parent(), own.file_name()) else { return Ok(()) };
    Ok(crate::sys::dir::remove_tree(crate::sys::dir::open_root(parent)?, name.as_bytes())?)
}

fn write(site: &Site<'_>, changes: &layer::Changes, chain: &Chain, awaited: bool) -> Result<Pending, Error> {
    let made = site.behind.write(changes, chain, awaited)?;
    site.trees.learn(made.layer.diff_id, Arc::clone(&made.layer.index));
    Ok(made)
}

/// A tree that the build has, or a new one, made to hold these layers. Whoever takes it puts it back if it is still sound.
fn tree(site: &Site<'_>, layers: &[Held]) -> Result<Workplace, Error> {
    let (mut kept, lowers) = match nearest(site, layers)? {
        Some((kept, known)) if known > 0 => {
            let lowers = site.trees.lowers_above(layers, known, &kept.dir())?;
            (kept, lowers)
        }
        Some((kept, _)) => (kept, site.trees.lowers(layers)?),
        None => {
            let scratch = site.store.scratch()?;
            let root = crate::sys::dir::make_root(&scratch.path().join("root"))?;
            (Kept { merged: Merged::new(root, site.ways.owners())?, scratch }, site.trees.lowers(layers)?)
        }
    };
    kept.merged.fit(&lowers).map_err(|error| no_space(error, site))?;
    let before = kept.merged.before()?;
    Ok(Workplace::Tree(kept, before))
}

/// Takes the tree that holds the most of these layers and no others, with their number; else any, with none.
fn nearest(site: &Site<'_>, layers: &[Held]) -> Result<Option<(Kept, usize)>, Error> {
    if whole(&site.kept).is_empty() {
        return Ok(None);
    }
    let chain = site.trees.chain(layers)?;
    let mut all = whole(&site.kept);
    let best = all.iter().enumerate().max_by_key(|(_, kept)| kept.merged.begins(&chain)).map(|(number, _)| number);
    let kept = best.map(|best| all.swap_remove(best));
    Ok(kept.map(|kept| {
        let known = kept.merged.begins(&chain).unwrap_or(0);
        (kept, known)
    }))
}

fn no_space(error: layer::Error, site: &Site<'_>) -> Error {
    let full = matches!(&error, layer::Error::Path(error) if error.source.kind() == std::io::ErrorKind::StorageFull);
    let error = Error::from(error);
    if !full {
        return error;
    }
    let mut wide =
        Error::new(Kind::Environment, format!("there is no space for a copy of the step's files in {}", site.store.root().display()));
    wide.causes = [error.headline].into_iter().chain(error.causes).collect();
    wide.help("free some, or put the store on a file system that has more, with --root")
}
