//! The store: blobs, indexes, trees, refs, records, locks. Anything that is missing or unreadable costs a
//! cache hit and nothing more.
//!
//! ```text
//! format                       the version
//! blobs/sha256/<hex>           temp → fsync → rename → fsync dir, verified
//! index/<diff-id hex>          the tree index of a layer
//! layers/<diff-id hex>/<compressor>   the descriptor of the blob a layer is compressed as
//! trees/<domain>/<diff-id hex>/       extracted and sealed, immutable, a lower of overlays
//! refs/<hex>                   image names → descriptors
//! cache/<key>                  step records, self-checking
//! git/<hex>/                   bare repositories that were fetched into
//! locks/                       locks on names, gone when free; what running processes hold, `pin-*`
//! mounts/<domain>/<name>/      what cache mounts hold
//! salt                         32 random bytes, made once
//! ledger                       what all that takes, counted
//! tmp/                         locked while in use, swept when not
//! ```
//!
//! Invariants: a file has its name only when it is whole (it is written under `tmp/` and renamed); no file is changed
//! after; many processes share a store at once, and one that is killed at any moment leaves nothing but what the
//! next [`Store::open`] sweeps. The front (the user) and the engine (root of a user namespace, whose root is the
//! user) both open it: what only the engine may delete, the front leaves without a word.

mod blob;
mod census;
mod digesting;
mod evict;
mod fsck;
mod layers;
mod ledger;
mod limits;
mod lock;
mod measure;
mod named;
mod pin;
mod prune;
mod record;
mod refs;
mod remove;
mod repositories;
mod reserve;
mod sealed;
mod size;
mod tape;
mod temp;
mod trees;
mod usage;
mod written;

pub use blob::{BlobReader, BlobWriter, Copied, Undigested};
pub use census::Kind;
pub use digesting::Digesting;
pub use fsck::{Checked, Wrong};
pub use limits::{Amount, Bounds, Limits};
pub use lock::Lock;
pub use prune::{Pruned, Pruning};
pub use reserve::Told;
pub use size::{Size, shown_bytes};
pub use tape::{Tape, TapeReader, framed, garbled};
pub use temp::Scratch;
pub use usage::{ImageUse, LayerUse, Usage};
pub use written::Written;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::sys::PathError;
use reserve::Shared;

/// The format that this program reads and writes.
const FORMAT: u32 = 1;

/// What a store has below its root.
const DIRS: [&str; 9] = ["blobs/sha256", "index", "layers", "trees", "refs", "cache", "git", "locks", "tmp"];

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

impl Error {
    /// A value of ours that has no JSON form.
    pub(crate) fn encoding(path: &Path, error: serde_json::Error) -> Self {
        PathError::new("encode", path)(io::Error::from(error)).into()
    }
}

/// A store on disk.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    boot: String,
    /// Is what is read through it held?
    holding: bool,
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the store at `root`, making it if it is not there; sweeps temporary files that nobody holds.
    /// A directory with something else in it is refused.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let store = Self { root: root.to_owned(), boot: trees::boot_id()?, holding: true, shared: Arc::default() };
        trees::make_dir(root)?;
        let known = store.format()?;
        for dir in DIRS {
            trees::make_dir(&root.join(dir))?;
        }
        if !known {
            let mut temp = temp::TempFile::create(&store.tmp())?;
            writeln!(temp, "{}", sealed_format(FORMAT)).map_err(PathError::new("write", temp.path()))?;
            temp.persist(&root.join("format"), true)?;
        }
        temp::sweep(&store.tmp());
        temp::sweep(&root.join("locks"));
        Ok(store)
    }

    /// The same store, kept within these limits. What was held so far is let go.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { shared: Arc::new(Shared::within(limits)), ..self }
    }

    /// What it may hold, as it was said.
    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    /// The same store to look at: what is read through it is neither held nor noted as used.
    #[must_use]
    pub fn looking(self) -> Self {
        Self { holding: false, ..self }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Is the version written? Another version, or a directory that is no store, is an error.
    fn format(&self) -> Result<bool, Error> {
        let path = self.root.join("format");
        let mut text = String::new();
        if let Some(file) = sealed::open_regular(&path)? {
            // What is no text is no version.
            let _size = file.take(64).read_to_string(&mut text).ok();
        }
        let (found, sum) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        // The first stores had the number alone.
        let version: Option<u32> = found.parse().ok().filter(|version| sum.is_empty() || text.trim() == sealed_format(*version));
        match version {
            Some(FORMAT) => return Ok(true),
            Some(other) => return Err(self.unknown(other.to_string())),
            None => {}
        }
        // Not there, empty after a power cut, or damaged. It is ours if all that is in it could be.
        let tops: Vec<&str> =
            DIRS.iter().filter_map(|dir| dir.split('/').next()).chain(["format", "ledger", "salt", "stat", "mounts"]).collect();
        for entry in fs::read_dir(&self.root).map_err(PathError::new("read", &self.root))? {
            let name = entry.map_err(PathError::new("read", &self.root))?.file_name();
            if !tops.iter().any(|top| name == *top) {
                return Err(self.unknown(format!("none (it is a directory with `{}` in it)", name.display())));
            }
        }
        Ok(false)
    }

    fn unknown(&self, found: String) -> Error {
        Error::Format { root: self.root.clone(), found, known: FORMAT }
    }
}

/// A version with its own check, so that a damaged one is not taken for another.
fn sealed_format(version: u32) -> String {
    let sum = blake3::hash(format!("lapstrake store {version}").as_bytes());
    format!("{version} {}", sum.to_hex().get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fresh store in a fresh directory.
    pub(super) fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        (dir, store)
    }

    #[test]
    fn a_store_of_another_version_and_a_directory_that_is_none_are_refused() {
        let (dir, store) = store();
        drop(Store::open(store.root()).unwrap());
        fs::write(store.root().join("format"), "2\n").unwrap();
        assert!(Store::open(store.root()).unwrap_err().to_string().ends_with("has format 2, this program knows 1"));
        assert!(matches!(Store::open(dir.path()), Err(Error::Format { .. })));
        assert!(!dir.path().join("blobs").exists());
    }

    #[test]
    fn an_empty_format_file_after_a_power_cut_is_written_again() {
        let (_dir, store) = store();
        fs::write(store.root().join("format"), "").unwrap();
        drop(Store::open(store.root()).unwrap());
        assert_eq!(fs::read_to_string(store.root().join("format")).unwrap(), sealed_format(1) + "\n");
    }

    #[test]
    fn a_damaged_format_file_is_written_again_and_the_first_form_is_known() {
        let (_dir, store) = store();
        let path = store.root().join("format");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 2;
            fs::write(&path, bad).unwrap();
            drop(Store::open(store.root()).unwrap());
            assert_eq!(fs::read(&path).unwrap(), good, "{at}");
        }
        fs::write(&path, "1\n").unwrap();
        drop(Store::open(store.root()).unwrap());
        fs::write(&path, sealed_format(2)).unwrap();
        assert!(Store::open(store.root()).is_err());
    }

    #[test]
    fn what_a_killed_process_left_is_swept_when_the_store_is_opened_and_what_is_in_use_is_not() {
        let (_dir, store) = store();
        fs::create_dir_all(store.tmp().join("0123/work/work")).unwrap();
        fs::write(store.tmp().join("4567"), "half").unwrap();
        fs::write(store.root().join("locks/89ab"), "").unwrap();
        let scratch = store.scratch().unwrap();
        let writer = store.blob_writer().unwrap();
        let lock = store.lock("name", &mut || ()).unwrap();
        drop(Store::open(store.root()).unwrap());
        assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 2);
        assert_eq!(fs::read_dir(store.root().join("locks")).unwrap().count(), 1);
        drop((scratch, writer, lock));
        assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0);
    }

    #[test]
    fn many_processes_open_a_new_store_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for each in 0..8_u8 {
                let root = dir.path().join("deep/store");
                let _thread = scope.spawn(move || {
                    let store = Store::open(&root).unwrap();
                    for round in 0..20_u8 {
                        let digest = store.put_blob(&[round]).unwrap();
                        assert_eq!(store.blob(&digest, 1).unwrap().unwrap(), [round]);
                        store.put_record("ab", &[each; 1000]).unwrap();
                        let found = store.record("ab").unwrap().unwrap();
                        assert!(found.len() == 1000 && found.iter().all(|byte| *byte == found[0]));
                        drop(Store::open(&root).unwrap());
                    }
                });
            }
        });
    }
}
