//! Several layers as one tree.

use std::sync::Arc;

use super::{Entry, Index, TreePath};

/// The indexes of an image's layers, base first.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    layers: Vec<Arc<Index>>,
}

/// A path of the merged tree.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The layer that holds it, counted from the base.
    pub layer: usize,
    /// What it is.
    pub entry: &'a Entry,
    /// The first name of its inode within that layer, if it is not itself.
    pub link: Option<&'a TreePath>,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// More than 255 links were followed.
    #[error("too many levels of symbolic links at `{0}`")]
    Loop(TreePath),
    /// A component in the middle is neither a directory nor a link to one.
    #[error("`{0}` is not a directory")]
    NotADirectory(TreePath),
    /// A link's target cannot be a path.
    #[error("the symbolic link `{0}` has a target that is no path")]
    BadTarget(TreePath),
}

impl Chain {
    /// No layer: an empty root.
    pub fn new(layers: Vec<Arc<Index>>) -> Self {
        Self { layers }
    }

    /// This chain with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: Arc<Index>) -> Self {
        let mut layers = self.layers.clone();
        layers.push(layer);
        Self { layers }
    }

    /// The layers, base first.
    pub fn layers(&self) -> &[Arc<Index>] {
        &self.layers
    }

    /// What the merged tree has at a path, no link followed. The root is always there when asked for by
    /// [`Chain::resolve`], but has an entry only if a layer gives it one.
    pub fn look_up(&self, path: &TreePath) -> Option<Found<'_>> {
        let _ = path;
        None
    }

    /// The names in a directory of the merged tree, sorted. Empty for what is no directory.
    pub fn names(&self, dir: &TreePath) -> Vec<Vec<u8>> {
        let _ = dir;
        Vec::new()
    }

    /// The path with every link in its directories followed inside the root, and the last component's too if
    /// `follow_last`. What does not exist is taken as it is written.
    pub fn resolve(&self, path: &TreePath, follow_last: bool) -> Result<TreePath, Unresolved> {
        let _ = follow_last;
        Ok(path.clone())
    }

    /// The bytes of a kept file (`etc/passwd`, `etc/group`) of the merged tree, links followed. `None`: it is not there, or not regular.
    pub fn kept(&self, path: &TreePath) -> Option<Arc<[u8]>> {
        let _ = path;
        None
    }
}
