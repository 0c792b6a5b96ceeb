//! The binary form of an index, as it lies in a store.
//!
//! ```text
//! "lapstrake index 1\n"
//! u64 number of rows, then each: path, tag; for an entry also mode uid gid mtime xattrs kind [link]
//! u64 number of kept files, then each: path, bytes
//! 32 bytes: BLAKE3 of all before
//! ```
//!
//! Integers are little-endian; texts are framed by a u32 length. Equal indexes have equal bytes. Reading checks the digest
//! first and then trusts nothing: paths are canonical and strictly ascending, links name an earlier row with an equal
//! entry, lengths stay within the bytes that are there.

use std::{collections::BTreeMap, sync::Arc};

use super::{BadIndex, ContentDigest, Entry, Kind, Meta, Row, TreePath, Xattrs};

const MAGIC: &[u8] = b"lapstrake index 1\n";
const DIGEST: usize = 32;
/// No more than the kernel takes for a symbolic link's target.
const MAX_TARGET: usize = 4096;
/// The smallest row: path length, one byte of path (or the root's none), tag.
const MIN_ROW: usize = 5;

const WHITEOUT: u8 = 0;
const PUT: u8 = 1;
const LINK: u8 = 2;
const OPAQUE: u8 = 4;

const FILE: u8 = 1;
const DIR: u8 = 2;
const SYMLINK: u8 = 3;
const CHAR: u8 = 4;
const BLOCK: u8 = 5;
const FIFO: u8 = 6;

type Rows = Vec<(TreePath, Row)>;
type Kept = BTreeMap<TreePath, Arc<[u8]>>;

pub(super) fn encode(rows: &Rows, kept: &Kept) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(rows.len() * 96 + 64));
    out.0.extend_from_slice(MAGIC);
    out.number(rows.len());
    for (path, row) in rows {
        out.text(path.as_bytes());
        match row {
            Row::Whiteout => out.0.push(WHITEOUT),
            Row::Put { entry, link, opaque } => {
                out.0.push(PUT | if link.is_some() { LINK } else { 0 } | if *opaque { OPAQUE } else { 0 });
                out.entry(entry);
                if let Some(first) = link {
                    out.text(first.as_bytes());
                }
            }
        }
    }
    out.number(kept.len());
    for (path, bytes) in kept {
        out.text(path.as_bytes());
        out.text(bytes);
    }
    let digest = blake3::hash(&out.0);
    out.0.extend_from_slice(digest.as_bytes());
    out.0
}

pub(super) fn decode(bytes: &[u8]) -> Result<(Rows, Kept), BadIndex> {
    let (body, digest) = bytes.split_last_chunk::<DIGEST>().ok_or_else(|| bad("too short"))?;
    if blake3::hash(body).as_bytes() != digest {
        return Err(bad("its digest does not fit its bytes"));
    }
    let mut from = Reader(body.strip_prefix(MAGIC).ok_or_else(|| bad("not of a version that is known"))?);
    let count = from.count(MIN_ROW)?;
    let mut rows = Rows::with_capacity(count);
    for _ in 0..count {
        let path = from.path()?;
        if rows.last().is_some_and(|(last, _)| *last >= path) {
            return Err(bad(format!("`{path}` is not in order")));
        }
        let row = from.row()?;
        check(&path, &row, &rows)?;
        rows.push((path, row));
    }
    let mut kept = Kept::new();
    for _ in 0..from.count(8)? {
        let (path, bytes) = (from.path()?, from.text()?);
        match find(&rows, &path) {
            Some(Row::Put { entry: Entry { kind: Kind::File { content, .. }, .. }, .. }) if *content == ContentDigest::of(bytes) => {}
            Some(Row::Put { .. } | Row::Whiteout) | None => return Err(bad(format!("the bytes kept of `{path}` are not its content"))),
        }
        if kept.last_key_value().is_some_and(|(last, _)| *last >= path) {
            return Err(bad(format!("the bytes kept of `{path}` are not in order")));
        }
        drop(kept.insert(path, Arc::from(bytes)));
    }
    if from.0.is_empty() { Ok((rows, kept)) } else { Err(bad("more bytes than rows")) }
}

fn bad(reason: impl Into<String>) -> BadIndex {
    BadIndex { reason: reason.into() }
}

fn find<'a>(rows: &'a Rows, path: &TreePath) -> Option<&'a Row> {
    let at = rows.binary_search_by(|(have, _)| have.cmp(path)).ok()?;
    rows.get(at).map(|(_, row)| row)
}

/// What a row may be, given those before it.
fn check(path: &TreePath, row: &Row, before: &Rows) -> Result<(), BadIndex> {
    let Row::Put { entry, link, opaque } = row else {
        return if path.is_root() { Err(bad("the root is gone")) } else { Ok(()) };
    };
    if (path.is_root() || *opaque) && entry.kind != Kind::Dir {
        return Err(bad(format!("`{path}` is not a directory")));
    }
    let Some(first) = link else { return Ok(()) };
    match find(before, first) {
        Some(Row::Put { entry: same, link: None, .. }) if same == entry && entry.kind != Kind::Dir => Ok(()),
        Some(Row::Put { .. } | Row::Whiteout) | None => Err(bad(format!("`{path}` is a link to `{first}`, which is not the same"))),
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: usize) {
        self.0.extend_from_slice(&(number as u64).to_le_bytes());
    }

    fn word(&mut self, word: u32) {
        self.0.extend_from_slice(&word.to_le_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        // Nothing in an index is near 4 GiB: paths, targets, attributes of at most 64 KiB, kept files of at most 1 MiB.
        self.word(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(text);
    }

    fn entry(&mut self, entry: &Entry) {
        self.word(entry.meta.mode);
        self.word(entry.meta.uid);
        self.word(entry.meta.gid);
        self.0.extend_from_slice(&entry.meta.mtime.to_le_bytes());
        self.number(entry.meta.xattrs.len());
        for (name, value) in &entry.meta.xattrs {
            self.text(name);
            self.text(value);
        }
        match &entry.kind {
            Kind::File { size, content } => {
                self.0.push(FILE);
                self.0.extend_from_slice(&size.to_le_bytes());
                self.0.extend_from_slice(&content.0);
            }
            Kind::Dir => self.0.push(DIR),
            Kind::Symlink { target } => {
                self.0.push(SYMLINK);
                self.text(target);
            }
            Kind::Char { major, minor } => self.device(CHAR, *major, *minor),
            Kind::Block { major, minor } => self.device(BLOCK, *major, *minor),
            Kind::Fifo => self.0.push(FIFO),
        }
    }

    fn device(&mut self, tag: u8, major: u32, minor: u32) {
        self.0.push(tag);
        self.word(major);
        self.word(minor);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], BadIndex> {
        let (head, tail) = self.0.split_at_checked(length).ok_or_else(|| bad("cut off"))?;
        self.0 = tail;
        Ok(head)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], BadIndex> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or_else(|| bad("cut off"))?;
        self.0 = tail;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, BadIndex> {
        Ok(u8::from_le_bytes(self.fixed()?))
    }

    fn word(&mut self) -> Result<u32, BadIndex> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    /// A number of things of at least `least` bytes each: never more than the bytes left can hold.
    fn count(&mut self, least: usize) -> Result<usize, BadIndex> {
        let count = usize::try_from(u64::from_le_bytes(self.fixed()?)).map_err(|_large| bad("a count too large"))?;
        if count > self.0.len() / least { Err(bad("a count larger than its bytes")) } else { Ok(count) }
    }

    fn text(&mut self) -> Result<&'a [u8], BadIndex> {
        let length = self.word()?;
        self.take(usize::try_from(length).map_err(|_large| bad("a length too large"))?)
    }

    fn path(&mut self) -> Result<TreePath, BadIndex> {
        let text = self.text()?;
        match TreePath::parse(text) {
            Ok(path) if path.as_bytes() == text => Ok(path),
            Ok(_) | Err(_) => Err(bad(format!("`{}` is not a path", text.escape_ascii()))),
        }
    }

    fn row(&mut self) -> Result<Row, BadIndex> {
        let tag = self.byte()?;
        if tag == WHITEOUT {
            return Ok(Row::Whiteout);
        }
        if tag & PUT == 0 || tag & !(PUT | LINK | OPAQUE) != 0 {
            return Err(bad("an unknown kind of row"));
        }
        let entry = self.entry()?;
        let link = if tag & LINK == 0 { None } else { Some(self.path()?) };
        Ok(Row::Put { entry, link, opaque: tag & OPAQUE != 0 })
    }

    fn entry(&mut self) -> Result<Entry, BadIndex> {
        let (mode, uid, gid) = (self.word()?, self.word()?, self.word()?);
        if mode & !0o7777 != 0 {
            return Err(bad("a mode with more than permissions"));
        }
        let mtime = i64::from_le_bytes(self.fixed()?);
        let mut xattrs = Xattrs::new();
        for _ in 0..self.count(8)? {
            let (name, value) = (self.text()?, self.text()?);
            if name != b"security.capability" && !name.starts_with(b"user.") {
                return Err(bad("an attribute that is never in a tree"));
            }
            if xattrs.last_key_value().is_some_and(|(last, _)| last.as_slice() >= name) {
                return Err(bad("attributes out of order"));
            }
            drop(xattrs.insert(name.to_vec(), value.to_vec()));
        }
        Ok(Entry { meta: Meta { mode, uid, gid, mtime, xattrs }, kind: self.kind()? })
    }

    fn kind(&mut self) -> Result<Kind, BadIndex> {
        Ok(match self.byte()? {
            FILE => Kind::File { size: u64::from_le_bytes(self.fixed()?), content: ContentDigest(self.fixed()?) },
            DIR => Kind::Dir,
            SYMLINK => match self.text()? {
                target if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) => {
                    return Err(bad("a link without a target"));
                }
                target => Kind::Symlink { target: target.to_vec() },
            },
            CHAR => Kind::Char { major: self.word()?, minor: self.word()? },
            BLOCK => Kind::Block { major: self.word()?, minor: self.word()? },
            FIFO => Kind::Fifo,
            _ => return Err(bad("an unknown kind of entry")),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Index, IndexBuilder};
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn entry(kind: Kind) -> Entry {
        let xattrs = Xattrs::from([(b"user.a".to_vec(), vec![0, 1]), (b"security.capability".to_vec(), vec![])]);
        Entry { meta: Meta { mode: 0o4755, uid: 7, gid: u32::MAX, mtime: -5, xattrs }, kind }
    }

    fn put(kind: Kind) -> Row {
        Row::Put { entry: entry(kind), link: None, opaque: false }
    }

    fn sample() -> Index {
        let mut builder = IndexBuilder::default();
        let passwd = Kind::File { size: 4, content: ContentDigest::of(b"root") };
        builder.put(path("etc"), Row::Put { entry: entry(Kind::Dir), link: None, opaque: true });
        builder.put(path("etc/passwd"), put(passwd.clone()));
        builder.put(path("etc/passwd-"), Row::Put { entry: entry(passwd), link: Some(path("etc/passwd")), opaque: false });
        builder.put(path("gone"), Row::Whiteout);
        builder.put(path("link"), put(Kind::Symlink { target: b"\xff/..".to_vec() }));
        builder.put(path("null"), put(Kind::Char { major: 1, minor: 3 }));
        builder.put(path("sda"), put(Kind::Block { major: 8, minor: 0 }));
        builder.put(path("pipe"), put(Kind::Fifo));
        builder.keep(path("etc/passwd"), Arc::from(&b"root"[..]));
        builder.finish()
    }

    /// The same rows with a digest that fits, as somebody hostile would write them.
    fn signed(rows: &Rows) -> Vec<u8> {
        encode(rows, &Kept::new())
    }

    #[test]
    fn an_index_reads_back_as_it_was_written() {
        let index = sample();
        assert_eq!(Index::decode(&index.encode()), Ok(index));
        assert_eq!(Index::decode(&Index::default().encode()), Ok(Index::default()));
    }

    #[test]
    fn a_flipped_bit_or_a_cut_is_noticed() {
        let bytes = sample().encode();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 4;
            assert!(Index::decode(&other).is_err(), "byte {at}");
            assert!(Index::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn rows_that_cannot_be_are_refused_even_with_a_digest_that_fits() {
        let file = || put(Kind::File { size: 1, content: ContentDigest::of(b"x") });
        let link = |to: &str| Row::Put { entry: entry(Kind::Fifo), link: Some(path(to)), opaque: false };
        let cases: Vec<(&str, Rows)> = vec![
            ("out of order", vec![(path("b"), file()), (path("a"), file())]),
            ("twice", vec![(path("a"), file()), (path("a"), file())]),
            ("the root is a file", vec![(TreePath::root(), file())]),
            ("the root is gone", vec![(TreePath::root(), Row::Whiteout)]),
            ("an opaque file", vec![(path("a"), Row::Put { entry: entry(Kind::Fifo), link: None, opaque: true })]),
            ("a link to nothing", vec![(path("a"), link("b"))]),
            ("a link to another entry", vec![(path("a"), file()), (path("b"), link("a"))]),
            ("an empty target", vec![(path("a"), put(Kind::Symlink { target: Vec::new() }))]),
        ];
        for (what, rows) in cases {
            assert!(Index::decode(&signed(&rows)).is_err(), "{what}");
        }
        assert!(Index::decode(&signed(&vec![(path("a"), put(Kind::Fifo)), (path("b"), link("a"))])).is_ok());
    }

    #[test]
    fn a_count_that_no_memory_holds_is_refused_before_it_is_reserved() {
        let mut bytes = [MAGIC, &u64::MAX.to_le_bytes()].concat();
        let digest = blake3::hash(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        assert!(Index::decode(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn any_signed_bytes_are_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = [MAGIC, &body].concat();
            let digest = blake3::hash(&bytes);
            bytes.extend_from_slice(digest.as_bytes());
            if let Ok(index) = Index::decode(&bytes) {
                prop_assert_eq!(index.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_rows_are_looked_up_by_search() {
        let mut builder = IndexBuilder::default();
        for dir in 0..100 {
            builder.put(path(&format!("d{dir}")), put(Kind::Dir));
            for file in 0..1000 {
                builder.put(path(&format!("d{dir}/f{file}")), put(Kind::Fifo));
            }
        }
        let index = Index::decode(&builder.finish().encode()).unwrap();
        assert_eq!(index.len(), 100_100);
        assert!(index.row(&path("d42/f999")).is_some());
        assert_eq!(index.children(&path("d7")).count(), 1000);
        assert_eq!(index.children(&TreePath::root()).count(), 100);
    }
}
