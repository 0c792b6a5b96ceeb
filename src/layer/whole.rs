//! Is an extracted tree, byte for byte, what its index says? Every file is read.

use std::{os::fd::OwnedFd, path::Path};

use super::{Owners, is_intact};
use crate::{
    sys::{PathError, dir},
    tree::{Entry, Index, Kind, Row, TreePath},
};

/// True if [`is_intact`] and every file and link has the content that its row says.
pub fn is_whole(tree: &Path, index: &Index, owners: Owners) -> bool {
    let same = |root: &OwnedFd| index.rows().map(|(path, row)| holds(root, &path, &row)).all(|held| held.unwrap_or(false));
    is_intact(tree, index, owners) && dir::open_root(tree).is_ok_and(|root| same(&root))
}

fn holds(root: &OwnedFd, path: &TreePath, row: &Row) -> Result<bool, PathError> {
    match row {
        Row::Put { entry: Entry { kind: Kind::File { content, .. }, .. }, link: None, .. } => {
            let mut hasher = blake3::Hasher::new();
            let file = dir::open_file(root, path.as_os_path())?;
            hasher.update_reader(file).map_err(PathError::new("read", path.as_os_path()))?;
            Ok(hasher.finalize().as_bytes() == &content.0)
        }
        Row::Put { entry: Entry { kind: Kind::Symlink { target }, .. }, .. } => {
            let parent = match path.parent() {
                Some(parent) if !parent.is_root() => dir::open_dir(root, parent.as_os_path())?,
                _ => return Ok(dir::read_link(root, path.name())? == *target),
            };
            Ok(dir::read_link(&parent, path.name())? == *target)
        }
        Row::Put { .. } | Row::Whiteout => Ok(true),
    }
}
