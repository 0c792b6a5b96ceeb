//! What files were when their digests were taken, so that a build without changes reads no file: by path, with the inode,
//! size and times that lstat gave. As in git's index, what changed too shortly before it was read is not remembered: a second
//! change within the clock's grain would not show.
//!
//! It is a record of the store for each context directory. A wrong one is found out when the bytes are copied; a missing or
//! unreadable one costs reading the files. The device's number is not in it: it is not stable on every file system.

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::learned::Learned;
use crate::{
    store::{self, Store, Tape, framed},
    sys::{self, dir::Stat},
    tree::{ContentDigest, TreePath, Xattrs, walk_order},
};

/// The coarsest clock of a file system in use is FAT's.
const GRAIN: Duration = Duration::from_secs(2);
/// More is not kept; the paths that nobody asked for go first.
const MOST: usize = 1_000_000;
const HEAD: &[u8] = b"lapstrake stats 3\n";

/// What is remembered of one context directory.
#[derive(Debug)]
pub struct Stats {
    key: String,
    /// Of earlier builds.
    old: Table,
    /// Of this build.
    new: Mutex<Learned>,
    /// What was remembered turned out to be wrong.
    forgotten: AtomicBool,
    /// Is it another than in the store?
    changed: AtomicBool,
}

/// Inode, size, mtime, ctime.
type Identity = (u64, u64, (i64, u32), (i64, u32));

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    stat: Identity,
    digest: ContentDigest,
    xattrs: Xattrs,
}

fn identity(stat: &Stat) -> Identity {
    (stat.ino, stat.size, stat.mtime, stat.ctime)
}

impl Stats {
    /// Those of a directory, which is named by its absolute path.
    pub fn load(store: &Store, dir: &Path) -> Result<Self, store::Error> {
        let dir: PathBuf = dir.components().collect();
        let key = format!("57a7-{}", blake3::hash(dir.as_os_str().as_encoded_bytes()).to_hex());
        let old = store.record(&key)?.and_then(Table::of).unwrap_or_default();
        Ok(Self { key, old, new: Mutex::new(Learned::new(store)), forgotten: AtomicBool::new(false), changed: AtomicBool::new(false) })
    }

    /// Writes them for the next build.
    pub fn save(&self, store: &Store) -> Result<(), store::Error> {
        if !self.changed.load(Relaxed) {
            return Ok(());
        }
        let new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        let none = Table::default();
        let old = if self.forgotten.load(Relaxed) { &none } else { &self.old };
        store.put_record_tape(&self.key, &old.with(&new, store)?)
    }

    /// Forgets all: what was remembered turned out to be wrong.
    pub fn forget(&self) {
        self.forgotten.store(true, Relaxed);
        self.changed.store(true, Relaxed);
        self.new.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn recall(&self, path: &TreePath, stat: &Stat) -> Option<(ContentDigest, Xattrs)> {
        let learned = self.new.lock().unwrap_or_else(PoisonError::into_inner).find(path);
        let known = learned.or_else(|| if self.forgotten.load(Relaxed) { None } else { self.old.find(path) });
        known.filter(|known| known.stat == identity(stat)).map(|known| (known.digest, known.xattrs))
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
        self.changed.store(true, Relaxed);
        let known = Known { stat: identity(stat), digest, xattrs: xattrs.clone() };
        self.new.lock().unwrap_or_else(PoisonError::into_inner).put(path.clone(), known);
    }
}

/// The wall clock, for [`Stats::learn`].
pub(super) fn now() -> SystemTime {
    sys::now()
}

/// The record as it was read, some ninety bytes for each file. Its rows are in the order of a walk; what a path has of the one
/// before it is not repeated, but for each sixteenth row.
#[derive(Debug, Default)]
struct Table {
    bytes: Vec<u8>,
    /// Where each sixteenth row begins.
    blocks: Vec<usize>,
    count: usize,
    /// Rows that were asked for, a bit for each.
    asked: Vec<AtomicU64>,
    /// After the row that was found last: a walk asks for that one next.
    next: Mutex<Place>,
}

/// So many rows lie between two whole paths.
const BLOCK: usize = 16;

/// Between two rows.
#[derive(Debug, Clone, Default)]
struct Place {
    at: usize,
    number: usize,
    /// Of the row before.
    path: Vec<u8>,
}

impl Table {
    /// `None`: it is no such record.
    fn of(bytes: Vec<u8>) -> Option<Self> {
        if !bytes.starts_with(HEAD) {
            return None;
        }
        let mut table = Self { bytes, ..Self::default() };
        let (mut place, mut last) = (table.block(0), Vec::new());
        while place.at < table.bytes.len() {
            if place.number.is_multiple_of(BLOCK) {
                table.blocks.push(place.at);
            }
            let _known: &[u8] = table.step(&mut place)?;
            // The root is no file.
            if walk_order(&last, &place.path) != Ordering::Less {
                return None;
            }
            last.clone_from(&place.path);
        }
        table.count = place.number;
        table.asked = (0..table.count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        table.next = Mutex::new(table.block(0));
        Some(table)
    }

    fn block(&self, number: usize) -> Place {
        Place { at: self.blocks.get(number).copied().unwrap_or(HEAD.len()), number: number * BLOCK, path: Vec::new() }
    }

    /// Goes to behind the next row, whose path the place then has. What else the row says.
    fn step(&self, place: &mut Place) -> Option<&[u8]> {
        let bytes = self.bytes.get(place.at..)?;
        let mut from = Fields(bytes);
        let shared = if place.number.is_multiple_of(BLOCK) { 0 } else { usize::try_from(u32::from_le_bytes(from.array()?)).ok()? };
        let rest = from.framed()?;
        // A walk steps on to each file's row.
        let _shared: &[u8] = place.path.get(..shared)?;
        place.path.truncate(shared);
        place.path.extend_from_slice(rest);
        let known = from.0;
        let _known = from.known()?;
        place.at += bytes.len() - from.0.len();
        place.number += 1;
        known.get(..known.len() - from.0.len())
    }

    fn find(&self, path: &TreePath) -> Option<Known> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut row = self.step(&mut next);
        if row.is_none() || next.path != path.as_bytes() {
            let is_after = |at: &usize| {
                let first = self.bytes.get(*at..).and_then(|bytes| Fields(bytes).framed());
                first.is_some_and(|first| walk_order(first, path.as_bytes()) != Ordering::Greater)
            };
            *next = self.block(self.blocks.partition_point(is_after).checked_sub(1)?);
            loop {
                row = self.step(&mut next);
                if row.is_none() || walk_order(&next.path, path.as_bytes()) != Ordering::Less {
                    break;
                }
            }
        }
        let row = row.filter(|_| next.path == path.as_bytes())?;
        let number = next.number - 1;
        drop(next);
        let _before = self.asked.get(number / 64).map(|word| word.fetch_or(1 << (number % 64), Relaxed));
        Fields(row).known()
    }

    /// The record of these rows and newer ones, which count where a path has both.
    fn with(&self, new: &Learned, store: &Store) -> Result<Tape, store::Error> {
        let few = self.count + new.len() <= MOST;
        let asked = |number: usize| self.asked.get(number / 64).is_some_and(|word| word.load(Relaxed) >> (number % 64) & 1 == 1);
        let mut out = Writing { tape: Tape::new(Some(store)), last: Vec::new(), count: 0 };
        out.tape.append(HEAD)?;
        let mut place = self.block(0);
        let mut older = std::iter::from_fn(move || {
            loop {
                let known = self.step(&mut place)?;
                if few || asked(place.number - 1) {
                    return Some((place.path.clone(), known));
                }
            }
        })
        .peekable();
        new.each(|path, known| {
            while let Some((before, known)) = older.next_if(|(have, _)| walk_order(have, path) == Ordering::Less) {
                out.push(&before, known)?;
            }
            drop(older.next_if(|(have, _)| have == path));
            out.push(path, known)
        })?;
        older.try_for_each(|(path, known)| out.push(&path, known))?;
        Ok(out.tape)
    }
}

/// A record that is being written.
struct Writing {
    tape: Tape,
    last: Vec<u8>,
    count: usize,
}

impl Writing {
    fn push(&mut self, path: &[u8], known: &[u8]) -> Result<(), store::Error> {
        let mut row = Vec::with_capacity(path.len() + known.len() + 8);
        let mut shared = 0;
        if !self.count.is_multiple_of(BLOCK) {
            shared = path.iter().zip(&self.last).take_while(|(one, other)| one == other).count();
            row.extend_from_slice(&u32::try_from(shared).unwrap_or(0).to_le_bytes());
        }
        framed(&mut row, path.get(shared..).unwrap_or_default());
        row.extend_from_slice(known);
        self.count += 1;
        self.last.clear();
        self.last.extend_from_slice(path);
        self.tape.append(&row)
    }
}

pub(super) fn put_row(bytes: &mut Vec<u8>, path: &TreePath, known: &Known) {
    let Known { stat: (ino, size, mtime, ctime), digest, xattrs } = known;
    framed(bytes, path.as_bytes());
    bytes.extend_from_slice(&ino.to_le_bytes());
    bytes.extend_from_slice(&size.to_le_bytes());
    for (seconds, nanoseconds) in [mtime, ctime] {
        bytes.extend_from_slice(&seconds.to_le_bytes());
        bytes.extend_from_slice(&nanoseconds.to_le_bytes());
    }
    bytes.extend_from_slice(&digest.0);
    bytes.extend_from_slice(&u32::try_from(xattrs.len()).unwrap_or(0).to_le_bytes());
    for (name, value) in xattrs {
        framed(bytes, name);
        framed(bytes, value);
    }
}

/// Reads fields from the front.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn framed(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(usize::try_from(length).ok()?)
    }

    fn time(&mut self) -> Option<(i64, u32)> {
        Some((i64::from_le_bytes(self.array()?), u32::from_le_bytes(self.array()?)))
    }

    /// What follows the path of a row.
    pub(super) fn known(&mut self) -> Option<Known> {
        let stat = (u64::from_le_bytes(self.array()?), u64::from_le_bytes(self.array()?), self.time()?, self.time()?);
        let digest = ContentDigest(self.array()?);
        let mut xattrs = Xattrs::new();
        for _ in 0..u32::from_le_bytes(self.array()?) {
            drop(xattrs.insert(self.framed()?.to_vec(), self.framed()?.to_vec()));
        }
        Some(Known { stat, digest, xattrs })
    }
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
        let whole = Table::default().with(&stats.new.lock().unwrap(), &room.store).unwrap();
        let whole = whole.reader(0).exactly(usize::try_from(whole.len()).unwrap()).unwrap();
        assert_eq!(Table::of(whole.clone()).unwrap().count, 1);
        for cut in HEAD.len() + 1..whole.len() {
            assert!(Table::of(whole[..cut].to_vec()).is_none(), "{cut}");
        }
        assert!(Table::of(b"something else".to_vec()).is_none());
        let twice = [&whole, &whole[HEAD.len()..]].concat();
        let mut again = whole.clone();
        again.extend(1_u32.to_le_bytes());
        again.extend_from_slice(&whole[HEAD.len()..]);
        assert_eq!(Table::of(again).unwrap().count, 2, "`ff` after `f`");
        assert!(Table::of(twice).is_none());
    }

    #[test]
    fn whatever_byte_is_changed_a_record_is_none_or_is_gone_through_to_its_end() {
        let room = Room::new();
        let mut rows = Learned::new(&room.store);
        for n in 0..20_u64 {
            let xattrs = Xattrs::from([(b"user.a".to_vec(), vec![1; 2])]);
            rows.put(path(&format!("d/f{n}")), Known { stat: (n, n, (2, 3), (4, 5)), digest: ContentDigest::of(b"x"), xattrs });
        }
        let whole = Table::default().with(&rows, &room.store).unwrap();
        let whole = whole.reader(0).exactly(usize::try_from(whole.len()).unwrap()).unwrap();
        for (at, other) in (0..whole.len()).flat_map(|at| [1, 0x10, 0x80, 0xff].map(|bits| (at, whole[at] ^ bits))) {
            let mut bytes = whole.clone();
            bytes[at] = other;
            let Some(table) = Table::of(bytes.clone()) else { continue };
            let again = table.with(&Learned::new(&room.store), &room.store).unwrap();
            assert_eq!(Table::of(again.reader(0).exactly(usize::try_from(again.len()).unwrap()).unwrap()).unwrap().count, table.count);
            let is_as_before = |n| table.find(&path(&format!("d/f{n}"))) == rows.find(&path(&format!("d/f{n}")));
            assert!(!(0..20).all(is_as_before), "byte {at} says nothing");
        }
    }

    #[test]
    fn a_table_finds_what_was_put_into_it_in_any_order_and_newer_rows_count() {
        let known =
            |size: u64| Known { stat: (1, size, (2, 3), (4, 5)), digest: ContentDigest::of(&size.to_le_bytes()), xattrs: Xattrs::new() };
        let room = Room::new();
        let bytes = |tape: Tape| tape.reader(0).exactly(usize::try_from(tape.len()).unwrap()).unwrap();
        let rows = |from: u64, step: usize| {
            let mut rows = Learned::new(&room.store);
            (0..300).step_by(step).for_each(|n: u64| rows.put(path(&format!("d{}/f{}", n % 7, n)), known(n + from)));
            rows
        };
        let first = Table::of(bytes(Table::default().with(&rows(0, 2), &room.store).unwrap())).unwrap();
        let both = Table::of(bytes(first.with(&rows(1000, 3), &room.store).unwrap())).unwrap();
        for n in (0..300).chain((0..300).rev()) {
            let want = if n % 3 == 0 { Some(known(n + 1000)) } else { (n % 2 == 0).then(|| known(n)) };
            assert_eq!(both.find(&path(&format!("d{}/f{n}", n % 7))), want, "{n}");
        }
        assert_eq!(both.find(&path("d0")), None);
        assert_eq!(Table::default().find(&path("d0")), None);
    }

    #[test]
    fn what_is_learnt_of_many_files_is_found_and_kept_whatever_lies_on_tapes() {
        let room = Room::new();
        let known = |size: u64| Known { stat: (1, size, (2, 3), (4, 5)), digest: ContentDigest::of(b"x"), xattrs: Xattrs::new() };
        let mut all = Learned::new(&room.store);
        let name = |n: u64| path(&format!("d{}/f{}", n % 7, n));
        // Some are learnt twice, in another run.
        for n in (0..40_000).chain((0..40_000).step_by(1000)) {
            all.put(name(n), known(if all.len() < 40_000 { n } else { n + 1 }));
        }
        let want = |n: u64| known(if n.is_multiple_of(1000) { n + 1 } else { n });
        for n in (0..40_000).step_by(500).chain([39_999]) {
            assert_eq!(all.find(&name(n)), Some(want(n)), "{n}");
        }
        assert_eq!(all.find(&path("d0")), None);
        assert_eq!(all.find(&path("z")), None);
        let tape = Table::default().with(&all, &room.store).unwrap();
        let table = Table::of(tape.reader(0).exactly(usize::try_from(tape.len()).unwrap()).unwrap()).unwrap();
        assert_eq!(table.count, 40_000);
        assert_eq!(table.find(&name(7000)), Some(want(7000)));
    }
}
