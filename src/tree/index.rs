//! The index of one layer: a sorted table, and its form on disk.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Entry, Kind, TreePath,
    form::{self, Kept, Table},
    path::walk_order,
};

/// What one layer says of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// It is there.
    Put {
        /// What it is. Equal for all names of one inode.
        entry: Entry,
        /// For the second and later names of an inode: the first, in the order of paths.
        link: Option<TreePath>,
        /// A directory that hides what lower layers have below it.
        opaque: bool,
    },
    /// What lower layers have there is gone.
    Whiteout,
}

impl Row {
    /// The first name of its inode, if it is a later one.
    pub fn into_link(self) -> Option<TreePath> {
        match self {
            Self::Put { link, .. } => link,
            Self::Whiteout => None,
        }
    }
}

/// Bytes that are no index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a tree index: {reason}")]
pub struct BadIndex {
    /// What is wrong.
    pub reason: String,
}

/// The sorted table of what one layer holds. It also keeps the bytes of `etc/passwd` and `etc/group`, so that
/// `--chown=name` needs no tree. In memory it is as on disk, some sixty bytes for each file: rows are values, made when they are
/// asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Sealed.
    rows: Table,
    kept: Kept,
}

impl Default for Index {
    fn default() -> Self {
        IndexBuilder::default().finish()
    }
}

impl Index {
    /// The row of a path.
    pub fn row(&self, path: &TreePath) -> Option<Row> {
        self.row_at(path.as_bytes())
    }

    /// The row of a path given by its bytes.
    pub(super) fn row_at(&self, path: &[u8]) -> Option<Row> {
        self.rows.find(path)
    }

    /// The rows of what is directly in `dir`, in order. It steps over what lies deeper: a search for each child, not a walk.
    pub fn children<'a>(&'a self, dir: &TreePath) -> impl Iterator<Item = (TreePath, Row)> + use<'a> {
        let mut rest = self.rows.after(|path| walk_order(path, dir.as_bytes()) != Ordering::Greater);
        let (dir, depth) = (dir.clone(), dir.components().count() + 1);
        std::iter::from_fn(move || {
            let (path, row) = loop {
                let (path, row) = rest.next().filter(|(path, _)| path.is_within(&dir))?;
                if path.components().count() == depth {
                    break (path, row);
                }
            };
            // Everything below this child follows it directly.
            if rest.path().is_some_and(|next| within(next, path.as_bytes())) {
                rest = self.rows.after(|have| walk_order(have, path.as_bytes()) != Ordering::Greater || within(have, path.as_bytes()));
            }
            Some((path, row))
        })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Is there no row?
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }

    /// Does it remove anything of the layers beneath?
    pub fn has_whiteouts(&self) -> bool {
        self.rows().any(|(_, row)| row == Row::Whiteout)
    }

    /// All rows in order.
    pub fn rows(&self) -> impl Iterator<Item = (TreePath, Row)> {
        self.rows.rows()
    }

    /// All rows, the last first: what is in a directory before it.
    pub fn rows_back(&self) -> impl Iterator<Item = (TreePath, Row)> {
        self.rows.rows_back()
    }

    /// The rows of `dir` and of what is below it, in order.
    pub fn rows_within(&self, dir: &TreePath) -> impl Iterator<Item = (TreePath, Row)> {
        let dir = dir.clone();
        self.rows.after(|path| walk_order(path, dir.as_bytes()) == Ordering::Less).take_while(move |(path, _)| path.is_within(&dir))
    }

    /// The bytes that were kept of a small file (`etc/passwd`, `etc/group`).
    pub fn kept(&self, path: &TreePath) -> Option<&Arc<[u8]>> {
        self.kept.get(path)
    }

    /// All kept bytes by path.
    pub fn all_kept(&self) -> impl Iterator<Item = (&TreePath, &Arc<[u8]>)> {
        self.kept.iter()
    }

    /// The form on disk; it ends with a digest of itself.
    pub fn encode(&self) -> &[u8] {
        self.rows.bytes()
    }

    /// Reads the form on disk; never trusts it.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, BadIndex> {
        let (rows, kept) = form::decode(bytes)?;
        Ok(Self { rows, kept })
    }
}

/// How many bytes of a row are those of its inode's first name.
fn repeated(row: &Row) -> usize {
    let Row::Put { entry, link: Some(first), .. } = row else { return 0 };
    let target = if let Kind::Symlink { target } = &entry.kind { target.len() } else { 0 };
    let attributes: usize = entry.meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    first.as_bytes().len() + target + attributes
}

/// Is a path below another one, by their bytes?
fn within(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Collects rows in any order; a later row of a path replaces an earlier one.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    rows: BTreeMap<TreePath, Row>,
    kept: Kept,
}

impl IndexBuilder {
    /// The row so far.
    pub fn row(&self, path: &TreePath) -> Option<&Row> {
        self.rows.get(path)
    }

    /// Sets a row.
    pub fn put(&mut self, path: TreePath, row: Row) {
        drop(self.rows.insert(path, row));
    }

    /// Removes a path and all below it, as if the layer had never had them.
    pub fn remove(&mut self, path: &TreePath) {
        let gone: Vec<TreePath> =
            self.rows.range(path.clone()..).map(|(have, _)| have.clone()).take_while(|have| have.is_within(path)).collect();
        for each in gone {
            drop(self.rows.remove(&each));
            drop(self.kept.remove(&each));
        }
    }

    /// Keeps a small file's bytes.
    pub fn keep(&mut self, path: TreePath, bytes: Arc<[u8]>) {
        drop(self.kept.insert(path, bytes));
    }

    /// The finished table.
    pub fn finish(self) -> Index {
        let mut rows = Table::default();
        for (path, row) in self.rows {
            // A map has each once, in order.
            let _in_order: bool = rows.push(&path, &row);
        }
        rows.seal(&self.kept);
        Index { rows, kept: self.kept }
    }
}

/// Why a row cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// What comes after it is there already.
    Late,
    /// Further names of inodes have the attributes and targets of the first, and that one's path. These would be more bytes than an
    /// index may be made to hold by a name that takes none.
    Repeats,
}

impl Unfit {
    /// In words that follow the path.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Late => "it comes after what follows it",
            Self::Repeats => "hard links as it is one repeat more than any layer may hold",
        }
    }
}

/// In bytes. A million hard links repeat a hundred or two each.
const MOST_REPEATED: usize = 160 << 20;

/// Takes rows in the order of paths; whiteouts may come before their turn.
#[derive(Debug, Default)]
pub struct IndexWriter {
    rows: Table,
    ahead: BTreeSet<TreePath>,
    kept: Kept,
    /// Bytes in the rows of further names that the first name's has.
    repeated: usize,
}

impl IndexWriter {
    /// The row so far.
    pub fn row(&self, path: &TreePath) -> Option<Row> {
        if self.ahead.contains(path) { Some(Row::Whiteout) } else { self.rows.find(path.as_bytes()) }
    }

    /// One more row.
    pub fn put(&mut self, path: &TreePath, row: &Row) -> Result<(), Unfit> {
        while let Some(first) = self.ahead.first()
            && first < path
            && let Some(first) = self.ahead.pop_first()
        {
            self.push(&first, &Row::Whiteout)?;
        }
        self.repeated = self.repeated.saturating_add(repeated(row));
        if self.repeated > MOST_REPEATED {
            return Err(Unfit::Repeats);
        }
        if self.ahead.contains(path) { Err(Unfit::Late) } else { self.push(path, row) }
    }

    fn push(&mut self, path: &TreePath, row: &Row) -> Result<(), Unfit> {
        if self.rows.push(path, row) { Ok(()) } else { Err(Unfit::Late) }
    }

    /// What is gone.
    pub fn whiteout(&mut self, path: TreePath) -> Result<(), Unfit> {
        if !self.rows.may_follow(path.as_bytes()) {
            return Err(Unfit::Late);
        }
        let _new: bool = self.ahead.insert(path);
        Ok(())
    }

    /// Keeps a small file's bytes.
    pub fn keep(&mut self, path: TreePath, bytes: Arc<[u8]>) {
        drop(self.kept.insert(path, bytes));
    }

    /// The finished table.
    pub fn finish(mut self) -> Index {
        for path in std::mem::take(&mut self.ahead) {
            // What comes too late is not among them.
            let _in_order: bool = self.rows.push(&path, &Row::Whiteout);
        }
        self.rows.seal(&self.kept);
        Index { rows: self.rows, kept: self.kept }
    }
}
