//! What COPY selected: entries with their metadata and the digests of their bytes, complete before a key is asked for.

use std::{collections::BTreeSet, sync::Arc};

use super::{Error, Inode, rows::Rows};
use crate::{
    layer::Content,
    tree::{ContentDigest, Moments, TreePath, Xattrs},
};

/// What one COPY or ADD takes, in the order of its sources.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub(super) items: Vec<Item>,
}

/// What a key holds of a selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SelectionDigest(pub [u8; 32]);

impl AsRef<[u8]> for SelectionDigest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What a key holds of one path, in parts, to tell later what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// As the instruction names it, with what is below.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `file`, `dir`, `symlink`, `char`, `block` or `fifo`.
    pub kind: &'static str,
    /// The digest of a file's bytes, a link's target, a device's numbers.
    pub content: Vec<u8>,
    /// Names and values, each behind its length; empty: none.
    pub attributes: Vec<u8>,
}

/// One source, or one match of a pattern.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// The last component of the source as written or matched; empty for a root.
    pub(super) name: Vec<u8>,
    /// What messages call it.
    pub(super) shown: String,
    /// Names of one inode are linked within the items of one source only.
    pub(super) source: usize,
    /// Not unpacked, whatever it is.
    pub(super) as_it_is: bool,
    pub(super) what: Taken,
}

/// What an item puts at the destination.
#[derive(Debug, Clone)]
pub(super) enum Taken {
    /// Something that is no directory.
    One(Box<Row>),
    /// What a directory holds; its own metadata is not taken.
    Contents(Arc<Rows>),
}

/// An entry.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Where it is in its source.
    pub(super) from: TreePath,
    /// Below the directory that is copied; the root for [`Taken::One`].
    pub(super) path: TreePath,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// `None`: when the step began.
    pub(super) mtime: Option<i64>,
    pub(super) xattrs: Xattrs,
    pub(super) node: Taking,
}

/// What an entry is.
#[derive(Debug, Clone)]
pub(super) enum Taking {
    File {
        size: u64,
        digest: ContentDigest,
        inode: Option<Inode>,
        content: Option<Content>,
    },
    /// `on_the_way`: not selected itself, but something below it is.
    Dir {
        on_the_way: bool,
    },
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// The version of what is hashed.
const SCHEMA: &[u8] = b"lapstrake selection 2";

impl Selection {
    /// A file whose bytes stand in the Dockerfile: mode 0644, root's.
    pub fn inline(name: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes: Arc<[u8]> = bytes.into();
        let node =
            Taking::File { size: bytes.len() as u64, digest: ContentDigest::of(&bytes), inode: None, content: Some(Content::Bytes(bytes)) };
        let row =
            Row { from: TreePath::root(), path: TreePath::root(), mode: 0o644, uid: 0, gid: 0, mtime: None, xattrs: Xattrs::new(), node };
        let item =
            Item { name: name.as_bytes().to_vec(), shown: name.to_owned(), source: 0, as_it_is: false, what: Taken::One(Box::new(row)) };
        Self { items: vec![item] }
    }

    /// This selection, then the other: the sources of one instruction that come from several places.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        let next = self.items.last().map_or(0, |item| item.source + 1);
        self.items.extend(other.items.into_iter().map(|item| Item { source: item.source + next, ..item }));
        self
    }

    /// The same, and ADD unpacks no archive in it.
    #[must_use]
    pub fn as_it_is(mut self) -> Self {
        self.items.iter_mut().for_each(|item| item.as_it_is = true);
        self
    }

    /// Is there nothing in it: only patterns that match nothing?
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The times of modification of what is in it, in seconds since 1970; what has the step's own is left out.
    pub fn times(&self) -> Result<Moments, Error> {
        let (mut all, mut some) = (Moments::default(), BTreeSet::new());
        for row in self.rows() {
            some.extend(row?.mtime);
            if some.len() > Moments::MOST {
                all = all.and(&std::mem::take(&mut some).into_iter().collect());
            }
        }
        Ok(all.and(&some.into_iter().collect()))
    }

    fn rows(&self) -> impl Iterator<Item = Result<Row, Error>> {
        self.items.iter().flat_map(|item| {
            let (one, all) = match &item.what {
                Taken::One(row) => (Some(Ok(Row::clone(row))), None),
                Taken::Contents(rows) => (None, Some(rows.iter())),
            };
            one.into_iter().chain(all.into_iter().flatten())
        })
    }

    /// What a key holds of it. Of a source's path only the last component counts, and of a directory that is copied not its
    /// own metadata; no times; which names are links of one inode does not count.
    pub fn digest(&self) -> Result<SelectionDigest, Error> {
        let mut stream = Stream::new();
        for item in &self.items {
            match &item.what {
                Taken::One(row) => stream.one(&item.name, item.as_it_is, row),
                Taken::Contents(rows) => {
                    stream.begin();
                    for row in rows.iter() {
                        stream.row(&row?);
                    }
                    stream.end();
                }
            }
        }
        Ok(stream.finish())
    }

    /// Hands on each selected path with what is in the key of it.
    pub fn tell<E: From<Error>>(&self, take: &mut dyn FnMut(Told) -> Result<(), E>) -> Result<(), E> {
        for item in &self.items {
            match &item.what {
                Taken::One(row) => take(row.told(item.shown.clone()))?,
                Taken::Contents(rows) => {
                    let top = item.shown.trim_end_matches('/');
                    for row in rows.iter() {
                        let row = row?;
                        let below = String::from_utf8_lossy(row.path.as_bytes());
                        let path = if matches!(top, "" | ".") { below.into_owned() } else { format!("{top}/{below}") };
                        take(row.told(path))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// [`Selection::digest`], taken while a selection is made.
pub(super) struct Stream(blake3::Hasher);

impl Stream {
    pub(super) fn new() -> Self {
        let mut hasher = blake3::Hasher::new();
        field(&mut hasher, SCHEMA);
        Self(hasher)
    }

    /// Something that is no directory.
    pub(super) fn one(&mut self, name: &[u8], as_it_is: bool, row: &Row) {
        field(&mut self.0, if as_it_is { b"as it is" } else { b"one" });
        field(&mut self.0, name);
        row.hash(&mut self.0);
    }

    /// A directory, of which only the contents are copied: its name is nowhere in the result.
    pub(super) fn begin(&mut self) {
        field(&mut self.0, b"all");
    }

    pub(super) fn row(&mut self, row: &Row) {
        field(&mut self.0, b"row");
        field(&mut self.0, row.path.as_bytes());
        row.hash(&mut self.0);
    }

    pub(super) fn end(&mut self) {
        field(&mut self.0, b"end");
    }

    pub(super) fn finish(self) -> SelectionDigest {
        SelectionDigest(*self.0.finalize().as_bytes())
    }
}

impl Row {
    fn hash(&self, hasher: &mut blake3::Hasher) {
        for number in [self.mode, self.uid, self.gid] {
            field(hasher, &number.to_le_bytes());
        }
        match &self.node {
            Taking::File { size, digest, .. } => {
                field(hasher, b"file");
                field(hasher, &size.to_le_bytes());
                field(hasher, &digest.0);
            }
            Taking::Dir { on_the_way } => field(hasher, if *on_the_way { b"way" } else { b"dir" }),
            Taking::Symlink(target) => {
                field(hasher, b"link");
                field(hasher, target);
            }
            Taking::Char(major, minor) | Taking::Block(major, minor) => {
                field(hasher, if matches!(self.node, Taking::Char(..)) { b"char" } else { b"block" });
                field(hasher, &major.to_le_bytes());
                field(hasher, &minor.to_le_bytes());
            }
            Taking::Fifo => field(hasher, b"fifo"),
        }
        field(hasher, &(self.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &self.xattrs {
            field(hasher, name);
            field(hasher, value);
        }
    }

    fn told(&self, path: String) -> Told {
        let (kind, content) = match &self.node {
            Taking::File { digest, .. } => ("file", digest.0.to_vec()),
            Taking::Dir { .. } => ("dir", Vec::new()),
            Taking::Symlink(target) => ("symlink", target.clone()),
            Taking::Char(major, minor) => ("char", format!("{major}:{minor}").into_bytes()),
            Taking::Block(major, minor) => ("block", format!("{major}:{minor}").into_bytes()),
            Taking::Fifo => ("fifo", Vec::new()),
        };
        let mut attributes = Vec::new();
        for bytes in self.xattrs.iter().flat_map(|(name, value)| [name, value]) {
            attributes.extend((bytes.len() as u64).to_le_bytes());
            attributes.extend(bytes);
        }
        Told { path, mode: self.mode, uid: self.uid, gid: self.gid, kind, content, attributes }
    }
}

/// Framed by its length, so that no two lists of fields give the same bytes.
fn field(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    let _: &mut blake3::Hasher = hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}
