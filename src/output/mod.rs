//! Where an image goes, one file for each kind of sink. Nothing here changes an image: [`recompress`] and [`redate`]
//! make another one.
//!
//! A file is written beside its place, synced and renamed, so that a failure leaves what was there. A dest that is
//! no regular file (`/dev/stdout`, a pipe) is written to as it is.

mod archive;
mod dated;
mod docker;
mod error;
mod flatten;
mod local;
mod oci;
mod pending;
mod recompress;
mod redate;
mod stream;
mod tar;

pub use docker::docker;
pub use error::Error;
pub use local::local;
pub use oci::{oci, oci_dir};
pub use recompress::recompress;
pub use redate::{Moment, redate};
pub use tar::tar;

use std::{collections::BTreeMap, io::Write, path::Path};

use stream::Stream;

use crate::{
    image::Image,
    oci::{Descriptor, Reference},
    store::Store,
};

/// An image and the names it gets in an archive.
#[derive(Debug, Clone)]
pub struct Named<'a> {
    /// The image.
    pub image: &'a Image,
    /// Its names; none: it can be found by its digest only.
    pub names: &'a [Reference],
    /// Annotations of its descriptor in `index.json`.
    pub annotations: BTreeMap<String, String>,
}

impl<'a> Named<'a> {
    /// Without annotations.
    pub fn new(image: &'a Image, names: &'a [Reference]) -> Self {
        Self { image, names, annotations: BTreeMap::new() }
    }
}

/// Where one stream of bytes goes.
pub enum Dest<'a> {
    /// A file; the directory that holds it must exist.
    File(&'a Path),
    /// `-`
    Stream(&'a mut dyn Write),
}

impl std::fmt::Debug for Dest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Dest<'_> {
    /// Hands `write` the stream, buffered; a file appears only if it succeeds.
    fn fill(self, write: impl FnOnce(&mut Stream<'_>) -> Result<(), Error>) -> Result<(), Error> {
        match self {
            Dest::File(path) => {
                let mut stream = Stream::File(pending::PendingFile::create(path)?);
                write(&mut stream)?;
                stream.end()
            }
            Dest::Stream(stream) => {
                let mut stream = Stream::Other(std::io::BufWriter::with_capacity(1 << 16, stream));
                write(&mut stream)?;
                stream.end()
            }
        }
    }
}

/// The blobs of images, each once, sorted by digest: manifests, configs, layers. All are in the store.
fn blobs(store: &Store, images: &[Named<'_>]) -> Result<Vec<Descriptor>, Error> {
    let mut all: BTreeMap<_, Descriptor> = BTreeMap::new();
    for Named { image, .. } in images {
        let manifest = crate::image::manifest(store, &image.manifest)?;
        for blob in std::iter::once(&image.manifest).chain([&manifest.config]).chain(&manifest.layers) {
            drop(all.insert(blob.digest, blob.clone()));
        }
    }
    let missing: Vec<Descriptor> = all.values().filter(|blob| !store.has_blob(&blob.digest, blob.size)).cloned().collect();
    if missing.is_empty() { Ok(all.into_values().collect()) } else { Err(Error::Missing(missing)) }
}
