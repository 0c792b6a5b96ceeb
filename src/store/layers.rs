//! What is remembered of a layer beside its blobs: `index/<diff-id hex>` and `layers/<diff-id hex>/<compressor>`.
//!
//! Both check themselves; the index is in its own form inside of the seal.

use std::{fs, path::PathBuf};

use super::{
    Error, Store,
    sealed::{Sealed, file_name},
    trees::make_dir,
};
use crate::{
    oci::{Descriptor, DiffId},
    tree::Index,
};

/// An index has some hundred bytes for each path; ten million paths are more than any layer has.
const INDEX: Sealed = Sealed { kind: "index", limit: 4 << 30, durable: false };

/// A descriptor.
const BLOB: Sealed = Sealed { kind: "layer", limit: 64 << 10, durable: false };

impl Store {
    /// A layer's index. `None`: missing or damaged (then it is deleted).
    pub fn index(&self, layer: &DiffId) -> Result<Option<Index>, Error> {
        let path = self.index_path(layer);
        let Some(bytes) = INDEX.read(&path, &layer.0.hex())? else { return Ok(None) };
        let index = Index::decode(&bytes).ok();
        if index.is_none() {
            drop(fs::remove_file(&path));
        }
        Ok(index)
    }

    /// Records a layer's index.
    pub fn put_index(&self, layer: &DiffId, index: &Index) -> Result<(), Error> {
        INDEX.write(&self.tmp(), &self.index_path(layer), &layer.0.hex(), &index.encode())
    }

    /// The blob a layer was compressed as by that compressor (its id: crate, version, level, block size), or pulled as (`pulled`).
    /// `None` too if that blob is not there.
    pub fn layer_blob(&self, layer: &DiffId, compressor: &str) -> Option<Descriptor> {
        self.remembered(layer, &file_name(compressor))
    }

    /// Any blob of a layer that is there: the one that was pulled first, then by name.
    pub fn any_layer_blob(&self, layer: &DiffId) -> Option<Descriptor> {
        let mut names: Vec<String> =
            fs::read_dir(self.layer_dir(layer)).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort_by_key(|name| (name != "pulled", name.clone()));
        names.iter().find_map(|name| self.remembered(layer, name))
    }

    /// Remembers it.
    pub fn put_layer_blob(&self, layer: &DiffId, compressor: &str, blob: &Descriptor) -> Result<(), Error> {
        let dir = self.layer_dir(layer);
        make_dir(&dir)?;
        let name = file_name(compressor);
        let json = serde_json::to_vec(blob).map_err(|error| Error::encoding(&dir, error))?;
        BLOB.write(&self.tmp(), &dir.join(&name), &bound(layer, &name), &json)
    }

    fn remembered(&self, layer: &DiffId, name: &str) -> Option<Descriptor> {
        let bytes = BLOB.read(&self.layer_dir(layer).join(name), &bound(layer, name)).ok()??;
        let blob: Descriptor = serde_json::from_slice(&bytes).ok()?;
        self.has_blob(&blob.digest, blob.size).then_some(blob)
    }

    fn index_path(&self, layer: &DiffId) -> PathBuf {
        self.root.join("index").join(layer.0.hex())
    }

    fn layer_dir(&self, layer: &DiffId) -> PathBuf {
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
