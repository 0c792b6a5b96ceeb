//! A step's upper directory made equal to what extracting its layer gives: what has no row goes, what has one gets the
//! row's whole-second time, marks go, and every whiteout of the layer is there. So a warm build sees the tree that a cold
//! one sees after a pull.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, OwnedFd},
};

use super::{
    Error, Owners,
    extract::{OPAQUE, dress, dress_name},
    upper::{self, WHITEOUT},
};
use crate::{
    sys::dir::{self, FileKind},
    tree::{Entry, Index, Kind, Meta, Row, TreePath, Xattrs},
};

/// See the module. Stubs have no row, so they go with all else that has none.
pub(super) fn seal(upper: &OwnedFd, index: &Index, stubs: &[TreePath], owners: Owners) -> Result<(), Error> {
    if let Some(stub) = stubs.iter().find(|stub| index.rows_within(stub).next().is_some()) {
        return Err(changed(stub));
    }
    let mut seen = BTreeSet::new();
    let mut ahead = vec![TreePath::root()];
    while let Some(at) = ahead.pop() {
        let fd = dir::open_dir(upper, at.as_os_path())?;
        for name in dir::names(&fd)? {
            let path = at.join(&name).map_err(|_bad| changed(&at))?;
            match (index.row(&path), dir::stat(&fd, &name)?.map(|stat| stat.kind)) {
                (Some(Row::Whiteout), Some(WHITEOUT)) => {}
                (Some(Row::Put { entry, .. }), Some(kind)) if upper::sort(kind) == row_sort(&entry) => {
                    if kind == FileKind::Dir {
                        ahead.push(path.clone());
                    } else {
                        leaf(&fd, &path, &entry, owners)?;
                    }
                    let _new = seen.insert(path);
                }
                (Some(Row::Put { .. }), _) => return Err(changed(&path)),
                (Some(Row::Whiteout) | None, _) => dir::remove_tree(&fd, &name)?,
            }
        }
    }
    whiteouts(upper, index)?;
    if let Some((path, _)) = index.rows().find(|(path, row)| matches!(row, Row::Put { .. }) && !path.is_root() && !seen.contains(path)) {
        return Err(changed(&path));
    }
    directories(upper, index, owners)
}

fn changed(path: &TreePath) -> Error {
    Error::Changed { shown: path.to_string() }
}

fn row_sort(entry: &Entry) -> super::canonical::Sort {
    use super::canonical::Sort;
    match entry.kind {
        Kind::File { .. } => Sort::File,
        Kind::Dir => Sort::Dir,
        Kind::Symlink { .. } => Sort::Symlink,
        Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => Sort::Special,
    }
}

pub(super) fn leaf(parent: &OwnedFd, path: &TreePath, entry: &Entry, owners: Owners) -> Result<(), Error> {
    if let Kind::File { .. } = entry.kind {
        let file = dir::open_name(parent, path.name())?;
        upper::undress(file.as_fd(), &entry.meta.xattrs, owners)?;
        return Ok(dir::set_times_open(&file, entry.meta.mtime)?);
    }
    dress_name(parent, path, entry, owners)
}

/// An opaque directory of the upper is one that has a whiteout for each name in the layer.
fn whiteouts(upper: &OwnedFd, index: &Index) -> Result<(), Error> {
    for (path, _) in index.rows().filter(|(_, row)| *row == Row::Whiteout) {
        let parent = dir::open_dir(upper, path.parent().unwrap_or_default().as_os_path())?;
        if dir::stat(&parent, path.name())?.is_none() {
            dir::make_node(&parent, path.name(), WHITEOUT)?;
        }
    }
    Ok(())
}

/// Last, because making and removing things changed their times; the deepest first, because a mode may lock one.
fn directories(upper: &OwnedFd, index: &Index, owners: Owners) -> Result<(), Error> {
    let mut root = Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() };
    for (path, row) in index.rows_back() {
        let Row::Put { entry: Entry { meta, kind: Kind::Dir }, opaque, .. } = row else { continue };
        if path.is_root() {
            root = meta;
            continue;
        }
        let fd = dir::open_dir(upper, path.as_os_path())?;
        upper::undress(&fd, &meta.xattrs, owners)?;
        if opaque {
            dir::set_attribute(&fd, OPAQUE, b"y")?;
        }
        dress(&fd, &path, &meta, owners)?;
    }
    upper::undress(upper, &root.xattrs, owners)?;
    dress(upper, &TreePath::root(), &root, owners)
}
