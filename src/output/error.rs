//! Why an image could not be written.

use std::{io, path::PathBuf};

use crate::{error, image, layer, oci::Descriptor, store, sys::PathError};

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The image's own data are not there or not sound.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// A layer could not be read or written.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// The stream that it goes to broke off.
    #[error("write the output")]
    Stream(#[source] io::Error),
    /// A blob could not be read to its end.
    #[error("read the blob {digest}")]
    Blob {
        /// Its digest.
        digest: crate::oci::Digest,
        /// What was wrong.
        #[source]
        source: io::Error,
    },
    /// Blobs that are not in the store yet: a base's layers that no step had to see.
    #[error("the store lacks {} of the image's blobs, {} first", .0.len(), .0.first().map_or_else(String::new, |blob| blob.digest.to_string()))]
    Missing(Vec<Descriptor>),
    /// The place is of no use.
    #[error("cannot write to `{}`: {reason}", path.display())]
    Dest {
        /// The place.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl Error {
    /// For the place `path`.
    pub(super) fn dest(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Dest { path: path.into(), reason: reason.into() }
    }

    /// Whose fault it is.
    pub fn kind(&self) -> error::Kind {
        match self {
            Self::Image(error) => error.kind(),
            Self::Dest { .. } => error::Kind::Request,
            Self::Path(_) | Self::Store(_) | Self::Layer(_) | Self::Stream(_) | Self::Blob { .. } | Self::Missing(_) => {
                error::Kind::Environment
            }
        }
    }
}
