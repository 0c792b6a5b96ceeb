//! What writing, reading and comparing layers must agree on, so that a tree that was built and the same tree pulled
//! again have equal rows: which attributes count, what a link's mode is, which names cannot be, whose bytes are kept.

use std::borrow::Cow;

use crate::tree::{Meta, TreePath};

/// The prefix of a name that says the rest of it is gone.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// The name that says its directory hides what is beneath it.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";

/// The kernel's `PATH_MAX`, its NUL not counted. A longer path could not be extracted.
pub(crate) const MAX_PATH: usize = 4095;
/// The kernel's `NAME_MAX`.
const MAX_NAME: usize = 255;
/// Of a kept file; and how many files are kept that are not in `/etc` itself.
const MAX_KEPT: (u64, usize) = (1 << 20, 16);

/// Which sort of inode it is, for what attributes it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    File,
    Dir,
    Symlink,
    Special,
}

/// Does an attribute belong to the image? Overlay's marks and our own would be orders to whoever mounts the tree.
pub(crate) fn is_ours(name: &[u8], sort: Sort) -> bool {
    match sort {
        Sort::File if name == b"security.capability" => true,
        Sort::File | Sort::Dir => {
            name.len() > 5 && name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.starts_with(b"user.lapstrake.")
        }
        // The kernel allows no `user.` attribute on these.
        Sort::Symlink | Sort::Special => false,
    }
}

/// Metadata as a row has it.
pub(crate) fn meta(meta: &Meta, sort: Sort) -> Meta {
    let xattrs = meta.xattrs.iter().filter(|(name, _)| is_ours(name, sort)).map(|(name, value)| (name.clone(), value.clone())).collect();
    // A link has no mode of its own; the kernel says 0777.
    let mode = if sort == Sort::Symlink { 0o777 } else { meta.mode & 0o7777 };
    Meta { mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, xattrs }
}

/// Why a path cannot be in a layer.
pub(crate) fn refusal(path: &TreePath) -> Option<&'static str> {
    let marks = path.components().any(|name| name.starts_with(WHITEOUT));
    if marks { Some("a name that begins with `.wh.` would delete another file") } else { too_long(path) }
}

/// Why a path cannot be on a disk.
pub(crate) fn too_long(path: &TreePath) -> Option<&'static str> {
    if path.as_bytes().len() > MAX_PATH {
        return Some("it is longer than the kernel takes");
    }
    path.components().any(|name| name.len() > MAX_NAME).then_some("one of its names is longer than the kernel takes")
}

/// Readable text of a path whose bytes are not known to be one.
pub(crate) fn shown(path: &[u8]) -> Cow<'static, str> {
    Cow::Owned(String::from_utf8_lossy(path).escape_debug().to_string())
}

/// Which files' bytes an index keeps: the account files, wherever `/etc/passwd` may be a link to.
pub(crate) struct Keeper {
    elsewhere: usize,
}

impl Keeper {
    pub(crate) fn new() -> Self {
        Self { elsewhere: 0 }
    }

    /// Somewhere to collect a file's bytes while they pass, if it is one to keep. Asked once for each file.
    pub(crate) fn wants(&mut self, path: &TreePath, size: u64) -> Option<Vec<u8>> {
        let named = matches!(path.name(), b"passwd" | b"group") && size <= MAX_KEPT.0;
        if !named || (!is_account(path) && self.elsewhere == MAX_KEPT.1) {
            return None;
        }
        self.elsewhere += usize::from(!is_account(path));
        Some(Vec::new())
    }
}

fn is_account(path: &TreePath) -> bool {
    matches!(path.as_bytes(), b"etc/passwd" | b"etc/group")
}
