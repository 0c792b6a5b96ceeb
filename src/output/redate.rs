//! An image as if it had been made at another time, by the rule of [`layer::redate`]: layers that came with the base stay.
//!
//! In the store, under a key made of the layer, the layers under it, the epoch and the moments, is which layer came out. It is
//! believed as far as the blob is there.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    image::Image,
    layer::{self, Compression, Dating},
    oci::{Descriptor, DiffId},
    store::Store,
    tree::{Chain, Moments},
};

use super::Error;

/// What an image's times are to be.
#[derive(Debug, Clone)]
pub struct Moment<'a> {
    /// In seconds since 1970.
    pub epoch: i64,
    /// For each layer, base first, the times in it that say when it was made.
    pub moments: &'a [Moments],
    /// How new layers are compressed.
    pub compression: Compression,
}

/// The image whose own layers say that time. The layers that it has are in the store.
pub fn redate(store: &Store, image: &Image, to: &Moment<'_>) -> Result<Image, Error> {
    let mut own = Own { store, to, below: Vec::new(), indexes: BTreeMap::new() };
    let mut layers: Vec<(DiffId, Descriptor)> = Vec::with_capacity(image.layers.len());
    // A step's files have the times of the steps before it too: it may have moved them.
    let mut moments = Moments::default();
    for (at, (blob, id)) in image.layers.iter().zip(&image.config.rootfs.diff_ids).enumerate() {
        if at < image.base_layers {
            layers.push((*id, blob.clone()));
            continue;
        }
        if let Some(more) = to.moments.get(at) {
            moments = moments.and(more);
        }
        layers.push(own.layer(id, blob, &moments)?);
    }
    Ok(image.relayered(store, &layers)?)
}

/// The layers that were made anew so far.
struct Own<'a> {
    store: &'a Store,
    to: &'a Moment<'a>,
    below: Vec<(DiffId, Descriptor)>,
    indexes: BTreeMap<DiffId, Arc<crate::tree::Index>>,
}

impl Own<'_> {
    fn layer(&mut self, id: &DiffId, blob: &Descriptor, moments: &Moments) -> Result<(DiffId, Descriptor), Error> {
        let key = self.key(id, moments);
        let known = self.store.record(&key)?.and_then(|bytes| serde_json::from_slice::<DiffId>(&bytes).ok());
        let compressed = |id: &DiffId| self.store.layer_blob(id, &self.to.compression.id());
        let made = if let Some(known) = known.and_then(|known| Some((known, compressed(&known)?))) {
            known
        } else {
            let dating = Dating { epoch: self.to.epoch, moments: moments.clone() };
            let made = layer::redate(self.store, (id, blob), &self.chain()?, &dating, self.to.compression)?;
            drop(self.indexes.insert(made.diff_id, made.index));
            let text = serde_json::to_vec(&made.diff_id).map_err(|error| Error::Stream(error.into()))?;
            self.store.put_record(&key, &text)?;
            (made.diff_id, made.blob)
        };
        self.below.push(made.clone());
        Ok(made)
    }

    /// The layers so far, for a layer that is not known yet.
    fn chain(&mut self) -> Result<Chain, Error> {
        let mut chain = Chain::default();
        for (id, blob) in &self.below {
            let index = match (self.indexes.get(id), self.store.index(id)?) {
                (Some(index), _) => Arc::clone(index),
                (None, Some(index)) => Arc::new(index),
                (None, None) => layer::index(self.store, blob, id, &chain)?,
            };
            drop(self.indexes.insert(*id, Arc::clone(&index)));
            chain = chain.with(index);
        }
        Ok(chain)
    }

    fn key(&self, id: &DiffId, moments: &Moments) -> String {
        let mut hash = blake3::Hasher::new_derive_key("lapstrake: a layer with other times, 1");
        let mut word = |word: &[u8]| {
            let _: &mut blake3::Hasher = hash.update(word);
        };
        word(&self.to.epoch.to_le_bytes());
        word(id.0.as_bytes());
        word(&(self.below.len() as u64).to_le_bytes());
        self.below.iter().for_each(|(below, _)| word(below.0.as_bytes()));
        for (first, last) in moments.ranges() {
            word(&first.to_le_bytes());
            word(&last.to_le_bytes());
        }
        format!("{}-2", hash.finalize().to_hex())
    }
}
