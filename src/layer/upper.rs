//! What an overlay left in its upper directory, one name at a time, its own marks told from the image's.
//!
//! Source: the kernel's `overlayfs.rst` (whiteouts and opaque directories, `userxattr`).

use std::os::fd::{AsFd, OwnedFd};

use super::{
    Error, Owners, archive,
    canonical::{self, Sort},
};
use crate::{
    sys::{
        PathError,
        dir::{self, FileKind, Stat},
    },
    tree::{Inode, MARK, Meta, Owner, OwnerTable, TreePath, Xattrs},
};

/// Where overlay keeps its marks in a user namespace; what a program sets there itself is escaped below it.
pub(super) const MARKS: &[u8] = b"user.overlay.";

/// A whiteout: what lower layers have at its name is gone.
pub(super) const WHITEOUT: FileKind = FileKind::Char { major: 0, minor: 0 };

/// One name in an upper directory.
pub(super) struct Found {
    pub(super) stat: Stat,
    /// As a row would have it. Of a whiteout or a socket it means nothing.
    pub(super) meta: Meta,
    /// A directory that shows nothing of what is beneath it.
    pub(super) opaque: bool,
}

/// Which sort of inode it is.
pub(super) fn sort(kind: FileKind) -> Sort {
    match kind {
        FileKind::File => Sort::File,
        FileKind::Dir => Sort::Dir,
        FileKind::Symlink => Sort::Symlink,
        FileKind::Char { .. } | FileKind::Block { .. } | FileKind::Fifo | FileKind::Socket => Sort::Special,
    }
}

/// Who wrote attributes with overlay's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// Overlay did.
    Overlay,
    /// A program did: they mean nothing.
    NotOurs,
}

/// Looks at a name; `path` is where it is, for messages. `None`: it went away.
pub(super) fn look(parent: &OwnedFd, path: &TreePath, marks: Marks, table: Option<&OwnerTable>) -> Result<Option<Found>, Error> {
    let Some(stat) = dir::stat(parent, path.name())? else { return Ok(None) };
    let attributes = match stat.kind {
        FileKind::File => dir::attributes(dir::open_name(parent, path.name())?)?,
        FileKind::Dir => dir::attributes(dir::open_dir_name(parent, path.name())?)?,
        // Nothing that counts can be on the others.
        FileKind::Symlink | FileKind::Char { .. } | FileKind::Block { .. } | FileKind::Fifo | FileKind::Socket => Xattrs::new(),
    };
    let mark = |name: &str| (marks == Marks::Overlay).then_some(&attributes)?.get([MARKS, name.as_bytes()].concat().as_slice());
    if mark("redirect").is_some() || mark("metacopy").is_some() {
        let error = std::io::Error::other("the overlay was mounted with redirects or metacopy");
        return Err(PathError::new("read", path.as_os_path())(error).into());
    }
    let opaque = mark("opaque").is_some_and(|value| value == b"y");
    let owner = match table {
        None => Owner { uid: stat.uid, gid: stat.gid },
        Some(table) => recorded(parent, path, &attributes, stat.kind, table)?,
    };
    let meta = Meta { mode: stat.mode, uid: owner.uid, gid: owner.gid, mtime: stat.mtime.0, xattrs: own(attributes) };
    Ok(Some(Found { stat, meta: canonical::meta(&meta, sort(stat.kind)), opaque }))
}

/// Whose it is where nothing is anybody's to the kernel. A mark that is none is nobody's: the step could not write one.
fn recorded(parent: &OwnedFd, path: &TreePath, attributes: &Xattrs, kind: FileKind, table: &OwnerTable) -> Result<Owner, Error> {
    if matches!(kind, FileKind::File | FileKind::Dir) {
        return Ok(attributes.get(MARK.as_bytes()).and_then(|mark| Owner::parse(mark)).unwrap_or_default());
    }
    if table.is_empty() {
        return Ok(Owner::ROOT);
    }
    let (number, born) = dir::birth(parent, path.name())?;
    Ok(table.owner(Inode { number, born }))
}

/// A capability of another user namespace means nothing in an image.
fn own(attributes: Xattrs) -> Xattrs {
    let own = |(name, value): (Vec<u8>, Vec<u8>)| match name.as_slice() {
        b"security.capability" => archive::capability(&value).ok().map(|value| (name, value)),
        _ => Some((name, value)),
    };
    attributes.into_iter().filter_map(own).collect()
}

/// Takes from an open file or directory every attribute that extracting the row would not give it. What the host's
/// security module sets by itself stays: it would set it again. So does the mark of its owner.
pub(super) fn undress(fd: impl AsFd, keep: &Xattrs, owners: Owners) -> Result<(), Error> {
    for name in dir::attributes(&fd)?.into_keys() {
        let foreign = name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") || name == b"security.capability";
        if foreign && !keep.contains_key(&name) && !(owners == Owners::Marked && name == MARK.as_bytes()) {
            dir::remove_attribute(&fd, &name)?;
        }
    }
    Ok(())
}
