//! Small images for the tests of this room and of `output`: layers as the `tar` crate writes them, so that what is tested
//! did not make its own input.

use std::io::Write as _;

use crate::{
    oci::{Descriptor, DiffId, Digest, ImageConfig, Platform, media_type},
    store::Store,
};

use super::{Image, Item, assemble};

/// A store in a directory that goes with it.
pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

pub(crate) fn platform() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// A tar of regular files.
pub(crate) fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A gzip layer in the store.
pub(crate) fn layer(store: &Store, files: &[(&str, &str)]) -> (DiffId, Descriptor) {
    let tar = tar_of(files);
    let blob = gzip(&tar);
    let digest = store.put_blob(&blob).unwrap();
    (DiffId(Digest::of(&tar)), Descriptor::new(media_type::LAYER_GZIP, digest, blob.len() as u64))
}

/// An image of these layers, each with one file.
pub(crate) fn image(store: &Store, files: &[(&str, &str)]) -> Image {
    let items: Vec<Item> = files
        .iter()
        .map(|file| {
            let (id, blob) = layer(store, &[*file]);
            Item { layer: Some((id, blob, "2024-01-02T03:04:05Z".into())), ..Item::new(format!("COPY {} / # buildkit", file.0)) }
        })
        .chain([Item::new("CMD [\"/bin/true\"]")])
        .collect();
    let mut config = ImageConfig::default();
    config.config.cmd = Some(vec!["/bin/true".into()]);
    assemble(store, None, config, &items, &platform()).unwrap()
}
