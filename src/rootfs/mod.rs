//! The tree of a stage as data: what COPY, ADD and WORKDIR do to it, by its chain of indexes. No path is ever joined to a
//! host path: destinations are resolved in the indexes, so a link in an image leads nowhere else than inside of it.
//!
//! ```text
//! Source ─select(CopySpec)→ Selection ─digest→ key
//!                               └─Draft::apply(Placement)→ Draft ─finish→ Changes ─layer::write→ Layer
//! ```
//!
//! A [`Selection`] is complete before a key is asked for: which entries, their metadata and the digests of their bytes. A
//! [`Draft`] holds changes as data; nothing is written before [`crate::layer::write`] reads the contents.
//!
//! Source: BuildKit `frontend/dockerfile/dockerfile2llb/convert_copy.go`, `solver/llbsolver/file/backend.go`; fsutil
//! `copy/copy.go`, by behaviour.

pub mod account;
mod draft;
mod laid;
mod mode;
mod place;
mod rows;
mod select;
mod selection;
mod trees;
mod unpack;

use std::fmt;

pub use draft::Draft;
pub use mode::{BadMode, ModeChange};
pub use place::Placement;
pub use select::{CopySpec, digest, select};
pub use selection::{Selection, SelectionDigest, Told};
pub use trees::Tree;
pub use unpack::Spool;

use crate::{
    context::{self, Context},
    layer::Content,
    pattern::BadPattern,
    sys::dir::FileKind,
    tree::{BadPath, ContentDigest, Step, TreePath, Unresolved, Xattrs, resolve_with},
};

/// The shape of a source entry, as lstat gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A regular file; `inode` is equal for names of one inode, `None` for what surely has one name.
    File {
        /// In bytes.
        size: u64,
        /// Identity within the source.
        inode: Option<Inode>,
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

/// Which inode a name has, within its source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Inode {
    /// Device and number.
    Disk(u64, u64),
    /// A layer, and the inode's first name in it.
    Layer(usize, TreePath),
}

/// What a source has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Permission bits, 0o7777.
    pub mode: u32,
    /// Owner; 0 for files of a context.
    pub uid: u32,
    /// Group; 0 for files of a context.
    pub gid: u32,
    /// Whole seconds since 1970.
    pub mtime: i64,
    /// What it is.
    pub shape: Shape,
}

/// Where COPY takes from: a context directory, or the tree of a stage or image.
pub trait Source: Sync {
    /// What messages call it: `the build context`, ``stage `build` ``.
    fn name(&self) -> String;
    /// What is at a path, no link followed. `None`: nothing, or ignored.
    fn look_up(&self, path: &TreePath) -> Result<Option<Seen>, Error>;
    /// The names in a directory, sorted.
    fn names(&self, dir: &TreePath) -> Result<Vec<Vec<u8>>, Error>;
    /// The digest of a regular file's bytes, and its attributes.
    fn read(&self, path: &TreePath) -> Result<(ContentDigest, Xattrs), Error>;
    /// The same, if it is known without reading the file.
    fn known(&self, path: &TreePath) -> Result<Option<(ContentDigest, Xattrs)>, Error> {
        self.read(path).map(Some)
    }
    /// The attributes of a directory.
    fn attributes(&self, dir: &TreePath) -> Result<Xattrs, Error>;
    /// Where a file's bytes are. `None`: the source knows digests only, and what is selected from it cannot be applied.
    fn content(&self, path: &TreePath) -> Result<Option<Content>, Error>;
    /// Why what is there cannot be seen, if an ignore file hides it.
    fn hidden_by(&self, path: &TreePath) -> Option<context::Reason> {
        let _ = path;
        None
    }
}

/// Why the tree could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source that is not there.
    #[error("{0}")]
    Missing(Box<Missing>),
    /// A destination or a source that cannot be what it should be.
    #[error("{what}")]
    Refused {
        /// What.
        what: String,
        /// One thing to do.
        help: &'static str,
    },
    /// A path through too many links, or through something that is no directory.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// An archive links to a file of a layer below, whose tree was not given: see [`Spool::over`].
    #[error("an archive links to `{path}`, which is in a layer below")]
    NeedsTrees {
        /// The file.
        path: TreePath,
    },
    /// Bytes that are no path.
    #[error(transparent)]
    Name(#[from] BadPath),
    /// A pattern that cannot be read.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// The context could not be read.
    #[error(transparent)]
    Context(#[from] context::Error),
    /// A layer could not be read.
    #[error(transparent)]
    Layer(#[from] crate::layer::Error),
    /// The store has no room, or no file, for what is kept meanwhile.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// A scratch file could not be written or read.
    #[error(transparent)]
    Path(#[from] crate::sys::PathError),
    /// A user or group that the image does not know.
    #[error(transparent)]
    Account(#[from] account::Unknown),
}

/// A source that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// As written.
    pub path: String,
    /// `the build context`, ``stage `build` ``.
    pub of: String,
    /// It is there, but an ignore file excludes it.
    pub ignored: Option<context::Reason>,
    /// The link whose target is not there, and that target.
    pub link: Option<(String, String)>,
    /// What is there under nearly that name.
    pub near: Option<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(context::Reason { file, rule }) = &self.ignored {
            write!(f, "`{}` not found: `{}` on line {} of {file} excludes it from {}", self.path, rule.pattern, rule.line, self.of)
        } else if let Some((link, target)) = &self.link {
            write!(
                f,
                "`{}` not found in {}: the symbolic link `{link}` points to `{target}`, which does not exist there",
                self.path, self.of
            )
        } else {
            write!(f, "`{}` not found in {}", self.path, self.of)
        }
    }
}

impl Error {
    /// One thing to do, if there is one.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Missing(missing) => Some(missing.help()),
            Self::Refused { help, .. } => Some((*help).to_owned()),
            Self::Unresolved(_) => Some("look at the links and files on the way with `RUN ls -l`, or copy to another path".to_owned()),
            Self::Pattern(_) => {
                Some("`*`, `?`, `[` and `\\` mean something in a source: for the character itself write `[*]` or `\\[`".to_owned())
            }
            Self::Account(unknown) => Some(unknown.help()),
            Self::NeedsTrees { .. } | Self::Name(_) | Self::Context(_) | Self::Layer(_) | Self::Store(_) | Self::Path(_) => None,
        }
    }

    /// What cannot be what it should be, and what to do.
    fn refused(what: impl Into<String>, help: &'static str) -> Self {
        Self::Refused { what: what.into(), help }
    }
}

impl Missing {
    fn help(&self) -> String {
        let path = self.path.trim_start_matches(['/', '.']).trim_end_matches('/');
        if self.ignored.is_some() {
            return format!("take it back with `!{path}` on a line below that one");
        }
        if let Some((_, target)) = &self.link {
            return format!("copy `{target}` too, or what the link should lead to instead");
        }
        // The other sources are contexts, whatever a stage or an image is called.
        let of_layers = ["stage ", "the image ", "scratch"].iter().any(|start| self.of.starts_with(start));
        match &self.near {
            Some(near) => format!("did you mean `{near}`?"),
            None if of_layers => format!("look at what is there with `RUN ls`, in the step that should have made `{}`", self.path),
            None => "sources are looked for below the directory that is the context, and nowhere else: check the name and the directory"
                .to_owned(),
        }
    }
}

impl Source for Context {
    fn name(&self) -> String {
        Self::name(self).to_owned()
    }

    fn look_up(&self, path: &TreePath) -> Result<Option<Seen>, Error> {
        let Some(listed) = Self::look_up(self, path)? else { return Ok(None) };
        let stat = listed.stat;
        let shape = match (stat.kind, listed.target) {
            (FileKind::File, _) => Shape::File { size: stat.size, inode: (stat.nlink > 1).then_some(Inode::Disk(stat.dev, stat.ino)) },
            (FileKind::Dir, _) => Shape::Dir,
            (FileKind::Symlink, target) => Shape::Symlink(target.unwrap_or_default()),
            (FileKind::Char { major, minor }, _) => Shape::Char(major, minor),
            (FileKind::Block { major, minor }, _) => Shape::Block(major, minor),
            (FileKind::Fifo, _) => Shape::Fifo,
            (FileKind::Socket, _) => Shape::Socket,
        };
        let mode = if stat.kind == FileKind::Symlink { 0o777 } else { stat.mode };
        Ok(Some(Seen { mode, uid: 0, gid: 0, mtime: stat.mtime.0, shape }))
    }

    fn names(&self, dir: &TreePath) -> Result<Vec<Vec<u8>>, Error> {
        Ok(Self::names(self, dir)?)
    }

    fn read(&self, path: &TreePath) -> Result<(ContentDigest, Xattrs), Error> {
        Ok(Self::read(self, path)?)
    }

    fn known(&self, path: &TreePath) -> Result<Option<(ContentDigest, Xattrs)>, Error> {
        Ok(Self::recall(self, path)?)
    }

    fn attributes(&self, dir: &TreePath) -> Result<Xattrs, Error> {
        Ok(Self::attributes(self, dir)?)
    }

    fn content(&self, path: &TreePath) -> Result<Option<Content>, Error> {
        Ok(Some(Self::content(self, path)))
    }

    fn hidden_by(&self, path: &TreePath) -> Option<context::Reason> {
        Self::hidden_by(self, path)
    }
}

/// A path of a source with its links followed inside the source.
fn follow(source: &dyn Source, path: &TreePath) -> Result<TreePath, Error> {
    let failed = std::cell::RefCell::new(None);
    let resolved = resolve_with(path, true, |at| match source.look_up(at) {
        Ok(seen) => seen.map(|seen| match seen.shape {
            Shape::Dir => Step::Dir,
            Shape::Symlink(target) => Step::Link(target),
            Shape::File { .. } | Shape::Char(..) | Shape::Block(..) | Shape::Fifo | Shape::Socket => Step::Other,
        }),
        Err(error) => {
            drop(failed.replace(Some(error)));
            None
        }
    });
    match failed.into_inner() {
        Some(error) => Err(error),
        None => Ok(resolved?),
    }
}

#[cfg(test)]
mod tests;
