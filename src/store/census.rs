//! What is in a store, counted: by kind for the ledger and `du`, and as items that can be removed, each whole.
//!
//! An item is what is of no use without the rest: a layer with its trees, its index and its blobs; a record with its
//! details; a blob that is of no layer; a cache mount; a git repository. What an image with a name needs is in no item.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{
    Store,
    measure::{measure, noted},
    pin::Pin,
    size::Size,
};
use crate::oci::{DiffId, Digest};

/// What things of a store are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Manifests, configs and compressed layers.
    Blobs,
    /// Tables of what layers hold.
    Indexes,
    /// Extracted layers.
    Trees,
    /// Outcomes of steps, what layers are compressed as.
    Records,
    /// What files of contexts were.
    Stat,
    /// Names of images.
    Refs,
    /// Directories of `RUN --mount=type=cache`.
    CacheMounts,
    /// Repositories that were fetched.
    Git,
    /// What running builds write, and killed ones left.
    Temporary,
    /// Locks, the ledger, the salt.
    Own,
}

impl Kind {
    /// As tables show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Indexes => "indexes",
            Self::Trees => "trees",
            Self::Records => "records",
            Self::Stat => "stat",
            Self::Refs => "refs",
            Self::CacheMounts => "cache mounts",
            Self::Git => "git",
            Self::Temporary => "temporary",
            Self::Own => "own",
        }
    }
}

/// Something that can be removed.
#[derive(Debug)]
pub(super) struct Item {
    /// What most of it is.
    pub(super) kind: Kind,
    /// Single files, in the order in which they go.
    pub(super) files: Vec<PathBuf>,
    /// Directories with all that they hold.
    pub(super) trees: Vec<PathBuf>,
    /// A directory that goes if it is empty then.
    pub(super) dir: Option<PathBuf>,
    /// When it was last used, as far as it was noted.
    pub(super) used: SystemTime,
    /// What is gained.
    pub(super) size: Size,
    /// Does somebody who runs hold it?
    pub(super) held: bool,
}

/// A layer, and what there is of it.
#[derive(Debug, Default)]
pub(super) struct LayerParts {
    pub(super) trees: Vec<(PathBuf, Size)>,
    pub(super) index: Option<Size>,
    /// The files that name its blobs, and the blobs.
    pub(super) entries: Vec<(PathBuf, Size, Option<Digest>)>,
    pub(super) used: Option<SystemTime>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Census {
    pub(super) kinds: BTreeMap<Kind, Size>,
    pub(super) layers: BTreeMap<DiffId, LayerParts>,
    pub(super) blobs: BTreeMap<Digest, (Size, SystemTime)>,
    /// Records with their details, by key.
    records: BTreeMap<String, Item>,
    directories: Vec<Item>,
}

/// What may not go.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// What images with names need.
    pub(super) named: BTreeSet<Digest>,
    /// What those who run hold.
    pub(super) pins: BTreeSet<Pin>,
    /// Can directories of subordinate ids be removed from here?
    pub(super) all_ids: bool,
}

impl Census {
    /// Counts. What cannot be read is not counted.
    pub(super) fn take(store: &Store) -> Self {
        let mut census = Self {
            kinds: BTreeMap::new(),
            layers: BTreeMap::new(),
            blobs: BTreeMap::new(),
            records: BTreeMap::new(),
            directories: Vec::new(),
        };
        census.blobs(store);
        census.layers(store);
        census.trees(store);
        census.records(store);
        for (dir, kind) in [("mounts", Kind::CacheMounts), ("git", Kind::Git)] {
            census.directories(store, dir, kind);
        }
        for (dir, kind) in [("refs", Kind::Refs), ("tmp", Kind::Temporary), ("locks", Kind::Own), ("stat", Kind::Stat)] {
            for (path, _) in entries(&store.root.join(dir)) {
                census.add(kind, measure(&path));
            }
        }
        for file in ["format", "ledger", "salt"] {
            census.add(Kind::Own, measure(&store.root.join(file)));
        }
        census
    }

    /// What the limits are for: all but what is temporary.
    pub(super) fn total(&self) -> Size {
        self.kinds.iter().filter(|(kind, _)| **kind != Kind::Temporary).map(|(_, size)| *size).sum()
    }

    fn add(&mut self, kind: Kind, size: Size) {
        let all = self.kinds.entry(kind).or_default();
        *all = *all + size;
    }

    fn blobs(&mut self, store: &Store) {
        for (path, found) in entries(&store.blobs()) {
            let size = Size::of_file(found.len());
            self.add(Kind::Blobs, size);
            if let Some(digest) = hex_name(&path) {
                let _twice = self.blobs.insert(digest, (size, modified(&found)));
            }
        }
    }

    fn layers(&mut self, store: &Store) {
        for (path, found) in entries(&store.root.join("index")) {
            let size = Size::of_file(found.len());
            self.add(Kind::Indexes, size);
            if let Some(layer) = hex_name(&path) {
                let parts = self.layers.entry(DiffId(layer)).or_default();
                (parts.index, parts.used) = (Some(size), Some(modified(&found)));
            }
        }
        for (dir, found) in entries(&store.root.join("layers")) {
            let Some(layer) = hex_name(&dir).map(DiffId) else { continue };
            self.add(Kind::Records, Size::of_file(4096));
            for (path, inner) in entries(&dir) {
                let size = Size::of_file(inner.len());
                self.add(Kind::Records, size);
                let blob = Store::entry(&layer, &path).map(|blob| blob.digest);
                self.layers.entry(layer).or_default().entries.push((path, size, blob));
            }
            let parts = self.layers.entry(layer).or_default();
            parts.used = parts.used.max(Some(modified(&found)));
        }
    }

    fn trees(&mut self, store: &Store) {
        for (domain, _) in entries(&store.root.join("trees")) {
            self.add(Kind::Trees, Size::of_file(4096));
            for (path, found) in entries(&domain) {
                if !found.is_dir() {
                    self.add(Kind::Trees, Size::of_file(0));
                    continue;
                }
                let layer = hex_name(&path).map(DiffId);
                let size = noted(&path).unwrap_or_else(|| store.measured(layer.as_ref(), &path));
                self.add(Kind::Trees, size);
                if let Some(layer) = layer {
                    let parts = self.layers.entry(layer).or_default();
                    parts.trees.push((path, size));
                }
            }
        }
    }

    fn records(&mut self, store: &Store) {
        for (path, found) in entries(&store.root.join("cache")) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            // What the stat cache calls its records by; the details of a record have its key and a number.
            let stat = name.starts_with("57a7-");
            let key = if stat { name } else { name.split('-').next().unwrap_or(name) }.to_owned();
            let (kind, size, used) = (if stat { Kind::Stat } else { Kind::Records }, Size::of_file(found.len()), modified(&found));
            self.add(kind, size);
            let item = self.records.entry(key).or_insert_with(|| Item::new(kind, used));
            item.files.push(path);
            (item.size, item.used) = (item.size + size, item.used.max(used));
        }
    }

    fn directories(&mut self, store: &Store, top: &str, kind: Kind) {
        let tops = entries(&store.root.join(top));
        let all = if kind == Kind::Git { tops } else { tops.iter().flat_map(|(domain, _)| entries(domain)).collect() };
        for (path, found) in all {
            let size = measure(&path);
            self.add(kind, size);
            // Who uses one touches it so that its own time stays: it may be a step's.
            let used =
                UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(std::os::unix::fs::MetadataExt::ctime(&found)).unwrap_or(0));
            self.directories.push(Item { trees: vec![path], size, ..Item::new(kind, used) });
        }
    }

    /// What can go, the least recently used first.
    pub(super) fn into_items(self, store: &Store, kept: &Kept) -> Vec<Item> {
        let Self { layers, mut blobs, records, directories, .. } = self;
        let mut items: Vec<Item> = records.into_values().collect();
        for mut item in directories {
            item.held = item.trees.iter().any(|path| kept.pins.contains(&Pin::Directory(below(store, path))));
            if kept.may_remove(&item.trees) {
                items.push(item);
            }
        }
        for (layer, parts) in layers {
            // Also those of layers that are held: they are of a layer.
            let own: Vec<_> = parts.entries.iter().filter_map(|(_, _, blob)| *blob).collect();
            let sizes: BTreeMap<Digest, Size> = own.into_iter().filter_map(|blob| Some((blob, blobs.remove(&blob)?.0))).collect();
            items.push(layer_item(store, layer, parts, &sizes, kept));
        }
        for (digest, (size, used)) in blobs {
            if !kept.named.contains(&digest) {
                let held = kept.pins.contains(&Pin::Blob(digest));
                items.push(Item { files: vec![store.blob_path(&digest)], size, held, ..Item::new(Kind::Blobs, used) });
            }
        }
        items.sort_by_key(|item| item.used);
        items
    }
}

impl Kept {
    fn may_remove(&self, trees: &[PathBuf]) -> bool {
        // Git's are the user's own, and in `single` everything is.
        let own = |path: &PathBuf| path.parent().is_some_and(|dir| dir.ends_with("single") || dir.ends_with("git"));
        self.all_ids || trees.iter().all(own)
    }
}

impl Item {
    fn new(kind: Kind, used: SystemTime) -> Self {
        Self { kind, files: Vec::new(), trees: Vec::new(), dir: None, used, size: Size::default(), held: false }
    }
}

fn layer_item(store: &Store, layer: DiffId, parts: LayerParts, blobs: &BTreeMap<Digest, Size>, kept: &Kept) -> Item {
    let kind = if parts.trees.is_empty() { Kind::Blobs } else { Kind::Trees };
    let mut item = Item::new(kind, parts.used.unwrap_or(UNIX_EPOCH));
    item.held = kept.pins.contains(&Pin::Layer(layer));
    for (tree, size) in parts.trees {
        if kept.may_remove(std::slice::from_ref(&tree)) {
            item.trees.push(tree);
            item.size = item.size + size;
        }
    }
    if let Some(size) = parts.index {
        item.files.push(store.index_path(&layer));
        item.size = item.size + size;
    }
    for (path, size, blob) in parts.entries {
        match blob {
            Some(blob) if kept.named.contains(&blob) => continue,
            Some(blob) if kept.pins.contains(&Pin::Blob(blob)) => continue,
            Some(blob) => {
                item.files.push(store.blob_path(&blob));
                item.size = item.size + blobs.get(&blob).copied().unwrap_or_default();
            }
            None => {}
        }
        item.files.push(path);
        item.size = item.size + size;
    }
    item.dir = Some(store.layer_dir(&layer));
    item
}

/// Where in the store it is.
pub(super) fn below(store: &Store, path: &Path) -> String {
    path.strip_prefix(&store.root).unwrap_or(path).to_string_lossy().into_owned()
}

/// What is in a directory, without following links.
pub(super) fn entries(dir: &Path) -> Vec<(PathBuf, Metadata)> {
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| Some((entry.path(), entry.metadata().ok()?))).collect()
}

/// The digest that a file is named by.
pub(super) fn hex_name(path: &Path) -> Option<Digest> {
    format!("sha256:{}", path.file_name()?.to_str()?).parse().ok()
}

fn modified(found: &Metadata) -> SystemTime {
    found.modified().unwrap_or(UNIX_EPOCH)
}
