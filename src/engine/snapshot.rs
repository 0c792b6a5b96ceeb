//! A stage as it stands after some of its steps.

use crate::{
    cache::Outcome,
    image::Item,
    oci::{Descriptor, DiffId},
    plan::BaseImage,
    tree::Moments,
};

/// One layer of a stage.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Its tar.
    pub(super) diff_id: DiffId,
    /// Its blob; a base's may not be in the store.
    pub(super) blob: Descriptor,
    /// The image that has it, if it is a base's.
    pub(super) image: Option<String>,
    /// Times in it that are not those of what it was made of. A base's are all its own.
    pub(super) moments: Moments,
}

/// The layers of a stage so far, and the history since its base.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// The image it began with.
    pub(super) base: Option<BaseImage>,
    /// Base first.
    pub(super) layers: Vec<Held>,
    /// What our steps added to the history.
    pub(super) items: Vec<Item>,
}

impl Snapshot {
    /// Of an image as it is.
    pub(super) fn of_image(image: &BaseImage) -> Self {
        let layers = image
            .config
            .rootfs
            .diff_ids
            .iter()
            .zip(&image.layers)
            .map(|(diff_id, blob)| Held {
                diff_id: *diff_id,
                blob: blob.clone(),
                image: Some(image.name.clone()),
                moments: Moments::default(),
            })
            .collect();
        Self { base: Some(image.clone()), layers, items: Vec::new() }
    }

    /// The diff ids as one value: what a step that sees the tree depends on.
    pub(super) fn chain_id(&self) -> String {
        chain_id(&self.layers)
    }

    /// Times in its layers that are not those of what they were made of.
    pub(super) fn moments(&self) -> Moments {
        self.layers.iter().fold(Moments::default(), |all, held| all.and(&held.moments))
    }

    /// With one more history line and no layer.
    #[must_use]
    pub(super) fn with_line(mut self, created_by: &str) -> Self {
        self.items.push(Item::new(created_by));
        self
    }

    /// With one more layer.
    #[must_use]
    pub(super) fn with_layer(mut self, created_by: &str, outcome: Outcome, blob: Descriptor) -> Self {
        let Outcome { diff_id, created, moments } = outcome;
        self.items.push(Item { layer: Some((diff_id, blob.clone(), created)), ..Item::new(created_by) });
        self.layers.push(Held { diff_id, blob, image: None, moments });
        self
    }
}

/// The diff ids of some layers as one value.
pub(super) fn chain_id(layers: &[Held]) -> String {
    let mut hash = blake3::Hasher::new();
    for held in layers {
        let _: &mut blake3::Hasher = hash.update(held.diff_id.0.as_bytes());
    }
    hash.finalize().to_hex().to_string()
}
