//! How large trees are: noted beside each as the symbolic link `<diff-id hex>.size` (a link, because its target is
//! there whole or not at all), so that counting a store goes through no tree.
//!
//! A note that is missing or not one costs a look into the layer's index, and that costs going through the tree.

use std::{
    fs,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use super::size::Size;

/// How deep a directory is gone through: each level holds a descriptor.
const DEPTH: usize = 64;

/// Where the size of a tree is noted.
pub(super) fn note_of(tree: &Path) -> PathBuf {
    tree.with_extension("size")
}

/// Notes the size of a tree. That it cannot be noted costs measuring.
pub(super) fn note(tree: &Path, size: Size) {
    let (note, text) = (note_of(tree), sealed(tree, size));
    if fs::read_link(&note).is_ok_and(|have| have.as_os_str() == text.as_str()) {
        return;
    }
    drop(fs::remove_file(&note));
    drop(std::os::unix::fs::symlink(text, note));
}

/// The size that is noted of a tree.
pub(super) fn noted(tree: &Path) -> Option<Size> {
    let text = fs::read_link(note_of(tree)).ok()?;
    let mut numbers = text.to_str()?.split('-').map(str::parse);
    let size = Size { bytes: numbers.next()?.ok()?, inodes: numbers.next()?.ok()? };
    (text.as_os_str() == sealed(tree, size).as_str()).then_some(size)
}

fn sealed(tree: &Path, Size { bytes, inodes }: Size) -> String {
    let name = tree.file_name().unwrap_or_default();
    let sum = blake3::hash(format!("{} {bytes} {inodes}", name.display()).as_bytes());
    format!("{bytes}-{inodes}-{}", sum.to_hex().get(..8).unwrap_or_default())
}

/// All that is at `path`, as far as it may be read. No link is followed.
pub(super) fn measure(path: &Path) -> Size {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(dir) => Size::of_file(4096) + below(dir.as_fd(), DEPTH),
        Err(_) => fs::symlink_metadata(path).map_or_else(|_gone| Size::default(), |found| Size::of_file(found.len())),
    }
}

fn below(dir: BorrowedFd<'_>, depth: usize) -> Size {
    let mut all = Size::default();
    for entry in Dir::read_from(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                all = all + Size::of_file(4096);
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let (1.., Ok(inner)) = (depth, rustix::fs::openat(dir, name, flags, Mode::empty())) {
                    all = all + below(inner.as_fd(), depth - 1);
                }
            }
            FileType::RegularFile => {
                let size = Size::of_file(u64::try_from(stat.st_size).unwrap_or(0));
                // Each name of a file has its part of it; one has the inode as well.
                all = all + Size { bytes: size.bytes / u64::from(u32::try_from(stat.st_nlink).unwrap_or(1)).max(1), ..size };
            }
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => all = all + Size::of_file(0),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_believed_if_it_is_whole_and_of_that_tree() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, other) = (dir.path().join("abc"), dir.path().join("def"));
        let size = Size { bytes: 8192, inodes: 3 };
        note(&tree, size);
        assert_eq!(noted(&tree), Some(size));
        fs::rename(note_of(&tree), note_of(&other)).unwrap();
        assert_eq!((noted(&tree), noted(&other)), (None, None));
        note(&other, size);
        assert_eq!(noted(&other), Some(size));
    }

    #[test]
    fn all_that_is_below_is_measured_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("in/file"), vec![1; 5000]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("link")).unwrap();
        assert_eq!(measure(dir.path()), Size { bytes: 4096 + 4096 + 8192, inodes: 4 });
        assert_eq!(measure(&dir.path().join("none")), Size::default());
    }
}
