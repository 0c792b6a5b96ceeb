//! The indexes and trees of a stage's layers, made when a step must see them and not before.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::Builder,
};

use super::{
    Event, Front,
    behind::Behind,
    permits::Permits,
    snapshot::{Held, chain_id},
    turns::Turns,
    whole,
};
use crate::{
    error::{Error, Kind},
    layer::{self, Lower, Merged, Owners},
    oci::{Descriptor, DiffId},
    store::{Scratch, Store},
    tree::{Chain, Index},
};

/// So many layers are fetched and unpacked at once, as far as there are processors.
const AT_ONCE: usize = 8;

/// An overlay takes 500 lower directories, and a process has 1,024 open files. Of more layers than this the first are merged into one directory.
const MOST: usize = 450;
/// So many at a time.
const PART: usize = MOST / 2;

/// How many of so many layers are to be one directory: always so many more that few directories do for all steps of a stage.
fn merged_of(layers: usize) -> usize {
    if layers <= MOST { 0 } else { (layers - PART - 1) / PART * PART }
}

/// What one build knows of its layers.
pub(super) struct Trees<'a> {
    store: &'a Store,
    front: &'a dyn Front,
    turns: &'a Turns<'a>,
    processors: &'a Permits,
    behind: &'a Behind,
    domain: &'a str,
    owners: Owners,
    indexes: Mutex<BTreeMap<DiffId, Arc<Index>>>,
    checked: Mutex<BTreeSet<DiffId>>,
    /// Where trees are that the store's file system cannot hold: those with whiteouts, if they are to be lowers of overlays.
    memory: Option<PathBuf>,
    in_memory: Mutex<BTreeMap<DiffId, PathBuf>>,
    /// The first layers of deep stages, merged, by what they are.
    bottoms: Mutex<BTreeMap<String, Scratch>>,
}

impl<'a> Trees<'a> {
    /// Nothing yet. `domain` is the ownership domain that trees are made in, with such owners.
    pub(super) fn new(
        (store, front): (&'a Store, &'a dyn Front),
        (turns, processors, behind): (&'a Turns<'a>, &'a Permits, &'a Behind),
        domain: &'a str,
        owners: Owners,
        memory: Option<PathBuf>,
    ) -> Self {
        let (indexes, checked, in_memory, bottoms) = (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        Self { store, front, turns, processors, behind, domain, owners, indexes, checked, memory, in_memory, bottoms }
    }

    /// The tree of a layer with whiteouts that is in memory.
    pub(super) fn remember(&self, diff_id: DiffId, dir: PathBuf) {
        drop(whole(&self.in_memory).insert(diff_id, dir));
    }

    /// Remembers the index of a layer that was just made.
    pub(super) fn learn(&self, diff_id: DiffId, index: Arc<Index>) {
        drop(whole(&self.indexes).insert(diff_id, index));
    }

    /// The merged view of some layers. Reads a layer's blob only if its index is not in the store.
    pub(super) fn chain(&self, layers: &[Held]) -> Result<Chain, Error> {
        at_once(layers, |held| self.known_index(held).is_none(), |held| self.index_alone(held));
        Ok(Chain::new(self.indexes(layers)?))
    }

    fn indexes(&self, layers: &[Held]) -> Result<Vec<Arc<Index>>, Error> {
        let mut indexes = Vec::with_capacity(layers.len());
        for held in layers {
            let index = self.index(held, &indexes)?;
            indexes.push(index);
        }
        Ok(indexes)
    }

    fn index_alone(&self, held: &Held) -> Result<(), Error> {
        let _alone = self.turns.take_for(&index_name(held), || format!("waiting for another build to read {}", held.diff_id))?;
        let found = if let Some(index) = self.store.index(&held.diff_id)? {
            Some(Arc::new(index))
        } else {
            let blob = self.blob(held)?;
            let _processor = self.processors.one();
            layer::index_alone(self.store, &blob, &held.diff_id)?
        };
        if let Some(index) = found {
            self.learn(held.diff_id, index);
        }
        Ok(())
    }

    fn index(&self, held: &Held, below: &[Arc<Index>]) -> Result<Arc<Index>, Error> {
        if let Some(index) = self.known_index(held) {
            return Ok(index);
        }
        let _alone = self.turns.take(&index_name(held), || format!("waiting for another build to read {}", held.diff_id))?;
        if let Some(index) = self.known_index(held) {
            return Ok(index);
        }
        let index = if let Some(index) = self.store.index(&held.diff_id)? {
            Arc::new(index)
        } else {
            let blob = self.blob(held)?;
            let _processor = self.processors.one();
            layer::index(self.store, &blob, &held.diff_id, &Chain::new(below.to_vec()))
                .inspect_err(|_refused| self.remove_damaged(&blob))?
        };
        self.learn(held.diff_id, Arc::clone(&index));
        Ok(index)
    }

    fn known_index(&self, held: &Held) -> Option<Arc<Index>> {
        whole(&self.indexes).get(&held.diff_id).map(Arc::clone)
    }

    /// The store removes what is not what it should be, so that another try does without it.
    fn remove_damaged(&self, blob: &Descriptor) {
        let _whole: bool = self.store.has_whole_blob(blob);
    }

    /// A blob of the layer that is in the store: its own, another form of the same tar, or fetched. Waits for one that is on its way.
    pub(super) fn blob(&self, held: &Held) -> Result<Descriptor, Error> {
        if let Some(blob) = held.blob.as_ref().filter(|blob| self.store.has_blob(&blob.digest, blob.size)) {
            return Ok(blob.clone());
        }
        self.behind.settled(&held.diff_id)?;
        if let Some(other) = self.store.any_layer_blob(&held.diff_id) {
            return Ok(other);
        }
        match (&held.image, &held.blob) {
            (Some(image), Some(blob)) => self.front.fetch(image, blob).map(|()| blob.clone()),
            _ => Err(went_missing(&held.diff_id)),
        }
    }

    /// The directories of the layers' trees, base first.
    pub(super) fn overlay_dirs(&self, layers: &[Held]) -> Result<Vec<PathBuf>, Error> {
        let mut dirs: Vec<PathBuf> = self.lowers(layers)?.into_iter().map(|lower| lower.dir).collect();
        // What is merged.
        dirs.dedup();
        Ok(dirs)
    }

    /// The layers' trees on disk, base first, each checked against its index once. The first of very many have one directory.
    pub(super) fn lowers(&self, layers: &[Held]) -> Result<Vec<Lower>, Error> {
        let deep = merged_of(layers.len());
        let bottom = self.bottom(layers.get(..deep).unwrap_or_default())?;
        self.lowers_above(layers, deep, &bottom)
    }

    /// A directory that holds what these layers show, made once in a build of the one below it. Of none: no directory.
    fn bottom(&self, layers: &[Held]) -> Result<PathBuf, Error> {
        let Some(deep) = layers.len().checked_sub(PART) else { return Ok(PathBuf::new()) };
        let name = chain_id(layers);
        let _alone = self.turns.turn(&format!("bottom-{name}"))?;
        if let Some(made) = whole(&self.bottoms).get(&name) {
            return Ok(made.path().join("root"));
        }
        let below = self.bottom(layers.get(..deep).unwrap_or_default())?;
        let lowers = self.lowers_above(layers, deep, &below)?;
        let scratch = self.store.scratch()?;
        let dir = scratch.path().join("root");
        let _processor = self.processors.one();
        Merged::new(crate::sys::dir::make_root(&dir)?, self.owners)?.fit(&lowers)?;
        drop(whole(&self.bottoms).insert(name, scratch));
        Ok(dir)
    }

    /// The same where `merged` holds what the first `known` layers show: it stands for their trees, which are not made.
    pub(super) fn lowers_above(&self, layers: &[Held], known: usize, merged: &Path) -> Result<Vec<Lower>, Error> {
        if self.memory.is_none() {
            let trees = layers.get(known..).unwrap_or_default();
            at_once(trees, |held| !whole(&self.checked).contains(&held.diff_id), |held| self.tree_alone(held));
        }
        let mut indexes: Vec<Arc<Index>> = Vec::with_capacity(layers.len());
        let mut lowers: Vec<Lower> = Vec::with_capacity(layers.len());
        for (number, held) in layers.iter().enumerate() {
            let (dir, index) =
                if number < known { (merged.to_owned(), self.index(held, &indexes)?) } else { self.tree(held, &indexes, &lowers)? };
            indexes.push(Arc::clone(&index));
            lowers.push(Lower { index, dir });
        }
        Ok(lowers)
    }

    fn tree(&self, held: &Held, below: &[Arc<Index>], lowers: &[Lower]) -> Result<(PathBuf, Arc<Index>), Error> {
        if let Some(memory) = &self.memory {
            let index = self.index(held, below)?;
            if index.has_whiteouts() {
                return Ok((self.tree_in_memory(held, memory, lowers)?, index));
            }
        }
        if let Some(dir) = self.sound_tree(held, || self.index(held, below))? {
            return Ok((dir, self.index(held, below)?));
        }
        let _alone = self.turns.take(&self.tree_name(held), || format!("waiting for another build to extract {}", held.diff_id))?;
        if let Some(dir) = self.sound_tree(held, || self.index(held, below))? {
            return Ok((dir, self.index(held, below)?));
        }
        let scratch = self.store.scratch()?;
        let into = scratch.path().join("tree");
        let index = self.fill(held, lowers, &into, "")?;
        let dir = self.commit(held, &into)?;
        Ok((dir, index))
    }

    /// Makes a tree, or finds it sound, if that needs nothing of the layers below.
    fn tree_alone(&self, held: &Held) -> Result<(), Error> {
        let none = || Error::new(Kind::Bug, "its index is not known");
        let known = || {
            let index = match self.known_index(held) {
                Some(index) => index,
                None => self.store.index(&held.diff_id)?.map(Arc::new).ok_or_else(none)?,
            };
            // Whoever goes through the layers next need not read it again.
            self.learn(held.diff_id, Arc::clone(&index));
            Ok(index)
        };
        let _alone = self.turns.take_for(&self.tree_name(held), || format!("waiting for another build to extract {}", held.diff_id))?;
        if self.behind.source(&held.diff_id).is_some() || self.sound_tree(held, known)?.is_some() {
            return Ok(());
        }
        let scratch = self.store.scratch()?;
        let into = scratch.path().join("tree");
        let dir = crate::sys::dir::make_root(&into)?;
        let blob = self.blob(held)?;
        self.front.event(Event::Note { text: format!("extracting {} ({} bytes)", blob.digest, blob.size) });
        let processor = self.processors.one();
        let Some(index) = layer::extract_alone(self.store, &blob, &held.diff_id, &dir, self.owners)? else { return Ok(()) };
        drop(processor);
        self.learn(held.diff_id, index);
        self.commit(held, &into).map(drop)
    }

    fn tree_name(&self, held: &Held) -> String {
        format!("tree-{}-{}", self.domain, held.diff_id.0.hex())
    }

    fn commit(&self, held: &Held, made: &Path) -> Result<PathBuf, Error> {
        let dir = self.store.commit_tree(self.domain, &held.diff_id, made)?;
        let _new: bool = whole(&self.checked).insert(held.diff_id);
        Ok(dir)
    }

    /// Makes the tree of a layer at a new place: of what the layer is made of while its blob is on its way, else of the blob.
    fn fill(&self, held: &Held, lowers: &[Lower], into: &Path, where_to: &str) -> Result<Arc<Index>, Error> {
        let dir = crate::sys::dir::make_root(into)?;
        if let (Some(source), Some(index)) = (self.behind.source(&held.diff_id), self.known_index(held)) {
            let _processor = self.processors.one();
            if layer::lay_out(&source.changes, &source.chain, &held.diff_id, &dir, lowers, self.owners).is_ok() {
                return Ok(index);
            }
            // A file is not what it was. The blob is.
            let left = crate::sys::dir::names(&dir)?;
            left.iter().try_for_each(|name| crate::sys::dir::remove_tree(&dir, name))?;
        }
        let blob = self.blob(held)?;
        self.front.event(Event::Note { text: format!("extracting {} ({} bytes){where_to}", blob.digest, blob.size) });
        let _processor = self.processors.one();
        let index = layer::extract(self.store, &blob, &held.diff_id, &dir, lowers, self.owners);
        let index = index.inspect_err(|_refused| self.remove_damaged(&blob))?;
        self.learn(held.diff_id, Arc::clone(&index));
        Ok(index)
    }

    /// Overlay knows whiteouts by attribute too, and cannot remove a directory that has some.
    fn tree_in_memory(&self, held: &Held, memory: &Path, lowers: &[Lower]) -> Result<PathBuf, Error> {
        let _alone = self.turns.take(&format!("memory-{}", held.diff_id.0.hex()), || format!("waiting for {}", held.diff_id))?;
        if let Some(dir) = whole(&self.in_memory).get(&held.diff_id) {
            return Ok(dir.clone());
        }
        let into = memory.join(format!("tree-{}", held.diff_id.0.hex()));
        drop(self.fill(held, lowers, &into, " into memory")?);
        self.remember(held.diff_id, into.clone());
        Ok(into)
    }

    /// The tree if it is there and is what its index says; a tree that is not is removed.
    fn sound_tree(&self, held: &Held, index: impl FnOnce() -> Result<Arc<Index>, Error>) -> Result<Option<PathBuf>, Error> {
        let Some(dir) = self.store.tree(self.domain, &held.diff_id) else { return Ok(None) };
        if !whole(&self.checked).contains(&held.diff_id) {
            let index = index()?;
            let _processor = self.processors.one();
            if !layer::is_intact(&dir, &index, self.owners) {
                self.front.event(Event::Note { text: format!("the tree of {} was changed on disk: it is made anew", held.diff_id) });
                self.store.remove_tree(self.domain, &held.diff_id)?;
                return Ok(None);
            }
            let _: bool = whole(&self.checked).insert(held.diff_id);
        }
        Ok(Some(dir))
    }

    /// Makes a step's upper directory the tree of the layer that it became.
    pub(super) fn adopt(&self, diff_id: DiffId, dir: &Path) -> Result<(), Error> {
        drop(self.store.commit_tree(self.domain, &diff_id, dir)?);
        let _: bool = whole(&self.checked).insert(diff_id);
        Ok(())
    }
}

/// Does what can be done of several layers without those below them, several at once. What it cannot do, or fails to, is left to
/// who goes through the layers in their order, and who says why it fails.
fn at_once(layers: &[Held], is_missing: impl Fn(&Held) -> bool, make: impl Fn(&Held) -> Result<(), Error> + Sync) {
    let mut seen = BTreeSet::new();
    let missing: Vec<&Held> = layers.iter().filter(|held| seen.insert(held.diff_id) && is_missing(held)).collect();
    if missing.len() < 2 {
        return;
    }
    let (threads, next) = (missing.len().min(AT_ONCE), AtomicUsize::new(0));
    let work = || {
        while let Some(held) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            let _told_later = make(held);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            // Without a thread it is done later.
            drop(Builder::new().spawn_scoped(scope, work));
        }
    });
}

fn index_name(held: &Held) -> String {
    format!("index-{}", held.diff_id.0.hex())
}

/// What the build had is not in its store any more.
pub(super) fn went_missing(diff_id: &DiffId) -> Error {
    Error::new(Kind::Environment, format!("the layer {diff_id} went missing from the store during the build"))
        .help("build again; its step will be done anew")
        .spoiled()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_layers_there_are_an_overlay_takes_them_and_few_directories_do_for_all_steps() {
        let mut bottoms = BTreeSet::new();
        for layers in 0..5000 {
            let deep = merged_of(layers);
            assert!(layers - deep + usize::from(deep > 0) < 500, "{layers}: an overlay takes 500");
            assert!(deep == 0 || layers > MOST, "{layers}: nothing is merged that need not be");
            // Each is made of the one before.
            assert_eq!(deep % PART, 0);
            let _new: bool = bottoms.insert(deep);
        }
        assert!(bottoms.len() <= 5000 / PART);
    }
}
