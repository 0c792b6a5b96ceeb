//! `du`: what the store holds, by kind, by image, by layer.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Bounds, Store,
    census::{Census, Kept, Kind},
    evict::has_all_ids,
    pin,
    size::Size,
};
use crate::oci::{DiffId, Digest};

/// What a store holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Usage {
    /// By kind.
    pub kinds: BTreeMap<Kind, Size>,
    /// All of it that counts for the limits: all but what is temporary.
    pub total: Size,
    /// What `prune` would remove now.
    pub reclaimable: Size,
    /// What there may be.
    pub limits: Bounds,
    /// Images by their names.
    pub images: Vec<ImageUse>,
    /// Layers.
    pub layers: BTreeMap<DiffId, LayerUse>,
}

/// What an image takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageUse {
    /// Its name.
    pub name: String,
    /// Its blobs that are here.
    pub size: Size,
    /// What no other name needs.
    pub unique: Size,
}

/// What a layer takes.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct LayerUse {
    /// Its blobs.
    pub blobs: Size,
    /// Its trees.
    pub trees: Size,
    /// Its index.
    pub index: Size,
}

impl LayerUse {
    /// All of it.
    pub fn total(&self) -> Size {
        self.blobs + self.trees + self.index
    }
}

impl Store {
    /// Counts everything.
    pub fn usage(&self) -> Usage {
        let census = Census::take(self);
        let (kinds, total) = (census.kinds.clone(), census.total());
        let needs = self.needs();
        let mut needed: BTreeMap<Digest, usize> = BTreeMap::new();
        for blob in needs.iter().flat_map(|(_, blobs)| blobs) {
            *needed.entry(*blob).or_default() += 1;
        }
        let size = |blob: &Digest| census.blobs.get(blob).map_or_else(Size::default, |(size, _)| *size);
        let images = needs
            .into_iter()
            .map(|(name, blobs)| ImageUse {
                name: name.familiar(),
                size: blobs.iter().map(size).sum(),
                unique: blobs.iter().filter(|blob| needed.get(blob) == Some(&1)).map(size).sum(),
            })
            .collect();
        let layers = census.layers.iter().map(|(layer, parts)| {
            let blobs: BTreeSet<Digest> = parts.entries.iter().filter_map(|(_, _, blob)| *blob).collect();
            let blobs = blobs.iter().map(size).sum();
            let trees = parts.trees.iter().map(|(_, size)| *size).sum();
            (*layer, LayerUse { blobs, trees, index: parts.index.unwrap_or_default() })
        });
        let layers = layers.collect();
        let kept = Kept { named: needed.into_keys().collect(), pins: pin::read_all(&self.locks()).0, all_ids: has_all_ids() };
        let items = census.into_items(self, &kept);
        let reclaimable = items.iter().filter(|item| !item.held).map(|item| item.size).sum();
        Usage { kinds, total, reclaimable, limits: self.bounds(), images, layers }
    }
}
