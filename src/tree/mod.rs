//! What a file tree is, as data.
//!
//! An [`Index`] is the sorted table of what one layer holds; a [`Chain`] is several of them, base first, and
//! answers what the merged tree looks like without a tree on disk. Nothing here touches a file: an index
//! reads and writes its own bytes only.

pub mod census;
mod chain;
mod form;
mod index;
mod moments;
mod owner;
mod path;

pub use chain::{Chain, Found, Unresolved};
pub(crate) use chain::{Step, resolve_with};
pub use index::{BadIndex, Index, IndexBuilder, IndexWriter, Row, Unfit};
pub use moments::Moments;
pub use owner::{Inode, MARK, Owner, OwnerTable};
pub use path::{BadPath, TreePath, walk_order};

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// The BLAKE3 of a file's bytes: the digest of keys and indexes, never seen outside of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentDigest(pub [u8; 32]);

impl ContentDigest {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

/// Extended attributes by name. Only `security.capability` (version 2 form) and `user.*` are ever in a tree.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What every entry has. Ids are the image's own, as seen inside the user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Permission bits, 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Whole seconds since 1970.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// Of its bytes.
        content: ContentDigest,
    },
    /// A directory.
    Dir,
    /// A symbolic link; the target byte for byte, never empty.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One path's metadata and kind. Two names of one inode have equal entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Owner, mode, time, attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}
