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

/// A layer's tar with any kinds of entries; what begins with `->` is a symbolic link, with `=>` a hard link, with
/// `!` a device 1:3; a name that ends in `/` is a directory.
pub(crate) fn layer_of(store: &Store, entries: &[(&str, &str)]) -> (DiffId, Descriptor) {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in entries {
        let mut header = tar::Header::new_ustar();
        let (kind, link, text) = match (text.strip_prefix("->"), text.strip_prefix("=>")) {
            (Some(target), _) => (tar::EntryType::Symlink, target, ""),
            (_, Some(target)) => (tar::EntryType::Link, target, ""),
            _ if *text == "!" => (tar::EntryType::Char, "", ""),
            _ if name.ends_with('/') => (tar::EntryType::Directory, "", ""),
            _ => (tar::EntryType::Regular, "", *text),
        };
        header.set_entry_type(kind);
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_ustar_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_mode(if name.ends_with('/') { 0o755 } else { 0o4644 });
        header.set_uid(1000);
        header.set_gid(33);
        header.set_mtime(7);
        header.set_size(text.len() as u64);
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }
    let tar = builder.into_inner().unwrap();
    let blob = gzip(&tar);
    let digest = store.put_blob(&blob).unwrap();
    (DiffId(Digest::of(&tar)), Descriptor::new(media_type::LAYER_GZIP, digest, blob.len() as u64))
}

/// An image of layers made by [`layer_of`].
pub(crate) fn image_of(store: &Store, layers: &[&[(&str, &str)]]) -> Image {
    let items: Vec<Item> = layers
        .iter()
        .map(|entries| {
            let (id, blob) = layer_of(store, entries);
            Item { layer: Some((id, blob, "2024-01-02T03:04:05Z".into())), ..Item::new("RUN x") }
        })
        .collect();
    assemble(store, None, ImageConfig::default(), &items, &platform()).unwrap()
}
