//! What the layers of a build hold, add and waste: counted when it is over, from the indexes in the store.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    image::Image,
    oci::DiffId,
    store::Store,
    tree::{
        Index,
        census::{self, Census, Changed},
    },
};

use super::super::ledger::{Entry, Ledger};

/// What is known of a step's layer.
#[derive(Debug, Clone, Default)]
pub(super) struct Weight {
    /// Against the layers below; `None` if they are not known.
    pub(super) changed: Option<Changed>,
    /// The bytes of its files.
    pub(super) raw: Option<u64>,
    /// The bytes of its blob.
    pub(super) compressed: Option<u64>,
    /// How many of its raw bytes are not seen in the image; `None` if it is in none.
    pub(super) wasted: Option<u64>,
}

/// The image that was built, with its base.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Total {
    pub(super) layers: usize,
    pub(super) raw: u64,
    pub(super) compressed: Option<u64>,
    pub(super) wasted: u64,
}

/// What is known of all layers.
pub(super) struct Measured {
    steps: Vec<Weight>,
    total: Option<Total>,
}

impl Measured {
    /// Counts. `image` is what was built, if the build went well.
    pub(super) fn of(store: &Store, ledger: &Ledger, image: Option<&Image>) -> Self {
        let indexes = indexes(store, ledger);
        let sizes = sizes(store, ledger, image);
        let mut steps: Vec<Weight> = changes(ledger, &indexes);
        for (entry, weight) in ledger.steps.iter().zip(&mut steps) {
            let Some(layer) = layer(entry) else { continue };
            weight.raw = indexes.get(layer).map(|index| census::contents(index));
            weight.compressed = sizes.get(layer).copied();
        }
        let total = image.and_then(|_| shipped(ledger, &indexes, &sizes, &mut steps));
        Self { steps, total }
    }

    /// Of a step.
    pub(super) fn step(&self, number: usize) -> Weight {
        self.steps.get(number).cloned().unwrap_or_default()
    }

    /// Of the image, if all of its layers are known.
    pub(super) fn total(&self) -> Option<Total> {
        self.total
    }
}

fn layer(entry: &Entry) -> Option<&DiffId> {
    entry.layer.as_ref().map(|(_, layer, _)| layer)
}

/// All layers that a step made or began with.
fn all_layers(ledger: &Ledger) -> impl Iterator<Item = &DiffId> {
    ledger.steps.iter().flat_map(|entry| entry.info.base.iter().chain(layer(entry)))
}

/// Those that are in the store: a base that no step had to see may not be.
fn indexes(store: &Store, ledger: &Ledger) -> BTreeMap<DiffId, Arc<Index>> {
    let mut all = BTreeMap::new();
    for layer in all_layers(ledger) {
        if let (false, Ok(Some(index))) = (all.contains_key(layer), store.index(layer)) {
            let _was: Option<Arc<Index>> = all.insert(*layer, Arc::new(index));
        }
    }
    all
}

/// The sizes of blobs: the image's own, and of other layers what the store has.
fn sizes(store: &Store, ledger: &Ledger, image: Option<&Image>) -> BTreeMap<DiffId, u64> {
    let mut all: BTreeMap<DiffId, u64> = BTreeMap::new();
    for layer in all_layers(ledger) {
        if let (false, Some(blob)) = (all.contains_key(layer), store.any_layer_blob(layer)) {
            let _was: Option<u64> = all.insert(*layer, blob.size);
        }
    }
    if let Some(image) = image {
        all.extend(image.config.rootfs.diff_ids.iter().copied().zip(image.layers.iter().map(|blob| blob.size)));
    }
    all
}

/// What each step's layer makes of the tree that it begins with.
fn changes(ledger: &Ledger, indexes: &BTreeMap<DiffId, Arc<Index>>) -> Vec<Weight> {
    // A tree is kept as long as a step is to begin with it.
    let mut left: BTreeMap<usize, usize> = BTreeMap::new();
    for on in ledger.steps.iter().filter_map(|entry| entry.info.on) {
        *left.entry(on).or_default() += 1;
    }
    let mut trees: BTreeMap<usize, Census> = BTreeMap::new();
    let mut all = Vec::new();
    for (number, entry) in ledger.steps.iter().enumerate() {
        let tree = match entry.info.on {
            None => of_layers(&entry.info.base, indexes),
            Some(on) => {
                let more = left.entry(on).or_default();
                *more = more.saturating_sub(1);
                if *more == 0 { trees.remove(&on) } else { trees.get(&on).cloned() }
            }
        };
        let mut weight = Weight::default();
        // What makes no layer leaves the tree as it is; what should have made one, and did not, leaves none.
        let after = match (tree, layer(entry).map(|layer| indexes.get(layer))) {
            (Some(mut tree), Some(Some(index))) => {
                weight.changed = Some(tree.lay(index));
                Some(tree)
            }
            (Some(tree), None) => Some(tree),
            (_, Some(None)) | (None, _) => None,
        };
        if let (Some(tree), true) = (after, left.contains_key(&number)) {
            let _was: Option<Census> = trees.insert(number, tree);
        }
        all.push(weight);
    }
    all
}

fn of_layers(layers: &[DiffId], indexes: &BTreeMap<DiffId, Arc<Index>>) -> Option<Census> {
    let mut tree = Census::default();
    for layer in layers {
        let _counted: Changed = tree.lay(indexes.get(layer)?);
    }
    Some(tree)
}

/// The image's layers: those of the one step that no other needs, and of all that it stands on.
fn shipped(ledger: &Ledger, indexes: &BTreeMap<DiffId, Arc<Index>>, sizes: &BTreeMap<DiffId, u64>, steps: &mut [Weight]) -> Option<Total> {
    let mut at = last(ledger)?;
    let mut chain: Vec<(Option<usize>, DiffId)> = Vec::new();
    loop {
        let entry = ledger.step(at)?;
        chain.extend(layer(entry).map(|layer| (Some(at), *layer)));
        match entry.info.on {
            Some(on) if on < at => at = on,
            _ => {
                chain.extend(entry.info.base.iter().rev().map(|layer| (None, *layer)));
                break;
            }
        }
    }
    chain.reverse();
    let layers = chain.iter().map(|(_, layer)| indexes.get(layer).cloned()).collect::<Option<Vec<_>>>();
    // Of a base that is not known nothing is said, but what lies above it does not depend on it.
    let known: Vec<(Option<usize>, DiffId)> = match layers {
        Some(_) => chain.clone(),
        None => chain.iter().filter(|(_, layer)| indexes.contains_key(layer)).copied().collect(),
    };
    let of_known: Vec<Arc<Index>> = known.iter().filter_map(|(_, layer)| indexes.get(layer).cloned()).collect();
    let wasted = census::wasted(&of_known);
    for ((step, _), wasted) in known.iter().zip(&wasted) {
        if let Some(weight) = step.and_then(|step| steps.get_mut(step)) {
            weight.wasted = Some(*wasted);
        }
    }
    layers.map(|layers| Total {
        layers: layers.len(),
        raw: layers.iter().map(|index| census::contents(index)).sum(),
        compressed: chain.iter().map(|(_, layer)| sizes.get(layer).copied()).sum(),
        wasted: wasted.iter().sum(),
    })
}

fn last(ledger: &Ledger) -> Option<usize> {
    let needed: std::collections::BTreeSet<usize> = ledger.steps.iter().flat_map(|entry| entry.info.needs.iter().copied()).collect();
    let mut ends = (0..ledger.steps.len()).filter(|number| !needed.contains(number));
    ends.next().filter(|_| ends.next().is_none())
}
