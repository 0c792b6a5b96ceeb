//! Reads images as the specifications say, with no code of lapstrake: each blob is hashed again, each diff id
//! derived again from the uncompressed tar.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Node, merged, read_layer, tree::Row};

/// A layer, read and verified.
pub(crate) struct Layer {
    pub(crate) digest: String,
    pub(crate) diff_id: String,
    pub(crate) rows: Vec<Row>,
}

/// An image, read and verified.
pub(crate) struct Image {
    /// The manifest's digest; of a docker archive there is none.
    pub(crate) digest: String,
    pub(crate) manifest: Value,
    pub(crate) config: Value,
    pub(crate) config_digest: String,
    pub(crate) layers: Vec<Layer>,
}

/// 64 hex digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

impl Image {
    /// Of a layout directory with one image.
    pub(crate) fn of_layout(dir: &Path) -> Self {
        let mut files = BTreeMap::new();
        collect(dir, dir, &mut files);
        Self::of_files(&files)
    }

    /// Of a tar of a layout.
    pub(crate) fn of_layout_tar(tar: &Path) -> Self {
        Self::of_files(&unpacked(tar))
    }

    /// Of an archive for `docker load`.
    pub(crate) fn of_docker_archive(tar: &Path) -> Self {
        let files = unpacked(tar);
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest.as_array().map(Vec::len), Some(1), "one image in {manifest}");
        let manifest = manifest[0].clone();
        let config_bytes = &files[manifest["Config"].as_str().unwrap()];
        let layers = manifest["Layers"].as_array().unwrap().iter().map(|name| {
            let bytes = &files[name.as_str().unwrap()];
            (format!("sha256:{}", sha256(bytes)), bytes.as_slice())
        });
        let layers = layers.collect::<Vec<_>>();
        Self::assembled(String::new(), manifest, config_bytes, layers)
    }

    fn of_files(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let layout: Value = serde_json::from_slice(&files["oci-layout"]).unwrap();
        assert_eq!(layout["imageLayoutVersion"], "1.0.0");
        for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("blobs/")) {
            assert_eq!(*name, format!("blobs/sha256/{}", sha256(bytes)), "a blob that is not what its name says");
        }
        let mut index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        loop {
            assert_eq!(index["schemaVersion"], 2);
            assert_eq!(index["manifests"].as_array().map(Vec::len), Some(1), "one image in {index}");
            let entry = &index["manifests"][0];
            let digest = entry["digest"].as_str().unwrap().to_owned();
            let document: Value = serde_json::from_slice(described(files, entry)).unwrap();
            if document.get("manifests").is_some() {
                index = document;
                continue;
            }
            assert_eq!(document["schemaVersion"], 2);
            if let Some(media_type) = document.get("mediaType") {
                assert_eq!(*media_type, entry["mediaType"], "the manifest and its descriptor have one type");
            }
            let layers = document["layers"].as_array().unwrap().iter();
            let layers = layers.map(|layer| (layer["digest"].as_str().unwrap().to_owned(), described(files, layer))).collect();
            let config = described(files, &document["config"]);
            return Self::assembled(digest, document.clone(), config, layers);
        }
    }

    fn assembled(digest: String, manifest: Value, config_bytes: &[u8], layers: Vec<(String, &[u8])>) -> Self {
        let config: Value = serde_json::from_slice(config_bytes).unwrap();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        assert_eq!(diff_ids.len(), layers.len(), "a diff id for each layer");
        let history = config["history"].as_array().cloned().unwrap_or_default();
        let with_layer = history.iter().filter(|line| line["empty_layer"] != true).count();
        assert_eq!(with_layer, layers.len(), "a line of history for each layer: {history:?}");
        let last = layers.len();
        let layers = layers.into_iter().enumerate().map(|(at, (digest, blob))| {
            let tar = plain(blob);
            let diff_id = format!("sha256:{}", sha256(&tar));
            assert_eq!(diff_ids[at], diff_id.as_str(), "layer {at} of {last}");
            // The first one is the base, which others made.
            Layer { digest, diff_id, rows: read_layer(&tar, at == 0) }
        });
        let layers = layers.collect();
        Self { digest, manifest, config_digest: format!("sha256:{}", sha256(config_bytes)), config, layers }
    }

    /// The file tree of all layers.
    pub(crate) fn tree(&self) -> BTreeMap<String, Node> {
        merged(self.layers.iter().map(|layer| &layer.rows))
    }

    /// The paths a layer has, counted from the end: 0 is the last one. A whiteout has a `-` before its path.
    pub(crate) fn paths(&self, from_end: usize) -> Vec<String> {
        let layer = &self.layers[self.layers.len() - 1 - from_end];
        layer.rows.iter().map(|(path, node)| if node.is_some() { path.clone() } else { format!("-{path}") }).collect()
    }

    /// The diff ids, base first.
    pub(crate) fn diff_ids(&self) -> Vec<&str> {
        self.layers.iter().map(|layer| layer.diff_id.as_str()).collect()
    }
}

/// A descriptor's bytes, with its digest and size checked.
fn described<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap();
    let name = format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap());
    let bytes = files.get(&name).unwrap_or_else(|| panic!("{digest} is not in the layout"));
    assert_eq!(descriptor["size"], bytes.len(), "the size of {digest}");
    bytes
}

/// The uncompressed bytes, told by the magic number.
fn plain(blob: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match blob {
        [0x1f, 0x8b, ..] => drop(flate2::read::MultiGzDecoder::new(blob).read_to_end(&mut bytes).unwrap()),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => bytes = zstd::decode_all(blob).unwrap(),
        _ => bytes = blob.to_vec(),
    }
    bytes
}

/// The files of a tar by path.
fn unpacked(tar: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(tar).unwrap();
    let mut files = BTreeMap::new();
    let mut links = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                let mut content = Vec::new();
                let _size = entry.read_to_end(&mut content).unwrap();
                assert!(files.insert(path, content).is_none(), "a path twice in {}", tar.display());
            }
            tar::EntryType::Link | tar::EntryType::Symlink => links.push((path, entry.link_name().unwrap().unwrap().into_owned())),
            tar::EntryType::Directory => {}
            other => panic!("an entry of type {other:?} in {}", tar.display()),
        }
    }
    for (path, target) in links {
        // Links of archives name a file beside or above them: its name alone is enough.
        let name = target.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let content = files.get(target.to_str().unwrap()).or_else(|| files.get(&name?)).cloned();
        drop(files.insert(path, content.unwrap_or_else(|| panic!("a link to {}", target.display()))));
    }
    files
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            drop(files.insert(name, fs::read(&path).unwrap()));
        }
    }
}
