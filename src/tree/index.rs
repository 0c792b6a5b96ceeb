//! The index of one layer: a sorted table, and its form on disk.

use std::{collections::BTreeMap, sync::Arc};

use super::{Entry, TreePath, form, path::walk_order};

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
    pub fn link(&self) -> Option<&TreePath> {
        match self {
            Self::Put { link, .. } => link.as_ref(),
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
/// `--chown=name` needs no tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    rows: Vec<(TreePath, Row)>,
    kept: BTreeMap<TreePath, Arc<[u8]>>,
}

impl Index {
    /// The row of a path.
    pub fn row(&self, path: &TreePath) -> Option<&Row> {
        self.row_at(path.as_bytes())
    }

    /// The row of a path given by its bytes.
    pub(super) fn row_at(&self, path: &[u8]) -> Option<&Row> {
        let at = self.rows.binary_search_by(|(have, _)| walk_order(have.as_bytes(), path)).ok()?;
        self.rows.get(at).map(|(_, row)| row)
    }

    /// The rows of what is directly in `dir`, in order. It steps over what lies deeper: a search for each child, not a walk.
    pub fn children<'a>(&'a self, dir: &TreePath) -> impl Iterator<Item = (&'a TreePath, &'a Row)> + use<'a> {
        let from = self.rows.partition_point(|(path, _)| path <= dir);
        let rest = self.rows.get(from..).unwrap_or_default();
        let mut rest = rest.get(..rest.partition_point(|(path, _)| path.is_within(dir))).unwrap_or_default();
        let depth = dir.components().count() + 1;
        std::iter::from_fn(move || {
            loop {
                let ((path, row), tail) = rest.split_first()?;
                rest = tail;
                if path.components().count() == depth {
                    // Everything below this child follows it directly.
                    let deeper = if tail.first().is_some_and(|(next, _)| next.is_within(path)) {
                        tail.partition_point(|(next, _)| next.is_within(path))
                    } else {
                        0
                    };
                    rest = tail.get(deeper..).unwrap_or_default();
                    return Some((path, row));
                }
            }
        })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Is there no row?
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Does it remove anything of the layers beneath?
    pub fn has_whiteouts(&self) -> bool {
        self.rows.iter().any(|(_, row)| *row == Row::Whiteout)
    }

    /// All rows in order.
    pub fn rows(&self) -> impl Iterator<Item = (&TreePath, &Row)> {
        self.rows.iter().map(|(path, row)| (path, row))
    }

    /// The rows of `dir` and of what is below it, in order.
    pub fn rows_within(&self, dir: &TreePath) -> impl Iterator<Item = (&TreePath, &Row)> {
        let from = self.rows.partition_point(|(path, _)| path < dir);
        let dir = dir.clone();
        self.rows.get(from..).unwrap_or_default().iter().take_while(move |(path, _)| path.is_within(&dir)).map(|(path, row)| (path, row))
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
    pub fn encode(&self) -> Vec<u8> {
        form::encode(&self.rows, &self.kept)
    }

    /// Reads the form on disk; never trusts it.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadIndex> {
        let (rows, kept) = form::decode(bytes)?;
        Ok(Self { rows, kept })
    }
}

/// Collects rows in any order; a later row of a path replaces an earlier one.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    rows: BTreeMap<TreePath, Row>,
    kept: BTreeMap<TreePath, Arc<[u8]>>,
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
        Index { rows: self.rows.into_iter().collect(), kept: self.kept }
    }
}
