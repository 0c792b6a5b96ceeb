//! What images with names need: the blobs that their manifests lead to.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Store, pin::Pin};
use crate::oci::{Descriptor, Digest, Reference};

/// A manifest is no larger; what is larger is not gone into.
const LIMIT: u64 = 4 << 20;

/// An index of indexes of indexes is nobody's.
const DEPTH: usize = 3;

/// What a manifest or an index of them names.
#[derive(Debug, Default, Deserialize)]
struct Links {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl Store {
    /// Blobs that some name needs, be they there or not.
    pub(super) fn named_blobs(&self) -> BTreeSet<Digest> {
        let mut all = BTreeSet::new();
        for (_, target) in self.refs().unwrap_or_default() {
            self.reach(&target, DEPTH, &mut all);
        }
        all
    }

    /// Names, and for each the blobs that it needs.
    pub(super) fn needs(&self) -> Vec<(Reference, BTreeSet<Digest>)> {
        let refs = self.refs().unwrap_or_default();
        let reached = |target: &Descriptor| {
            let mut all = BTreeSet::new();
            self.reach(target, DEPTH, &mut all);
            all
        };
        refs.into_iter().map(|(name, target)| (name, reached(&target))).collect()
    }

    /// Holds all blobs of an image, be they there or not.
    pub fn hold(&self, image: &Descriptor) {
        let mut all = BTreeSet::new();
        self.reach(image, DEPTH, &mut all);
        for blob in all {
            self.pin(Pin::Blob(blob));
        }
    }

    fn reach(&self, target: &Descriptor, depth: usize, all: &mut BTreeSet<Digest>) {
        if !all.insert(target.digest) || depth == 0 {
            return;
        }
        let bytes = self.clone().looking().blob(&target.digest, LIMIT).ok().flatten();
        let links: Links = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        all.extend(links.config.iter().chain(&links.layers).map(|blob| blob.digest));
        for manifest in &links.manifests {
            self.reach(manifest, depth - 1, all);
        }
    }
}
