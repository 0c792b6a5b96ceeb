//! Room for what is committed: counted in the ledger and, if a limit would be exceeded, made first.
//!
//! All of it happens under one lock across processes, a `flock` on the store's directory: alone to count and to
//! remove, shared to note what is held ([`super::pin`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};
use serde::{Deserialize, Serialize};

use super::{
    Store,
    census::Census,
    evict::Evicted,
    ledger::{self, Totals},
    limits::{Bounds, Disk, Limits},
    pin::{Pin, Pins},
    size::Size,
    temp::Scratch,
    written::Stamps,
};
use crate::{oci::DiffId, sys};

/// What was used no longer ago than this is not noted as used again.
const FRESH: Duration = Duration::from_mins(1);

/// How old a count may be before the store is counted again: cache mounts grow without the ledger.
const STALE: u64 = 24 * 3600;

/// The file system is asked for its free space for commits from this size on.
const LARGE: u64 = 64 << 10;

/// A full disk gets so much room at once, if that is to be had.
const ROOM: u64 = 2_000_000_000;

/// After an eviction that could not remove enough, another is tried when there is so much more, or a twentieth of the limit.
const AGAIN: u64 = 32 << 20;

/// What the values of one store in one process share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) limits: Limits,
    /// How large the trees of layers are whose indexes were seen.
    pub(super) sizes: Mutex<BTreeMap<DiffId, Size>>,
    /// Blobs that this build has written.
    pub(super) written: Stamps,
    state: Mutex<State>,
}

/// What one process knows.
#[derive(Debug, Default)]
pub(super) struct State {
    lock: Option<Arc<File>>,
    ledger: Option<File>,
    pins: Option<Pins>,
    pinned: BTreeSet<Pin>,
    bounds: Option<Bounds>,
    told: Told,
}

/// What happened to a store's limits while this process worked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What was removed to keep to them.
    pub removed: Size,
    /// By how much they were exceeded at most, because nothing more could be removed.
    pub over: Size,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if !self.removed.is_nothing() {
            write!(f, "removed what was not used for longest to keep to the limits of the store: {}", self.removed)?;
            separator = "; ";
        }
        if !self.over.is_nothing() {
            write!(f, "{separator}the store has {} more than its limits allow: running builds and images with names need it", self.over)?;
        }
        Ok(())
    }
}

impl Shared {
    /// Nothing is known yet.
    pub(super) fn within(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }
}

/// The store's lock, held by nobody else.
#[derive(Debug)]
struct Alone<'a> {
    state: MutexGuard<'a, State>,
    lock: Arc<File>,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        drop(self.lock.unlock());
    }
}

impl Store {
    /// Gives a file of `length` bytes its name with `commit`, in place of what is at `path`.
    pub(super) fn commit_file<T>(&self, path: &Path, length: u64, pin: Option<Pin>, commit: impl FnOnce() -> T) -> T {
        let old = fs::symlink_metadata(path).map_or_else(|_none| Size::default(), |found| Size::of_file(found.len()));
        self.commit_size(Size::of_file(length), old, pin, commit)
    }

    /// Counts what is committed in place of `old`, makes room first if it must, and then has it done under the same lock, so that a
    /// count never misses what has just been counted. It never refuses: at worst the store holds more than it should.
    pub(super) fn commit_size<T>(&self, new: Size, old: Size, pin: Option<Pin>, commit: impl FnOnce() -> T) -> T {
        let mut alone = self.lock_alone();
        let graves = alone.as_mut().map(|alone| self.make_room_for(&mut alone.state, new, old, pin));
        let result = commit();
        drop(alone);
        // Their files are deleted when nobody waits for it.
        drop(graves);
        result
    }

    fn make_room_for(&self, state: &mut State, new: Size, old: Size, pin: Option<Pin>) -> Vec<Scratch> {
        if let Some(pin) = pin {
            state.pin(self, pin);
        }
        let mut totals = state.totals(self);
        let used = (totals.used + new).without(old);
        let bounds = state.bounds(self);
        let free = if new.bytes >= LARGE { self.disk().map(|disk| disk.free.saturating_sub(new.bytes)) } else { None };
        let excess = bounds.excess(used, free);
        let mut evicted = Evicted::default();
        if !excess.is_nothing() && (totals.stuck == 0 || used.bytes > totals.stuck.saturating_add(AGAIN.min(bounds.max_used_space / 20))) {
            // The ledger may say too much, never too little: count before something has to go for it.
            let census = Census::take(self);
            totals.used = census.total();
            let excess = bounds.excess((totals.used + new).without(old), free);
            evicted = self.evict(census, excess);
            totals.used = totals.used.without(evicted.removed);
            let short = !excess.without(evicted.removed).is_nothing();
            totals.stuck = if short { (totals.used + new).bytes.max(1) } else { 0 };
            state.told.removed = state.told.removed + evicted.removed;
        }
        totals.used = (totals.used + new).without(old);
        let over = bounds.exceeded_by(totals.used);
        state.told.over = Size { bytes: state.told.over.bytes.max(over.bytes), inodes: state.told.over.inodes.max(over.inodes) };
        state.write(self, &totals);
        evicted.graves
    }

    /// Removes what nobody needs now, because the file system is full: the least recently used first, until half of what the
    /// file system has, or 2 GB, is gained. What was gained.
    pub fn make_room(&self) -> Size {
        let bytes = self.disk().map_or(ROOM, |disk| ROOM.min(disk.bytes / 2));
        let evicted = self.alone(|state| {
            let census = Census::take(self);
            let mut totals = Totals { used: census.total(), ..state.totals(self) };
            let evicted = self.evict(census, Size { bytes, inodes: bytes >> 14 });
            totals.used = totals.used.without(evicted.removed);
            state.told.removed = state.told.removed + evicted.removed;
            state.write(self, &totals);
            evicted
        });
        evicted.map_or_else(Size::default, |evicted| evicted.removed)
    }

    /// What happened to the limits so far. `None`: nothing.
    pub fn told(&self) -> Option<Told> {
        let told = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).told;
        (told != Told::default()).then_some(told)
    }

    /// Holds something for as long as this process has the store open: nobody removes it for want of space. It is also
    /// noted as used, now and then.
    pub(super) fn pin(&self, pin: Pin) {
        if !self.holding {
            return;
        }
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.pinned.contains(&pin) {
            return;
        }
        match &pin {
            Pin::Layer(layer) => touch(&self.layer_dir(layer)) || touch(&self.index_path(layer)),
            Pin::Blob(blob) => touch(&self.blob_path(blob)),
            Pin::Directory(path) => touch_directory(&self.root.join(path)),
        };
        let Some(lock) = state.lock_file(&self.root) else { return };
        if lock.lock_shared().is_ok() {
            state.pin(self, pin);
            drop(lock.unlock());
        }
    }

    /// Does something with the lock that nobody else has meanwhile. `None`: no lock is to be had here.
    pub(super) fn alone<T>(&self, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut alone = self.lock_alone()?;
        Some(work(&mut alone.state))
    }

    fn lock_alone(&self) -> Option<Alone<'_>> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = state.lock_file(&self.root)?;
        lock.lock().ok()?;
        Some(Alone { state, lock })
    }

    /// The limits on this file system.
    pub fn bounds(&self) -> Bounds {
        self.shared.limits.on(self.disk().unwrap_or(Disk { bytes: u64::MAX, free: u64::MAX, inodes: 0 }))
    }

    pub(super) fn disk(&self) -> Option<Disk> {
        let found = rustix::fs::statvfs(&self.root).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Disk { bytes: bytes(found.f_blocks), free: bytes(found.f_bavail), inodes: found.f_files })
    }
}

impl State {
    fn lock_file(&mut self, root: &Path) -> Option<Arc<File>> {
        if self.lock.is_none() {
            self.lock = File::open(root).ok().map(Arc::new);
        }
        self.lock.clone()
    }

    /// Under the lock. A pin that cannot be written (no inode is left for its file) holds nothing, and the build may have to
    /// be repeated.
    fn pin(&mut self, store: &Store, pin: Pin) {
        if !store.holding || self.pinned.contains(&pin) {
            return;
        }
        if self.pins.is_none() {
            self.pins = Pins::create(&store.locks()).ok();
        }
        if let Some(pins) = &mut self.pins
            && pins.add(&pin).is_ok()
        {
            let _new: bool = self.pinned.insert(pin);
        }
    }

    fn bounds(&mut self, store: &Store) -> Bounds {
        *self.bounds.get_or_insert_with(|| store.bounds())
    }

    /// What the ledger says; the store is counted if it says nothing, or for too long.
    fn totals(&mut self, store: &Store) -> Totals {
        // A file that somebody put in its place is not the one that others read.
        if self.ledger.as_ref().is_none_or(|file| file.metadata().is_ok_and(|found| found.nlink() == 0)) {
            self.ledger = ledger::open(&store.root.join("ledger"));
        }
        let now = sys::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let said = self.ledger.as_ref().and_then(|file| ledger::read(file, &store.boot));
        match said {
            Some(totals) if totals.counted.abs_diff(now) < STALE => totals,
            _ => Totals { used: Census::take(store).total(), stuck: 0, counted: now },
        }
    }

    /// On a full disk the old one stays, or half of one, which is as none.
    pub(super) fn write(&mut self, store: &Store, totals: &Totals) {
        if let Some(file) = &self.ledger {
            drop(ledger::write(file, &store.boot, totals));
        }
    }
}

impl Store {
    /// Under the lock: writes what a count found.
    pub(super) fn recount(&self, state: &mut State, used: Size) {
        let totals = Totals { used, stuck: 0, ..state.totals(self) };
        state.write(self, &totals);
    }

    pub(super) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }
}

/// Notes that something was used, if that is not known. False: it is not there.
pub(super) fn touch(path: &Path) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    let age = found.modified().ok().and_then(|modified| sys::now().duration_since(modified).ok());
    // A time to come is as good as none.
    if age.is_none_or(|age| age >= FRESH) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        // Who may not change it cannot say so.
        let _unsaid = rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
    true
}

/// The same of a directory whose own time is a step's: a change of its mode to what it is changes when it was changed.
fn touch_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).and_then(|found| fs::set_permissions(path, found.permissions())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Amount, tests::store};

    fn small(store: &Store, bytes: u64) -> Store {
        let limits = Limits {
            max_used_space: Some(Amount::Number(bytes)),
            reserved_space: Some(Amount::Number(0)),
            min_free_space: Some(Amount::Number(0)),
            ..Limits::default()
        };
        Store::open(store.root()).unwrap().within(limits)
    }

    /// A blob that was used so many hours ago.
    fn old_blob(store: &Store, byte: u8, hours: u64) -> crate::oci::Digest {
        let digest = store.put_blob(&vec![byte; 100_000]).unwrap();
        let file = File::options().write(true).open(store.blob_path(&digest)).unwrap();
        file.set_modified(sys::now() - Duration::from_secs(hours * 3600)).unwrap();
        digest
    }

    #[test]
    fn the_ledger_says_what_a_count_finds() {
        let (_dir, store) = store();
        let digest = store.put_blob(&[7; 5000]).unwrap();
        let _same = store.put_blob(&[7; 5000]).unwrap();
        store.put_record("ab", b"one").unwrap();
        store.put_record("ab", &[1; 9000]).unwrap();
        store.put_layer_blob(&crate::oci::DiffId(digest), "gzip", &crate::oci::Descriptor::new("x", digest, 5000)).unwrap();
        let said = store.alone(|state| state.totals(&store).used).unwrap();
        // The pins are not in it.
        let counted = Census::take(&store).total();
        assert!(said.bytes.abs_diff(counted.bytes) <= 8192 && said.inodes.abs_diff(counted.inodes) <= 2, "{said} {counted}");
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_what_is_held_stays() {
        let (dir, first) = store();
        let (old, older, oldest) = (old_blob(&first, 1, 1), old_blob(&first, 2, 2), old_blob(&first, 3, 3));
        drop(first);
        let first = Store::open(&dir.path().join("store")).unwrap();
        // Somebody else holds the oldest.
        assert!(first.has_blob(&oldest, 100_000));
        let store = small(&first, 400_000);
        let new = store.put_blob(&vec![4; 100_000]).unwrap();
        let there = |digest| store.blob_path(&digest).exists();
        assert_eq!([old, older, oldest, new].map(there), [true, false, true, true]);
        assert!(store.told().unwrap().removed.bytes >= 100_000);
    }

    #[test]
    fn what_cannot_be_kept_to_is_told() {
        let (_dir, first) = store();
        let store = small(&first, 150_000);
        let digests = [1, 2, 3].map(|byte| store.put_blob(&vec![byte; 100_000]).unwrap());
        assert!(digests.iter().all(|digest| store.blob_path(digest).exists()), "a build's own");
        let over = store.told().unwrap().over;
        assert!((150_000..200_000).contains(&over.bytes), "{over}");
    }

    #[test]
    fn a_full_disk_is_helped_by_removing_what_nobody_needs() {
        let (dir, first) = store();
        let digests = [old_blob(&first, 1, 1), old_blob(&first, 2, 2)];
        drop(first);
        let store = Store::open(&dir.path().join("store")).unwrap();
        assert!(store.has_blob(&digests[0], 100_000));
        assert!(store.make_room().bytes >= 100_000);
        assert_eq!(digests.map(|digest| store.blob_path(&digest).exists()), [true, false]);
        assert_eq!(store.make_room().bytes, 0, "what is held stays");
    }
}
