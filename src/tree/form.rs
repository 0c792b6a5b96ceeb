//! The form of an index, the same on disk and in memory.
//!
//! ```text
//! "lapstrake index 2\n"
//! u64 number of rows, then each: how much of its path is that of the row before, the rest of the path, the row
//!     a row: tag; for an entry also mode uid gid mtime [xattrs] kind [link]
//! u64 number of kept files, then each: path, bytes
//! 32 bytes: BLAKE3 of all before
//! ```
//!
//! Other numbers are of seven bits a byte, the lowest first, in as few bytes as hold them; texts and rows are framed by their length. Each
//! sixteenth row has its whole path, so that a search need not begin at the first. Equal indexes have equal bytes. Reading checks the
//! digest first and then trusts nothing: paths are canonical and strictly ascending, links name an earlier row with an
//! equal entry, lengths stay within the bytes that are there, and no other bytes would say the same.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use super::{BadIndex, ContentDigest, Entry, Kind, Meta, Row, TreePath, Xattrs, path::walk_order};

const MAGIC: &[u8] = b"lapstrake index 2\n";
const DIGEST: usize = 32;
/// No more than the kernel takes for a symbolic link's target.
const MAX_TARGET: usize = 4096;
/// The smallest row: nothing shared, an empty rest, one byte of row.
const MIN_ROW: usize = 4;
/// So many rows lie between two whole paths.
const BLOCK: usize = 16;

const WHITEOUT: u8 = 0;
const PUT: u8 = 1;
const LINK: u8 = 2;
const OPAQUE: u8 = 4;
const ATTRIBUTES: u8 = 8;

const FILE: u8 = 1;
const DIR: u8 = 2;
const SYMLINK: u8 = 3;
const CHAR: u8 = 4;
const BLOCK_DEVICE: u8 = 5;
const FIFO: u8 = 6;

pub(super) type Kept = BTreeMap<TreePath, Arc<[u8]>>;

/// Rows in their form, sorted; some sixty bytes for each file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// The form from its first byte on, as far as it is written.
    bytes: Vec<u8>,
    /// Where each block begins in it.
    blocks: Vec<usize>,
    count: usize,
    /// Where the rows end.
    end: usize,
    last: Vec<u8>,
}

impl Default for Table {
    fn default() -> Self {
        let bytes = [MAGIC, &[0; 8]].concat();
        Self { end: bytes.len(), bytes, blocks: Vec::new(), count: 0, last: Vec::new() }
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Would a row of this path be in order?
    pub(super) fn may_follow(&self, path: &[u8]) -> bool {
        self.count == 0 || walk_order(&self.last, path) == Ordering::Less
    }

    /// One more row. `false`: it would not be in order.
    pub(super) fn push(&mut self, path: &TreePath, row: &Row) -> bool {
        if !self.may_follow(path.as_bytes()) {
            return false;
        }
        let mut out = Writer(Vec::with_capacity(96));
        out.step(self.count, &self.last, path);
        out.row(row);
        if self.count.is_multiple_of(BLOCK) {
            self.blocks.push(self.bytes.len());
        }
        self.bytes.extend_from_slice(&out.0);
        self.end = self.bytes.len();
        self.count += 1;
        self.last.clear();
        self.last.extend_from_slice(path.as_bytes());
        true
    }

    /// Nothing comes any more: what was kept, and the digest.
    pub(super) fn seal(&mut self, kept: &Kept) {
        if let Some(count) = self.bytes.get_mut(MAGIC.len()..MAGIC.len() + 8) {
            count.copy_from_slice(&(self.count as u64).to_le_bytes());
        }
        let mut out = Writer(Vec::new());
        out.fixed(kept.len());
        for (path, bytes) in kept {
            out.text(path.as_bytes());
            out.text(bytes);
        }
        self.bytes.extend_from_slice(&out.0);
        let digest = blake3::hash(&self.bytes);
        self.bytes.extend_from_slice(digest.as_bytes());
        self.bytes.shrink_to_fit();
        self.last = Vec::new();
    }

    /// All of it, once it is sealed.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// From the first row on.
    pub(super) fn rows(&self) -> Cursor<'_> {
        self.block(0)
    }

    /// The rows from the last to the first.
    pub(super) fn rows_back(&self) -> impl Iterator<Item = (TreePath, Row)> {
        (0..self.blocks.len()).rev().flat_map(|number| self.block(number).take(BLOCK).collect::<Vec<_>>().into_iter().rev())
    }

    /// From the first row on whose path is not of those that are asked for, which are the first ones.
    pub(super) fn after(&self, is_before: impl Fn(&[u8]) -> bool) -> Cursor<'_> {
        let blocks = self.blocks.partition_point(|at| {
            let mut from = Reader(self.bytes.get(*at..self.end).unwrap_or_default());
            from.first_path().is_some_and(&is_before)
        });
        let mut cursor = self.block(blocks.saturating_sub(1));
        while cursor.path().is_some_and(&is_before) {
            cursor.skip_row();
        }
        cursor
    }

    /// The row of a path.
    pub(super) fn find(&self, path: &[u8]) -> Option<Row> {
        let mut cursor = self.after(|have| walk_order(have, path) == Ordering::Less);
        if cursor.path()? == path { cursor.next().map(|(_, row)| row) } else { None }
    }

    fn block(&self, number: usize) -> Cursor<'_> {
        let from = self.blocks.get(number).and_then(|at| self.bytes.get(*at..self.end)).unwrap_or_default();
        Cursor { from: Reader(from), path: Vec::new(), at_row: false }
    }
}

/// A place between two rows.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    from: Reader<'a>,
    /// Of the row before, or of the next one, if that is read already.
    path: Vec<u8>,
    at_row: bool,
}

impl<'a> Cursor<'a> {
    /// The path of the next row.
    pub(super) fn path(&mut self) -> Option<&[u8]> {
        if !self.at_row {
            if self.from.0.is_empty() {
                return None;
            }
            let shared = self.from.size().ok()?;
            let rest = self.from.text().ok()?;
            self.path.truncate(shared);
            self.path.extend_from_slice(rest);
            self.at_row = true;
        }
        Some(&self.path)
    }

    /// Goes on behind it.
    pub(super) fn skip_row(&mut self) {
        let _row = self.row_bytes();
    }

    fn row_bytes(&mut self) -> Option<&'a [u8]> {
        let _path: &[u8] = self.path()?;
        self.at_row = false;
        self.from.text().ok()
    }
}

impl Iterator for Cursor<'_> {
    type Item = (TreePath, Row);

    fn next(&mut self) -> Option<Self::Item> {
        let row = Reader(self.row_bytes()?).row().ok()?;
        Some((TreePath::parse(&self.path).ok()?, row))
    }
}

/// Reads the form; the bytes are kept as they are.
pub(super) fn decode(bytes: Vec<u8>) -> Result<(Table, Kept), BadIndex> {
    let (body, digest) = bytes.split_last_chunk::<DIGEST>().ok_or_else(|| bad("too short"))?;
    if blake3::hash(body).as_bytes() != digest {
        return Err(bad("its digest does not fit its bytes"));
    }
    let length = body.len();
    let mut from = Reader(body.strip_prefix(MAGIC).ok_or_else(|| bad("not of a version that is known"))?);
    let count = from.fixed_count(MIN_ROW)?;
    let mut at = length - from.0.len();
    let mut table = Table { bytes, blocks: Vec::with_capacity(count.div_ceil(BLOCK)), count: 0, end: at, last: Vec::new() };
    for _ in 0..count {
        let (path, row, after) = table.next_row(at, length)?;
        table.check(&path, &row)?;
        if table.count.is_multiple_of(BLOCK) {
            table.blocks.push(at);
        }
        table.count += 1;
        table.last = path.as_bytes().to_vec();
        (at, table.end) = (after, after);
    }
    let kept = table.kept(at, length)?;
    table.last = Vec::new();
    Ok((table, kept))
}

fn bad(reason: impl Into<String>) -> BadIndex {
    BadIndex { reason: reason.into() }
}

impl Table {
    /// The row that begins at a byte, and where it ends.
    fn next_row(&self, at: usize, length: usize) -> Result<(TreePath, Row, usize), BadIndex> {
        let bytes = self.bytes.get(at..length).unwrap_or_default();
        let mut from = Reader(bytes);
        let shared = from.size()?;
        let rest = from.text()?;
        let text = [self.last.get(..shared).ok_or_else(|| bad("a path that goes on where none was"))?, rest].concat();
        let path = canonical(&text)?;
        if !self.may_follow(&text) {
            return Err(bad(format!("`{path}` is not in order")));
        }
        let mut inside = Reader(from.text()?);
        let row = inside.row()?;
        let used = bytes.len() - from.0.len();
        let mut again = Writer(Vec::with_capacity(used));
        again.step(self.count, &self.last, &path);
        again.row(&row);
        if bytes.get(..used) == Some(&again.0) {
            Ok((path, row, at + used))
        } else {
            Err(bad(format!("`{path}` is not written as it should be")))
        }
    }

    /// What a row may be, given those before it.
    fn check(&self, path: &TreePath, row: &Row) -> Result<(), BadIndex> {
        let Row::Put { entry, link, opaque } = row else {
            return if path.is_root() { Err(bad("the root is gone")) } else { Ok(()) };
        };
        if (path.is_root() || *opaque) && entry.kind != Kind::Dir {
            return Err(bad(format!("`{path}` is not a directory")));
        }
        if entry.meta.mode & !0o7777 != 0 {
            return Err(bad("a mode with more than permissions"));
        }
        if entry.meta.xattrs.keys().any(|name| name != b"security.capability" && !name.starts_with(b"user.")) {
            return Err(bad("an attribute that is never in a tree"));
        }
        if let Kind::Symlink { target } = &entry.kind
            && (target.is_empty() || target.len() > MAX_TARGET || target.contains(&0))
        {
            return Err(bad("a link without a target"));
        }
        let Some(first) = link else { return Ok(()) };
        match self.find(first.as_bytes()) {
            Some(Row::Put { entry: same, link: None, .. }) if same == *entry && entry.kind != Kind::Dir => Ok(()),
            Some(Row::Put { .. } | Row::Whiteout) | None => Err(bad(format!("`{path}` is a link to `{first}`, which is not the same"))),
        }
    }

    fn kept(&self, at: usize, length: usize) -> Result<Kept, BadIndex> {
        let mut from = Reader(self.bytes.get(at..length).unwrap_or_default());
        let mut kept = Kept::new();
        for _ in 0..from.fixed_count(2)? {
            let (path, bytes) = (canonical(from.text()?)?, from.text()?);
            match self.find(path.as_bytes()) {
                Some(Row::Put { entry: Entry { kind: Kind::File { content, .. }, .. }, .. }) if content == ContentDigest::of(bytes) => {}
                Some(Row::Put { .. } | Row::Whiteout) | None => return Err(bad(format!("the bytes kept of `{path}` are not its content"))),
            }
            if kept.last_key_value().is_some_and(|(last, _)| *last >= path) {
                return Err(bad(format!("the bytes kept of `{path}` are not in order")));
            }
            drop(kept.insert(path, Arc::from(bytes)));
        }
        if from.0.is_empty() { Ok(kept) } else { Err(bad("more bytes than rows")) }
    }
}

fn canonical(text: &[u8]) -> Result<TreePath, BadIndex> {
    TreePath::exactly(text).map_err(|error| bad(error.to_string()))
}

struct Writer(Vec<u8>);

impl Writer {
    /// From the path before to the next one.
    fn step(&mut self, number: usize, last: &[u8], path: &TreePath) {
        let path = path.as_bytes();
        let shared = if number.is_multiple_of(BLOCK) { 0 } else { path.iter().zip(last).take_while(|(a, b)| a == b).count() };
        self.number(shared as u64);
        self.text(path.get(shared..).unwrap_or_default());
    }

    fn fixed(&mut self, number: usize) {
        self.0.extend_from_slice(&(number as u64).to_le_bytes());
    }

    fn number(&mut self, mut number: u64) {
        loop {
            let [low, ..] = (number & 0x7f).to_le_bytes();
            number >>= 7;
            self.0.push(if number == 0 { low } else { low | 0x80 });
            if number == 0 {
                return;
            }
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text);
    }

    fn row(&mut self, row: &Row) {
        let mut out = Self(Vec::with_capacity(64));
        match row {
            Row::Whiteout => out.0.push(WHITEOUT),
            Row::Put { entry, link, opaque } => {
                let flag = |set: bool, flag: u8| if set { flag } else { 0 };
                let attributes = flag(!entry.meta.xattrs.is_empty(), ATTRIBUTES);
                out.0.push(PUT | flag(link.is_some(), LINK) | flag(*opaque, OPAQUE) | attributes);
                out.entry(entry);
                if let Some(first) = link {
                    out.text(first.as_bytes());
                }
            }
        }
        self.text(&out.0);
    }

    fn entry(&mut self, entry: &Entry) {
        let Meta { mode, uid, gid, mtime, xattrs } = &entry.meta;
        for number in [mode, uid, gid] {
            self.number(u64::from(*number));
        }
        // Small numbers stay small, whatever their sign.
        self.number((mtime.wrapping_shl(1) ^ (mtime >> 63)).cast_unsigned());
        if !xattrs.is_empty() {
            self.number(xattrs.len() as u64);
        }
        for (name, value) in xattrs {
            self.text(name);
            self.text(value);
        }
        match &entry.kind {
            Kind::File { size, content } => {
                self.0.push(FILE);
                self.number(*size);
                self.0.extend_from_slice(&content.0);
            }
            Kind::Dir => self.0.push(DIR),
            Kind::Symlink { target } => {
                self.0.push(SYMLINK);
                self.text(target);
            }
            Kind::Char { major, minor } => self.device(CHAR, *major, *minor),
            Kind::Block { major, minor } => self.device(BLOCK_DEVICE, *major, *minor),
            Kind::Fifo => self.0.push(FIFO),
        }
    }

    fn device(&mut self, tag: u8, major: u32, minor: u32) {
        self.0.push(tag);
        self.number(u64::from(major));
        self.number(u64::from(minor));
    }
}

#[derive(Debug, Clone)]
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

    fn number(&mut self) -> Result<u64, BadIndex> {
        let (mut number, mut shift) = (0_u64, 0_u32);
        loop {
            let byte = self.byte()?;
            number |=
                u64::from(byte & 0x7f).checked_shl(shift).filter(|_| shift < 63 || byte <= 1).ok_or_else(|| bad("a number too large"))?;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 { Err(bad("a number longer than it need be")) } else { Ok(number) };
            }
            shift += 7;
        }
    }

    fn word(&mut self) -> Result<u32, BadIndex> {
        u32::try_from(self.number()?).map_err(|_large| bad("a number too large"))
    }

    fn size(&mut self) -> Result<usize, BadIndex> {
        usize::try_from(self.number()?).map_err(|_large| bad("a number too large"))
    }

    /// A number of things of at least `least` bytes each: never more than the bytes left can hold.
    fn fixed_count(&mut self, least: usize) -> Result<usize, BadIndex> {
        let count = usize::try_from(u64::from_le_bytes(self.fixed()?)).map_err(|_large| bad("a count too large"))?;
        if count > self.0.len() / least { Err(bad("a count larger than its bytes")) } else { Ok(count) }
    }

    fn text(&mut self) -> Result<&'a [u8], BadIndex> {
        let length = self.size()?;
        self.take(length)
    }

    /// The path of a block's first row.
    fn first_path(&mut self) -> Option<&'a [u8]> {
        let _nothing_shared = self.number().ok()?;
        self.text().ok()
    }

    fn row(&mut self) -> Result<Row, BadIndex> {
        let tag = self.byte()?;
        if tag == WHITEOUT {
            return Ok(Row::Whiteout);
        }
        if tag & PUT == 0 || tag & !(PUT | LINK | OPAQUE | ATTRIBUTES) != 0 {
            return Err(bad("an unknown kind of row"));
        }
        let entry = self.entry(tag & ATTRIBUTES != 0)?;
        let link = if tag & LINK == 0 { None } else { Some(canonical(self.text()?)?) };
        Ok(Row::Put { entry, link, opaque: tag & OPAQUE != 0 })
    }

    fn entry(&mut self, attributes: bool) -> Result<Entry, BadIndex> {
        let (mode, uid, gid) = (self.word()?, self.word()?, self.word()?);
        let time = self.number()?;
        let mtime = (time >> 1).cast_signed() ^ -(time & 1).cast_signed();
        let mut xattrs = Xattrs::new();
        for _ in 0..if attributes { self.number()? } else { 0 } {
            drop(xattrs.insert(self.text()?.to_vec(), self.text()?.to_vec()));
        }
        Ok(Entry { meta: Meta { mode, uid, gid, mtime, xattrs }, kind: self.kind()? })
    }

    fn kind(&mut self) -> Result<Kind, BadIndex> {
        Ok(match self.byte()? {
            FILE => Kind::File { size: self.number()?, content: ContentDigest(self.fixed()?) },
            DIR => Kind::Dir,
            SYMLINK => Kind::Symlink { target: self.text()?.to_vec() },
            CHAR => Kind::Char { major: self.word()?, minor: self.word()? },
            BLOCK_DEVICE => Kind::Block { major: self.word()?, minor: self.word()? },
            FIFO => Kind::Fifo,
            _ => return Err(bad("an unknown kind of entry")),
        })
    }
}

#[cfg(test)]
mod tests;
