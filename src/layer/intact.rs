//! Is an extracted tree still what its index says? An lstat for each row; bytes are not read.

use std::{collections::BTreeSet, os::fd::OwnedFd, path::Path};

use super::Owners;
use crate::{
    sys::{
        PathError,
        dir::{self, FileKind, Stat},
    },
    tree::{Entry, Index, Kind, MARK, Owner, Row, TreePath},
};

/// True if every row of the index is there as it should be and nothing else is.
pub fn is_intact(tree: &Path, index: &Index, owners: Owners) -> bool {
    dir::open_root(tree).is_ok_and(|root| check(&root, index, owners).unwrap_or(false))
}

/// Does the row say that nothing below the directory shows?
fn is_opaque(row: Option<&Row>) -> bool {
    matches!(row, Some(Row::Put { opaque: true, .. }))
}

fn check(root: &OwnedFd, index: &Index, owners: Owners) -> Result<bool, PathError> {
    let mut dirs = BTreeSet::from([TreePath::root()]);
    let mut last = TreePath::root();
    for (path, row) in index.rows() {
        // A directory without a row has what is in it all the same.
        if let Some(parent) = path.parent().filter(|parent| *parent != last) {
            last = parent;
            let _: bool = dirs.insert(last.clone());
        }
        if matches!(row, Row::Put { entry: Entry { kind: Kind::Dir, .. }, .. }) {
            let _: bool = dirs.insert(path);
        }
    }
    for path in &dirs {
        let opened;
        let at = if path.is_root() {
            root
        } else {
            opened = dir::open_dir(root, path.as_os_path())?;
            &opened
        };
        if !directory_is(at, index.children(path), is_opaque(index.row(path).as_ref()), owners)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn directory_is(at: &OwnedFd, rows: impl Iterator<Item = (TreePath, Row)>, opaque: bool, owners: Owners) -> Result<bool, PathError> {
    let mut there = 0;
    for (path, row) in rows {
        match dir::stat(at, path.name())? {
            Some(stat) if row_is(&row, &stat, owners) && is_marked(at, path.name(), &row, owners)? => there += 1,
            // A device that the kernel would not make is in the index alone.
            None if matches!(row, Row::Put { entry: Entry { kind: Kind::Char { .. } | Kind::Block { .. }, .. }, .. }) => {}
            // A whiteout by attribute would show there, and has nothing to hide.
            None if opaque && row == Row::Whiteout => {}
            _ => return Ok(false),
        }
    }
    Ok(dir::names(at)?.len() == there)
}

/// Does a file say whose it is? Those of root need not.
fn is_marked(at: &OwnedFd, name: &[u8], row: &Row, owners: Owners) -> Result<bool, PathError> {
    let Row::Put { entry, .. } = row else { return Ok(true) };
    let owner = Owner { uid: entry.meta.uid, gid: entry.meta.gid };
    if owners == Owners::Real || owner == Owner::ROOT {
        return Ok(true);
    }
    let mark = match entry.kind {
        Kind::File { .. } => dir::attribute(dir::open_name(at, name)?, MARK.as_bytes())?,
        Kind::Dir => dir::attribute(dir::open_dir_name(at, name)?, MARK.as_bytes())?,
        Kind::Symlink { .. } | Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => return Ok(true),
    };
    Ok(mark.and_then(|mark| Owner::parse(&mark)) == Some(owner))
}

fn row_is(row: &Row, stat: &Stat, owners: Owners) -> bool {
    let Row::Put { entry, .. } = row else {
        return stat.kind == FileKind::Char { major: 0, minor: 0 } || (stat.kind == FileKind::File && stat.size == 0);
    };
    let meta = &entry.meta;
    let same_kind = match (&entry.kind, stat.kind) {
        (Kind::File { size, .. }, FileKind::File) => *size == stat.size,
        (Kind::Symlink { target }, FileKind::Symlink) => target.len() as u64 == stat.size,
        (Kind::Dir, FileKind::Dir) | (Kind::Fifo, FileKind::Fifo) => true,
        (Kind::Char { major, minor }, FileKind::Char { major: is_major, minor: is_minor })
        | (Kind::Block { major, minor }, FileKind::Block { major: is_major, minor: is_minor }) => (*major, *minor) == (is_major, is_minor),
        _ => false,
    };
    let mode = stat.kind == FileKind::Symlink || meta.mode == stat.mode;
    let owner = if owners == Owners::Real { (meta.uid, meta.gid) } else { (0, 0) };
    same_kind && mode && owner == (stat.uid, stat.gid) && meta.mtime == stat.mtime.0
}
