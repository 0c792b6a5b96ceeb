//! Removal of a directory tree by descriptors: no link is followed, no directory is too deep or too closed.
//!
//! An overlay's work directory has mode 0000, an extracted tree has directories its owner cannot write, and a build
//! can nest deeper than a process has descriptors: a directory below [`DEPTH`] is first moved up to the top.
//! What belongs to ids that this process does not have stays, and the first refusal is returned.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use crate::sys::PathError;

/// How many directories are open at once.
const DEPTH: usize = 48;

/// Removes what is at `path`, a directory tree or anything else. Nothing there is fine.
pub(super) fn remove_all(path: &Path) -> Result<(), PathError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(PathError::new("remove", path)(io::Error::from(io::ErrorKind::InvalidInput)));
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(PathError::new("remove", path)(errno)),
    };
    let name = CString::new(name.as_bytes()).map_err(PathError::new("remove", path))?;
    remove_entry(parent.as_fd(), &name).map_err(PathError::new("remove", path))
}

/// Removes the entry `name` of `parent`, with everything below it.
fn remove_entry(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        // Linux says EISDIR, POSIX EPERM; without rights on the parent it is EACCES, which rmdir will repeat.
        Err(_) => {}
    }
    let top = match open_dir(parent, name) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let mut sweep = Sweep { top: top.as_fd(), moved: 0, refused: None };
    // Each pass can leave directories that were moved up; it ends when a pass moves none.
    loop {
        let before = sweep.moved;
        sweep.empty(top.as_fd(), 0);
        if sweep.moved == before {
            break;
        }
    }
    let refused = sweep.refused;
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(refused.unwrap_or(errno)),
    }
}

/// One removal under way.
struct Sweep<'a> {
    top: BorrowedFd<'a>,
    moved: u64,
    refused: Option<rustix::io::Errno>,
}

impl Sweep<'_> {
    /// Empties a directory; remembers the first refusal and goes on.
    fn empty(&mut self, dir: BorrowedFd<'_>, depth: usize) {
        let entries = match Dir::read_from(dir) {
            Ok(entries) => entries,
            Err(errno) => return self.refuse(errno),
        };
        for entry in entries {
            match entry {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Ok(entry) => self.entry(dir, entry.file_name(), entry.file_type(), depth),
                Err(errno) => return self.refuse(errno),
            }
        }
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr, kind: FileType, depth: usize) {
        if kind != FileType::Directory {
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => return,
                Err(rustix::io::Errno::ISDIR) => {}
                Err(errno) => return self.refuse(errno),
            }
        }
        let below = match open_dir(dir, name) {
            Ok(below) => below,
            Err(errno) => return self.refuse(errno),
        };
        if depth + 1 >= DEPTH {
            return self.move_up(dir, name);
        }
        self.empty(below.as_fd(), depth + 1);
        drop(below);
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            // It holds directories that were moved up no further than here, or what was refused.
            Err(errno) => self.refuse(errno),
        }
    }

    /// Moves a directory that is too deep to the top, for the next pass.
    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &CStr) {
        loop {
            self.moved += 1;
            let to = format!(".deep-{}", self.moved);
            match rustix::fs::renameat_with(dir, name, self.top, OsStr::new(&to), rustix::fs::RenameFlags::NOREPLACE) {
                Ok(()) => return,
                Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => {
                    // Not moved: another pass would not help.
                    self.moved -= 1;
                    return self.refuse(errno);
                }
            }
        }
    }

    fn refuse(&mut self, errno: rustix::io::Errno) {
        self.refused.get_or_insert(errno);
    }
}

/// Opens a directory for emptying, making it readable, writable and searchable first where it is ours and is not.
fn open_dir(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let at = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(parent, name, at, Mode::empty())?;
    let stat = rustix::fs::fstat(&place)?;
    if stat.st_mode & 0o700 != 0o700 {
        // A descriptor of O_PATH has no fchmod; its magic link names this very inode. A refusal shows up in the open below.
        let link = format!("/proc/self/fd/{}", place.as_raw_fd());
        let _refused = rustix::fs::chmod(link.as_str(), Mode::RWXU);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&place, c".", flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_tree_with_closed_directories_and_links_goes_and_what_links_point_at_stays() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("work/work/inner")).unwrap();
        fs::write(tree.join("work/work/inner/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        fs::set_permissions(tree.join("work/work/inner"), fs::Permissions::from_mode(0o555)).unwrap();
        fs::set_permissions(tree.join("work/work"), fs::Permissions::from_mode(0o0)).unwrap();
        remove_all(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove_all(&tree).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_the_path_limit_goes() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut fd = rustix::fs::openat(CWD, &tree, flags, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&fd, c"d", Mode::RWXU).unwrap();
            drop(rustix::fs::openat(&fd, c"f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap());
            fd = rustix::fs::openat(&fd, c"d", flags, Mode::empty()).unwrap();
        }
        remove_all(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn a_link_in_the_place_of_the_tree_is_removed_itself() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        remove_all(&dir.path().join("link")).unwrap();
        assert!(dir.path().join("real").exists());
    }
}
