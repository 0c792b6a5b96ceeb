//! The store: blobs, indexes, trees, refs, records, locks. Anything that is missing or unreadable costs a
//! cache hit and nothing more.
//!
//! ```text
//! format                       the version
//! blobs/sha256/<hex>           temp → fsync → rename → fsync dir, verified
//! index/<diff-id hex>          the tree index of a layer
//! layers/<diff-id hex>/<compressor>   the descriptor of the blob a layer is compressed as
//! trees/<domain>/<diff-id hex>/       extracted and sealed, immutable, a lower of overlays
//! refs/                        image names → descriptors
//! cache/<key>                  step records, self-checking
//! tmp/                         locked while in use, swept when not
//! ```
//!
//! Many processes share a store at once.

use std::path::{Path, PathBuf};

use crate::{
    oci::{Descriptor, DiffId, Digest, Reference},
    sys::PathError,
    tree::Index,
};

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Bytes did not have the digest or size they should have.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// Which blob.
        what: String,
        /// What was promised.
        expected: String,
        /// What came.
        found: String,
    },
    /// The store is of a version that this program does not know.
    #[error("the store at `{}` has format {found}, this program knows {known}", root.display())]
    Format {
        /// The store.
        root: PathBuf,
        /// Its version.
        found: String,
        /// Ours.
        known: u32,
    },
}

/// A store on disk.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store at `root`, making it if it is not there; sweeps temporary files that nobody holds.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Ok(Self { root: root.to_owned() })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Begins a blob; nothing is there before [`BlobWriter::commit`].
    pub fn blob_writer(&self) -> Result<BlobWriter, Error> {
        unimplemented!("store")
    }

    /// Puts bytes in memory: configs and manifests.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let _ = bytes;
        unimplemented!("store")
    }

    /// A small blob, verified, at most `limit` bytes. `None`: missing or damaged (then it is deleted).
    pub fn blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let _ = (digest, limit);
        unimplemented!("store")
    }

    /// A stream of a blob; the digest and size are checked when its end is read, and a mismatch is a read error. `None`: missing.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<Option<BlobReader>, Error> {
        let _ = descriptor;
        unimplemented!("store")
    }

    /// Is it there with that size? Does not read it.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        let _ = (digest, size);
        unimplemented!("store")
    }

    /// A layer's index. `None`: missing or damaged.
    pub fn index(&self, layer: &DiffId) -> Result<Option<Index>, Error> {
        let _ = layer;
        unimplemented!("store")
    }

    /// Records a layer's index.
    pub fn put_index(&self, layer: &DiffId, index: &Index) -> Result<(), Error> {
        let _ = (layer, index);
        unimplemented!("store")
    }

    /// The blob a layer was compressed as by that compressor (its id: crate, version, level, block size), or pulled as (`pulled`).
    pub fn layer_blob(&self, layer: &DiffId, compressor: &str) -> Option<Descriptor> {
        let _ = (layer, compressor);
        unimplemented!("store")
    }

    /// Any blob of a layer that is there.
    pub fn any_layer_blob(&self, layer: &DiffId) -> Option<Descriptor> {
        let _ = layer;
        unimplemented!("store")
    }

    /// Remembers it.
    pub fn put_layer_blob(&self, layer: &DiffId, compressor: &str, blob: &Descriptor) -> Result<(), Error> {
        let _ = (layer, compressor, blob);
        unimplemented!("store")
    }

    /// The tree of a layer in an ownership domain, if it is there whole.
    pub fn tree(&self, domain: &str, layer: &DiffId) -> Option<PathBuf> {
        let _ = (domain, layer);
        unimplemented!("store")
    }

    /// An empty directory under `tmp/`, locked while the value lives, removed when dropped.
    pub fn scratch(&self) -> Result<Scratch, Error> {
        unimplemented!("store")
    }

    /// Makes `dir` (a directory inside a scratch) the tree of a layer: rename, marked unsynced until [`Store::sync`].
    /// If another process was faster, its tree stays and ours is left to the scratch.
    pub fn commit_tree(&self, domain: &str, layer: &DiffId, dir: &Path) -> Result<PathBuf, Error> {
        let _ = (domain, layer, dir);
        unimplemented!("store")
    }

    /// A lock across processes on a name (a layer being extracted, a step being run); waits, and calls `waiting` once if it must.
    pub fn lock(&self, name: &str, waiting: &mut dyn FnMut()) -> Result<Lock, Error> {
        let _ = (name, waiting);
        unimplemented!("store")
    }

    /// One syncfs; the trees that were unsynced are sound afterwards.
    pub fn sync(&self) -> Result<(), Error> {
        unimplemented!("store")
    }

    /// Names an image. The descriptor is that of its manifest or index.
    pub fn put_ref(&self, name: &Reference, target: &Descriptor) -> Result<(), Error> {
        let _ = (name, target);
        unimplemented!("store")
    }

    /// What a name stands for.
    pub fn resolve_ref(&self, name: &Reference) -> Result<Option<Descriptor>, Error> {
        let _ = name;
        unimplemented!("store")
    }

    /// All names, sorted.
    pub fn refs(&self) -> Result<Vec<(Reference, Descriptor)>, Error> {
        unimplemented!("store")
    }

    /// A step record's bytes, checked. `None`: missing or damaged (then it is deleted).
    pub fn record(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let _ = key;
        unimplemented!("store")
    }

    /// Writes a record (or what belongs to one); `key` is a file name of hex digits and `-`.
    pub fn put_record(&self, key: &str, bytes: &[u8]) -> Result<(), Error> {
        let _ = (key, bytes);
        unimplemented!("store")
    }

    /// 32 random bytes that are this store's own, made once.
    pub fn salt(&self) -> Result<[u8; 32], Error> {
        unimplemented!("store")
    }
}

/// A blob being written: counts and hashes what passes. Dropped without a commit, it never was.
#[derive(Debug)]
pub struct BlobWriter {}

impl BlobWriter {
    /// Finishes it; with `expected`, only if digest and size are those.
    pub fn commit(self, expected: Option<(&Digest, u64)>) -> Result<(Digest, u64), Error> {
        let _ = expected;
        unimplemented!("store")
    }
}

impl std::io::Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A blob being read; the last read fails if the digest or size is wrong.
#[derive(Debug)]
pub struct BlobReader {}

impl std::io::Read for BlobReader {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let _ = bytes;
        Ok(0)
    }
}

/// A temporary directory that is locked and removed when dropped (files of subordinate ids too, in the engine).
#[derive(Debug)]
pub struct Scratch {}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        unimplemented!("store")
    }
}

/// A lock across processes, freed when dropped or when the process ends.
#[derive(Debug)]
pub struct Lock {}
