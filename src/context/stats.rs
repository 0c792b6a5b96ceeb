//! What files were when their digests were taken, so that a build without changes reads no file: by path, with the inode,
//! size and times that lstat gave. As in git's index, what changed too shortly before it was read is not remembered: a second
//! change within the clock's grain would not show.
//!
//! It is a record of the store for each context directory. A wrong one is found out when the bytes are copied; a missing or
//! unreadable one costs reading the files. The device's number is not in it: it is not stable on every file system.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    store::{self, Store},
    sys::{self, dir::Stat},
    tree::{ContentDigest, TreePath, Xattrs},
};

/// The coarsest clock of a file system in use is FAT's.
const GRAIN: Duration = Duration::from_secs(2);
/// More is not kept; the paths that nobody asked for go first.
const MOST: usize = 1_000_000;
const HEAD: &[u8] = b"lapstrake stats 1\n";

/// What is remembered of one context directory.
#[derive(Debug)]
pub struct Stats {
    key: String,
    known: Mutex<BTreeMap<TreePath, Known>>,
    /// Is it another than in the store?
    changed: AtomicBool,
}

#[derive(Debug, Clone)]
struct Known {
    /// inode, size, mtime, ctime
    stat: (u64, u64, (i64, u32), (i64, u32)),
    digest: ContentDigest,
    xattrs: Xattrs,
    /// Asked for or learned in this build.
    fresh: bool,
}

fn identity(stat: &Stat) -> (u64, u64, (i64, u32), (i64, u32)) {
    (stat.ino, stat.size, stat.mtime, stat.ctime)
}

impl Stats {
    /// Those of a directory, which is named by its absolute path.
    pub fn load(store: &Store, dir: &Path) -> Result<Self, store::Error> {
        let dir: PathBuf = dir.components().collect();
        let key = format!("57a7-{}", blake3::hash(dir.as_os_str().as_encoded_bytes()).to_hex());
        let known = store.record(&key)?.and_then(|bytes| decode(&bytes)).unwrap_or_default();
        Ok(Self { key, known: Mutex::new(known), changed: AtomicBool::new(false) })
    }

    /// Writes them for the next build.
    pub fn save(&self, store: &Store) -> Result<(), store::Error> {
        if !self.changed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.len() > MOST {
            known.retain(|_, known| known.fresh);
        }
        store.put_record(&self.key, &encode(&known))
    }

    /// Forgets all: what was remembered turned out to be wrong.
    pub fn forget(&self) {
        self.changed.store(true, Ordering::Relaxed);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn recall(&self, path: &TreePath, stat: &Stat) -> Option<(ContentDigest, Xattrs)> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_mut(path).filter(|known| known.stat == identity(stat))?;
        known.fresh = true;
        Some((known.digest, known.xattrs.clone()))
    }

    /// `began` is a time before the file was opened.
    pub(super) fn learn(&self, path: &TreePath, stat: &Stat, began: SystemTime, digest: ContentDigest, xattrs: &Xattrs) {
        let settled = |(seconds, _): (i64, u32)| {
            let until = u64::try_from(seconds).ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds) + GRAIN));
            until.is_some_and(|until| until < began)
        };
        // A file from before 1970 has a time that somebody set; its ctime tells.
        if !settled(stat.ctime) {
            return;
        }
        self.changed.store(true, Ordering::Relaxed);
        let known = Known { stat: identity(stat), digest, xattrs: xattrs.clone(), fresh: true };
        drop(self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), known));
    }
}

/// The wall clock, for [`Stats::learn`].
pub(super) fn now() -> SystemTime {
    sys::now()
}

fn put(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(field);
}

fn encode(known: &BTreeMap<TreePath, Known>) -> Vec<u8> {
    let mut bytes = HEAD.to_vec();
    for (path, Known { stat: (ino, size, mtime, ctime), digest, xattrs, .. }) in known {
        put(&mut bytes, path.as_bytes());
        bytes.extend_from_slice(&ino.to_le_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
        for (seconds, nanoseconds) in [mtime, ctime] {
            bytes.extend_from_slice(&seconds.to_le_bytes());
            bytes.extend_from_slice(&nanoseconds.to_le_bytes());
        }
        bytes.extend_from_slice(&digest.0);
        bytes.extend_from_slice(&u32::try_from(xattrs.len()).unwrap_or(0).to_le_bytes());
        for (name, value) in xattrs {
            put(&mut bytes, name);
            put(&mut bytes, value);
        }
    }
    bytes
}

/// Reads fields from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn framed(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(usize::try_from(length).ok()?)
    }

    fn time(&mut self) -> Option<(i64, u32)> {
        Some((i64::from_le_bytes(self.array()?), u32::from_le_bytes(self.array()?)))
    }

    fn known(&mut self) -> Option<(TreePath, Known)> {
        let path = TreePath::parse(self.framed()?).ok()?;
        let stat = (u64::from_le_bytes(self.array()?), u64::from_le_bytes(self.array()?), self.time()?, self.time()?);
        let digest = ContentDigest(self.array()?);
        let mut xattrs = Xattrs::new();
        for _ in 0..u32::from_le_bytes(self.array()?) {
            drop(xattrs.insert(self.framed()?.to_vec(), self.framed()?.to_vec()));
        }
        Some((path, Known { stat, digest, xattrs, fresh: false }))
    }
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<TreePath, Known>> {
    let mut fields = Fields(bytes.strip_prefix(HEAD)?);
    let mut known = BTreeMap::new();
    while !fields.0.is_empty() {
        let (path, one) = fields.known()?;
        drop(known.insert(path, one));
    }
    Some(known)
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::{super::Context, *};
    use crate::pattern::PatternList;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    struct Room {
        _store: tempfile::TempDir,
        files: tempfile::TempDir,
        store: Store,
    }

    impl Room {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let files = tempfile::tempdir().unwrap();
            fs::write(files.path().join("f"), "one").unwrap();
            let store = Store::open(dir.path()).unwrap();
            Self { _store: dir, files, store }
        }

        fn stats(&self) -> Arc<Stats> {
            Arc::new(Stats::load(&self.store, self.files.path()).unwrap())
        }

        fn context(&self, stats: &Arc<Stats>) -> Context {
            Context::open(self.files.path(), PatternList::default()).unwrap().remembering(Arc::clone(stats))
        }

        fn stat(&self) -> Stat {
            let stats = self.stats();
            self.context(&stats).look_up(&path("f")).unwrap().unwrap().stat
        }
    }

    #[test]
    fn what_did_not_change_is_not_read_again() {
        let room = Room::new();
        let (stats, stat) = (room.stats(), room.stat());
        let later = now() + Duration::from_secs(10);
        let xattrs = Xattrs::from([(b"user.a".to_vec(), b"1".to_vec())]);
        stats.learn(&path("f"), &stat, later, ContentDigest::of(b"remembered"), &xattrs);
        stats.save(&room.store).unwrap();
        let again = room.stats();
        assert_eq!(room.context(&again).read(&path("f")).unwrap(), (ContentDigest::of(b"remembered"), xattrs));
        again.forget();
        assert_eq!(room.context(&again).read(&path("f")).unwrap().0, ContentDigest::of(b"one"));
    }

    #[test]
    fn what_changed_is_read_again() {
        let room = Room::new();
        let stats = room.stats();
        stats.learn(&path("f"), &room.stat(), now() + Duration::from_secs(10), ContentDigest::of(b"old"), &Xattrs::new());
        fs::write(room.files.path().join("f"), "two").unwrap();
        assert_eq!(room.context(&stats).read(&path("f")).unwrap().0, ContentDigest::of(b"two"));
    }

    #[test]
    fn what_changed_just_now_is_not_remembered() {
        let room = Room::new();
        let stats = room.stats();
        drop(room.context(&stats).read(&path("f")).unwrap());
        assert!(stats.recall(&path("f"), &room.stat()).is_none());
    }

    #[test]
    fn a_record_that_is_cut_or_not_ours_is_as_none() {
        let room = Room::new();
        let stats = room.stats();
        stats.learn(&path("f"), &room.stat(), now() + Duration::from_secs(10), ContentDigest::of(b"x"), &Xattrs::new());
        let whole = encode(&stats.known.lock().unwrap());
        assert_eq!(decode(&whole).unwrap().len(), 1);
        for cut in HEAD.len() + 1..whole.len() {
            assert!(decode(&whole[..cut]).is_none(), "{cut}");
        }
        assert!(decode(b"something else").is_none());
    }
}
