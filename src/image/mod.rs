//! Configs, manifests, history; validation of images that come from outside.

use crate::{
    layer,
    oci::{Descriptor, Digest, ImageConfig, Platform},
    store,
};

/// A finished image: its manifest, config and layers are blobs of the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Of the manifest.
    pub manifest: Descriptor,
    /// Of the config.
    pub config_digest: Digest,
    /// The config.
    pub config: ImageConfig,
    /// The layers' blobs, base first.
    pub layers: Vec<Descriptor>,
    /// What it runs on.
    pub platform: Platform,
}

/// Why an image could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layer refused.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// The image's data are not sound.
    #[error("{what} is not a sound image: {reason}")]
    Bad {
        /// Its name or digest.
        what: String,
        /// What was found.
        reason: String,
    },
}
