//! Configs, manifests, history; validation of images that come from outside.
//!
//! - [`assemble`] makes an image of a base, a config and the items that a build made; its bytes depend on these
//!   values alone.
//! - [`read`] takes an image out of the store and believes nothing of it before it is checked.
//! - [`load`] and [`import`] bring images and root file systems in from archives.
//!
//! An [`Image`] never changes: [`Image::annotated`], [`Image::with_layers`] and [`Image::relayered`] give new ones.
//!
//! Source: image-spec `manifest.md`, `image-index.md`, `config.md`; moby `image/tarexport`; `BuildKit`'s
//! `exporter/containerimage/writer.go`.

mod assemble;
#[cfg(test)]
pub(crate) mod fixture;
mod history;
mod import;
mod load;
mod noted;
mod read;
mod relayered;

pub use assemble::{BaseParts, COMMENT, Flavor, Item, assemble};
pub use import::import;
pub use load::{Loaded, load, load_stream};
pub use noted::carrier;
pub use read::{CONFIG_LIMIT, MANIFEST_LIMIT, choose, manifest, read};

use crate::{
    error::Kind,
    layer,
    oci::{Descriptor, Digest, ImageConfig, Platform},
    store,
    sys::PathError,
};

/// A finished image: its manifest and config are blobs of the store; its layers are too, unless they are a base's
/// that nobody needed yet.
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
    /// How many of the layers came with the base: an output's compression leaves them alone unless forced. 0 for
    /// an image that was read.
    pub base_layers: usize,
    /// What it runs on.
    pub platform: Platform,
}

/// Why an image could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layer refused.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// A stream that an image comes from broke off.
    #[error("read {what}")]
    Stream {
        /// Which one.
        what: String,
        /// What the kernel or the decompressor said.
        #[source]
        source: std::io::Error,
    },
    /// An archive that an image comes from is not sound.
    #[error("read {what}")]
    Archive {
        /// Which one.
        what: String,
        /// What was found.
        #[source]
        source: layer::archive::Error,
    },
    /// A blob that is needed is not in the store.
    #[error("the store lacks {digest}, {what}")]
    Missing {
        /// Its digest.
        digest: Digest,
        /// What it would be.
        what: &'static str,
    },
    /// An index has nothing for a platform.
    #[error("{what} has no image for {platform}; it has {offered}")]
    NoPlatform {
        /// The index.
        what: String,
        /// What was asked for.
        platform: Box<Platform>,
        /// What there is.
        offered: String,
    },
    /// The image's data are not sound.
    #[error("{what} is not a sound image: {reason}")]
    Bad {
        /// Its name or digest.
        what: String,
        /// What was found.
        reason: String,
    },
}

impl Error {
    /// For the image or archive called `what`.
    pub(crate) fn bad(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Bad { what: what.into(), reason: reason.into() }
    }

    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        let is_of_this_machine = match self {
            Self::Path(_) => true,
            // What was promised is not what is there: who gave the image is to blame.
            Self::Store(error) => !matches!(error, store::Error::Mismatch { .. }),
            Self::Layer(error) => !matches!(error, layer::Error::BadLayer { .. }),
            Self::Stream { .. } | Self::Archive { .. } | Self::Missing { .. } | Self::NoPlatform { .. } | Self::Bad { .. } => false,
        };
        if is_of_this_machine { Kind::Environment } else { Kind::Request }
    }
}
