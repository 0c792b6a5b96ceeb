//! A stage as it stands after some of its steps.

use crate::{
    cache::Outcome,
    oci::{Descriptor, DiffId},
    plan::BaseImage,
    tree::Moments,
};

/// One layer of a stage.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Its tar.
    pub(super) diff_id: DiffId,
    /// Its blob, if it is a base's; it may not be in the store. That of a layer of our own may be on its way.
    pub(super) blob: Option<Descriptor>,
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
    pub(super) lines: Vec<Line>,
    /// Of the layers.
    chain: blake3::Hasher,
}

/// One line of the history, and the layer that it made with the time of that.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) created_by: String,
    pub(super) layer: Option<(DiffId, String)>,
}

impl Snapshot {
    /// Of an image as it is.
    pub(super) fn of_image(image: &BaseImage) -> Self {
        let layers: Vec<Held> = image
            .config
            .rootfs
            .diff_ids
            .iter()
            .zip(&image.layers)
            .map(|(diff_id, blob)| Held {
                diff_id: *diff_id,
                blob: Some(blob.clone()),
                image: Some(image.name.clone()),
                moments: Moments::default(),
            })
            .collect();
        let chain = hashed(&layers);
        Self { base: Some(image.clone()), layers, lines: Vec::new(), chain }
    }

    /// The diff ids as one value: what a step that sees the tree depends on.
    pub(super) fn chain_id(&self) -> String {
        self.chain.finalize().to_hex().to_string()
    }

    /// Times in its layers that are not those of what they were made of.
    pub(super) fn moments(&self) -> Moments {
        self.layers.iter().fold(Moments::default(), |all, held| all.and(&held.moments))
    }

    /// With one more history line and no layer.
    #[must_use]
    pub(super) fn with_line(mut self, created_by: &str) -> Self {
        self.lines.push(Line { created_by: created_by.to_owned(), layer: None });
        self
    }

    /// With one more layer, that was made at this time (RFC 3339).
    #[must_use]
    pub(super) fn with_layer(mut self, created_by: &str, outcome: Outcome) -> Self {
        let Outcome { diff_id, created, moments } = outcome;
        self.lines.push(Line { created_by: created_by.to_owned(), layer: Some((diff_id, created)) });
        let _: &mut blake3::Hasher = self.chain.update(diff_id.0.as_bytes());
        self.layers.push(Held { diff_id, blob: None, image: None, moments });
        self
    }
}

/// The diff ids of some layers as one value.
pub(super) fn chain_id(layers: &[Held]) -> String {
    hashed(layers).finalize().to_hex().to_string()
}

fn hashed(layers: &[Held]) -> blake3::Hasher {
    let mut hash = blake3::Hasher::new();
    for held in layers {
        let _: &mut blake3::Hasher = hash.update(held.diff_id.0.as_bytes());
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    #[test]
    fn the_id_of_a_chain_that_grew_is_that_of_its_layers() {
        let outcome = |text: &[u8]| Outcome { diff_id: DiffId(Digest::of(text)), created: String::new(), moments: Moments::default() };
        let one = Snapshot::default().with_layer("RUN a", outcome(b"a"));
        let two = one.clone().with_line("CMD").with_layer("RUN b", outcome(b"b"));
        assert_eq!(two.chain_id(), chain_id(&two.layers));
        assert_eq!(one.chain_id(), chain_id(&two.layers[..1]));
        assert_ne!(one.chain_id(), two.chain_id());
    }
}
