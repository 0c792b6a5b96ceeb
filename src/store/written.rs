//! Which blobs this build has written itself.
//!
//! A blob that was digested while it was written need not be digested again by the same build to be copied out, as long as it is the very
//! file, and nothing has touched it: device, inode, size and the time of its last change (which nobody can set, and which every
//! write and every new name move) are what they were just after it got its name. The engine tells the front these; any difference,
//! and whatever another build wrote, is digested as ever. Kernels before 6.13 move that time by ticks of 1 to 10 ms: there somebody
//! who writes into the file in the very tick in which it got its name is not seen. That is nobody but the user.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::Store;
use crate::oci::Digest;

/// What is smaller is digested in no time.
const LARGE: u64 = 1 << 20;

/// A blob that was written and not touched since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    digest: Digest,
    stamp: Stamp,
}

/// What tells a file from all others, and from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self { device: found.dev(), inode: found.ino(), size: found.size(), changed: (found.ctime(), found.ctime_nsec()) })
    }
}

/// By digest.
pub(super) type Stamps = Mutex<BTreeMap<Digest, Stamp>>;

impl Store {
    /// What was written through this value and its clones.
    pub fn written(&self) -> Vec<Written> {
        self.stamps().iter().map(|(digest, stamp)| Written { digest: *digest, stamp: *stamp }).collect()
    }

    /// What another process of this build has written.
    pub fn learn_written(&self, written: &[Written]) {
        self.stamps().extend(written.iter().map(|each| (each.digest, each.stamp)));
    }

    /// The file has the blob's bytes and its name.
    pub(super) fn note_written(&self, digest: &Digest, file: &File) {
        if let Some(stamp) = Stamp::of(file).ok().filter(|stamp| stamp.size >= LARGE) {
            let _older = self.stamps().insert(*digest, stamp);
        }
    }

    /// How a blob's file looks if it is as this build wrote it.
    pub(super) fn stamp(&self, digest: &Digest) -> Option<Stamp> {
        self.stamps().get(digest).copied()
    }

    fn stamps(&self) -> MutexGuard<'_, BTreeMap<Digest, Stamp>> {
        self.shared.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{oci::Descriptor, store::tests::store};

    #[test]
    fn a_blob_that_this_build_wrote_is_known_until_somebody_touches_it() {
        let (_dir, store) = store();
        let bytes = vec![7; 2 << 20];
        let digest = store.put_blob(&bytes).unwrap();
        let path = store.blob_path(&digest);
        let stamp = || Stamp::of(&File::open(&path).unwrap()).unwrap();
        assert_eq!(store.stamp(&digest), Some(stamp()));
        // Another process of the same build is told, another build is not.
        let other = Store::open(store.root()).unwrap();
        assert_eq!(other.stamp(&digest), None);
        other.learn_written(&store.written());
        assert_eq!(other.stamp(&digest), Some(stamp()));
        for touch in [|path: &_| fs::set_permissions(path, fs::Permissions::from_mode(0o640)), |path: &_| fs::write(path, vec![8; 2 << 20])]
        {
            touch(&path).unwrap();
            assert_ne!(store.stamp(&digest), Some(stamp()));
        }
        let out = File::create(store.root().join("out")).unwrap();
        let copied = other.open_blob(&Descriptor::new("x/y", digest, bytes.len() as u64)).unwrap().unwrap().copy_into(&out);
        assert!(copied.verified.is_err());
    }

    #[test]
    fn a_file_in_the_place_of_a_written_one_is_another() {
        let (_dir, store) = store();
        let digest = store.put_blob(&vec![7; 2 << 20]).unwrap();
        let path = store.blob_path(&digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![9; 2 << 20]).unwrap();
        let blob = store.open_blob(&Descriptor::new("x/y", digest, 2 << 20)).unwrap().unwrap();
        let copied = blob.copy_into(&File::create(store.root().join("out")).unwrap());
        assert!(copied.verified.is_err() && !path.exists());
    }
}
