//! What a running process holds: a file of names, `locks/pin-<random>`, locked for as long as the process lives.
//!
//! A name is written under the store's lock (shared is enough) *before* the thing is looked at, and whoever removes
//! things has the lock alone and reads all files that somebody still has locked: what was found stays until its
//! finder ends. The kernel frees the lock with its holder, and a file without one is nobody's.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{Error, temp};
use crate::{
    oci::{DiffId, Digest},
    sys::PathError,
};

/// How files of pins begin.
const PREFIX: &str = "pin-";

/// What is held.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pin {
    /// A layer: its index, its trees, the blobs it was compressed as.
    Layer(DiffId),
    /// A blob.
    Blob(Digest),
    /// A directory below `mounts/` or `git/`, by its path in the store.
    Directory(String),
}

impl Pin {
    fn parse(line: &str) -> Option<Self> {
        let (kind, name) = line.split_once(' ')?;
        match kind {
            "layer" => Some(Self::Layer(DiffId(name.parse().ok()?))),
            "blob" => Some(Self::Blob(name.parse().ok()?)),
            "directory" => Some(Self::Directory(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(layer) => write!(f, "layer {layer}"),
            Self::Blob(blob) => write!(f, "blob {blob}"),
            Self::Directory(path) => write!(f, "directory {path}"),
        }
    }
}

/// A process's own file of pins. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Pins {
    file: File,
    path: PathBuf,
}

impl Pins {
    /// A new one under `locks`.
    pub(super) fn create(locks: &Path) -> Result<Self, Error> {
        loop {
            let path = locks.join(format!("{PREFIX}{}", temp::fresh_name()?));
            let mut options = File::options();
            options.append(true).create_new(true).mode(0o600);
            let file = options.open(&path).map_err(PathError::new("create", &path))?;
            if temp::owned(&file, &path)? {
                return Ok(Self { file, path });
            }
        }
    }

    /// Writes a name.
    pub(super) fn add(&mut self, pin: &Pin) -> io::Result<()> {
        self.file.write_all(format!("{pin}\n").as_bytes())
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// What everybody who lives holds, and how many they are.
pub(super) fn read_all(locks: &Path) -> (BTreeSet<Pin>, usize) {
    let mut all = BTreeSet::new();
    let mut holders = 0;
    for entry in fs::read_dir(locks).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let Ok(mut file) = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(entry.path()) else { continue };
        if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            continue;
        }
        let mut text = String::new();
        // What is no text was never written by a holder.
        if file.read_to_string(&mut text).is_ok() {
            holders += 1;
            all.extend(text.lines().filter_map(Pin::parse));
        }
    }
    (all, holders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_holds_is_read_until_it_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let held = [Pin::Layer(DiffId(Digest::of(b"l"))), Pin::Blob(Digest::of(b"b")), Pin::Directory("mounts/a b".into())];
        let mut pins = Pins::create(dir.path()).unwrap();
        for pin in &held {
            pins.add(pin).unwrap();
        }
        fs::write(dir.path().join("pin-dead"), format!("{}\n", Pin::Blob(Digest::of(b"x")))).unwrap();
        fs::write(dir.path().join("other"), "blob").unwrap();
        assert_eq!(read_all(dir.path()), (BTreeSet::from(held), 1));
        drop(pins);
        assert_eq!(read_all(dir.path()), (BTreeSet::new(), 0));
    }
}
