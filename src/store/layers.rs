//! What is remembered of a layer beside its blobs: `index/<diff-id hex>` and `layers/<diff-id hex>/<compressor>`.
//!
//! Both check themselves; the index is in its own form inside of the seal.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Error, Store,
    pin::Pin,
    sealed::{Sealed, file_name},
    size::Size,
    trees::make_dir,
};
use crate::{
    oci::{Descriptor, DiffId},
    tree::Index,
};

/// An index has some sixty bytes for each path, of which a layer may have four million, and their long names and attributes, which
/// `layer::read` and the index's writer bound below a GiB.
const INDEX: Sealed = Sealed { kind: "index", limit: 4 << 30, durable: false };

/// A descriptor.
const BLOB: Sealed = Sealed { kind: "layer", limit: 64 << 10, durable: false };

impl Store {
    /// A layer's index. `None`: missing or damaged (then it is deleted).
    pub fn index(&self, layer: &DiffId) -> Result<Option<Index>, Error> {
        self.pin(Pin::Layer(*layer));
        let path = self.index_path(layer);
        let Some(bytes) = INDEX.read(&path, &layer.0.hex())? else { return Ok(None) };
        let index = Index::decode(bytes).ok();
        match &index {
            Some(index) => self.learn_size(layer, index),
            None => drop(fs::remove_file(&path)),
        }
        Ok(index)
    }

    /// Records a layer's index.
    pub fn put_index(&self, layer: &DiffId, index: &Index) -> Result<(), Error> {
        let path = self.index_path(layer);
        self.learn_size(layer, index);
        INDEX.put(self, &path, &layer.0.hex(), index.encode(), Some(Pin::Layer(*layer)))
    }

    /// The blob a layer was compressed as by that compressor (its id: crate, version, level, block size), or pulled as (`pulled`).
    /// `None` too if that blob is not there.
    pub fn layer_blob(&self, layer: &DiffId, compressor: &str) -> Option<Descriptor> {
        self.pin(Pin::Layer(*layer));
        self.remembered(layer, &file_name(compressor))
    }

    /// Any blob of a layer that is there: the one that was pulled first, then by name.
    pub fn any_layer_blob(&self, layer: &DiffId) -> Option<Descriptor> {
        self.pin(Pin::Layer(*layer));
        let mut names: Vec<String> =
            fs::read_dir(self.layer_dir(layer)).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort_by_key(|name| (name != "pulled", name.clone()));
        names.iter().find_map(|name| self.remembered(layer, name))
    }

    /// Remembers it.
    pub fn put_layer_blob(&self, layer: &DiffId, compressor: &str, blob: &Descriptor) -> Result<(), Error> {
        let dir = self.layer_dir(layer);
        let name = file_name(compressor);
        let path = dir.join(&name);
        let json = serde_json::to_vec(blob).map_err(|error| Error::encoding(&dir, error))?;
        let held = Some(Pin::Layer(*layer));
        if !dir.is_dir() {
            self.commit_size(Size::of_file(4096), Size::default(), held.clone(), || make_dir(&dir))?;
        }
        BLOB.put(self, &path, &bound(layer, &name), json.as_slice(), held)
    }

    fn remembered(&self, layer: &DiffId, name: &str) -> Option<Descriptor> {
        Self::entry(layer, &self.layer_dir(layer).join(name)).filter(|blob| self.is_there(&blob.digest, blob.size))
    }

    /// What one of a layer's files says. It is removed if it is damaged.
    pub(super) fn entry(layer: &DiffId, path: &Path) -> Option<Descriptor> {
        let bytes = BLOB.read(path, &bound(layer, path.file_name()?.to_str()?)).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Reads an index for its own sake.
    pub(super) fn index_of(&self, layer: &DiffId) -> Option<Index> {
        let bytes = INDEX.read(&self.index_path(layer), &layer.0.hex()).ok()??;
        Index::decode(bytes).ok()
    }

    pub(super) fn index_path(&self, layer: &DiffId) -> PathBuf {
        self.root.join("index").join(layer.0.hex())
    }

    pub(super) fn layer_dir(&self, layer: &DiffId) -> PathBuf {
        self.root.join("layers").join(layer.0.hex())
    }
}

fn bound(layer: &DiffId, name: &str) -> String {
    format!("{}/{name}", layer.0.hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        oci::Digest,
        store::tests::store,
        tree::{IndexBuilder, Row, TreePath},
    };

    #[test]
    fn a_layers_blob_is_remembered_while_the_blob_is_there() {
        let (_dir, store) = store();
        let layer = DiffId(Digest::of(b"tar"));
        let gzip = Descriptor::new("x/gzip", store.put_blob(b"gzip").unwrap(), 4);
        let pulled = Descriptor::new("x/pulled", store.put_blob(b"pulled").unwrap(), 6);
        assert_eq!(store.any_layer_blob(&layer), None);
        store.put_layer_blob(&layer, "gzip zlib-rs/0.5 level 6", &gzip).unwrap();
        store.put_layer_blob(&layer, "pulled", &pulled).unwrap();
        assert_eq!(store.layer_blob(&layer, "gzip zlib-rs/0.5 level 6"), Some(gzip.clone()));
        assert_eq!(store.layer_blob(&layer, "zstd"), None);
        assert_eq!(store.any_layer_blob(&layer), Some(pulled.clone()));
        fs::remove_file(store.root().join("blobs/sha256").join(pulled.digest.hex())).unwrap();
        assert_eq!(store.any_layer_blob(&layer), Some(gzip));
        assert_eq!(store.layer_blob(&layer, "pulled"), None);
    }

    #[test]
    fn a_damaged_index_is_missing_and_deleted() {
        let (_dir, store) = store();
        let layer = DiffId(Digest::of(b"tar"));
        let other = DiffId(Digest::of(b"other"));
        let mut rows = IndexBuilder::default();
        rows.put(TreePath::parse(b"gone").unwrap(), Row::Whiteout);
        let index = rows.finish();
        store.put_index(&layer, &index).unwrap();
        assert_eq!(store.index(&layer).unwrap(), Some(index));
        fs::copy(store.index_path(&layer), store.index_path(&other)).unwrap();
        assert_eq!(store.index(&other).unwrap(), None);
        assert!(!store.index_path(&other).exists());
        fs::write(store.index_path(&layer), b"garbage").unwrap();
        assert_eq!(store.index(&layer).unwrap(), None);
        assert!(!store.index_path(&layer).exists());
    }
}
