//! Locks across processes on a name: a file under `locks/`, locked by the kernel for as long as it is open, so that
//! a process that is killed frees its locks.
//!
//! The holder deletes the file before it lets go, the last one if several share it; who then gets a lock on a file that has
//! lost its name tries again.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{Error, Store, temp::same};
use crate::sys::PathError;

/// A lock across processes, freed when dropped or when the process ends.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    kind: Kind,
    // Closed after the name is gone.
    file: File,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One holder.
    Alone,
    /// Any number of holders that share it.
    Shared,
}

impl Kind {
    fn try_on(self, file: &File) -> Result<(), TryLockError> {
        match self {
            Self::Alone => file.try_lock(),
            Self::Shared => file.try_lock_shared(),
        }
    }

    fn wait_on(self, file: &File) -> io::Result<()> {
        match self {
            Self::Alone => file.lock(),
            Self::Shared => file.lock_shared(),
        }
    }
}

impl Store {
    /// A lock across processes on a name (a layer being extracted, a step being run); waits, and calls `waiting` once if it must.
    pub fn lock(&self, name: &str, waiting: &mut dyn FnMut()) -> Result<Lock, Error> {
        Lock::take(self.lock_path("lapstrake store: a lock", name), Kind::Alone, waiting)
    }

    /// The same lock, shared with others that share it.
    pub fn lock_shared(&self, name: &str, waiting: &mut dyn FnMut()) -> Result<Lock, Error> {
        Lock::take(self.lock_path("lapstrake store: a lock", name), Kind::Shared, waiting)
    }

    /// The lock if nobody has it; `None` at once if somebody does.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, Error> {
        Lock::take_free(self.lock_path("lapstrake store: a lock", name), Kind::Alone)
    }

    /// The same, shared with others that share it.
    pub fn try_lock_shared(&self, name: &str) -> Result<Option<Lock>, Error> {
        Lock::take_free(self.lock_path("lapstrake store: a lock", name), Kind::Shared)
    }

    /// A lock of the store's own, which no name of [`Store::lock`] can be.
    pub(super) fn internal_lock(&self, name: &str) -> Result<Lock, Error> {
        Lock::take(self.lock_path("lapstrake store: a lock of its own", name), Kind::Alone, &mut || ())
    }

    fn lock_path(&self, context: &str, name: &str) -> PathBuf {
        let hash = blake3::Hash::from_bytes(blake3::derive_key(context, name.as_bytes()));
        self.root.join("locks").join(hash.to_hex().as_str())
    }
}

impl Lock {
    fn take_free(path: PathBuf, kind: Kind) -> Result<Option<Self>, Error> {
        loop {
            let file = open(&path)?;
            match kind.try_on(&file) {
                Ok(()) if same(&file, &path) => return Ok(Some(Self { path, kind, file })),
                // It lost its name in between: the next try is on the file that has it now.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(PathError::new("lock", path)(error).into()),
            }
        }
    }

    fn take(path: PathBuf, kind: Kind, waiting: &mut dyn FnMut()) -> Result<Self, Error> {
        let mut told = false;
        loop {
            let file = open(&path)?;
            match kind.try_on(&file) {
                Ok(()) => {}
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(TryLockError::Error(error)) => return Err(PathError::new("lock", path)(error).into()),
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        told = true;
                        waiting();
                    }
                    match kind.wait_on(&file) {
                        Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(PathError::new("lock", path)(error).into()),
                        Err(_) => continue,
                        Ok(()) => {}
                    }
                }
            }
            if same(&file, &path) {
                return Ok(Self { path, kind, file });
            }
        }
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    options.open(path).map_err(|error| PathError::new("open", path)(error).into())
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever shares it still keeps its name; nothing is lost with a lock that is let go now.
        if self.kind == Kind::Alone || (self.file.try_lock().is_ok() && same(&self.file, &self.path)) {
            drop(fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::store::tests::store;

    #[test]
    fn one_at_a_time_has_a_lock_and_nothing_is_left() {
        let (dir, first) = store();
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                let _thread = scope.spawn(|| {
                    let store = Store::open(&dir.path().join("store")).unwrap();
                    for _ in 0..50 {
                        let _lock = store.lock("name", &mut || ()).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(first.root().join("locks")).unwrap().count(), 0);
    }

    #[test]
    fn those_who_share_a_lock_keep_others_out_until_the_last_is_gone() {
        let (_dir, store) = store();
        let (one, two) = (store.lock_shared("name", &mut || ()).unwrap(), store.lock_shared("name", &mut || ()).unwrap());
        assert!(store.try_lock("name").unwrap().is_none());
        drop(store.try_lock_shared("name").unwrap().unwrap());
        drop(one);
        assert!(store.try_lock("name").unwrap().is_none());
        drop(two);
        assert_eq!(fs::read_dir(store.root().join("locks")).unwrap().count(), 0);
        let alone = store.try_lock("name").unwrap().unwrap();
        assert!(store.try_lock_shared("name").unwrap().is_none());
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| store.lock_shared("name", &mut || send.send(()).unwrap()).map(drop));
            receive.recv().unwrap();
            drop(alone);
            waiter.join().unwrap().unwrap();
        });
    }

    #[test]
    fn who_must_wait_is_told_once_and_other_names_are_free() {
        let (_dir, store) = store();
        let held = store.lock("one", &mut || ()).unwrap();
        let mut told = 0;
        drop(store.lock("two", &mut || told += 1).unwrap());
        assert_eq!(told, 0);
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| store.lock("one", &mut || send.send(()).unwrap()).map(drop));
            receive.recv().unwrap();
            drop(held);
            waiter.join().unwrap().unwrap();
        });
        assert!(receive.try_recv().is_err());
    }
}
