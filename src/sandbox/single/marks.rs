//! Whose files are: a mark on what can carry one, else a table that lives as long as the step, and that the engine gets
//! back at its end.

use std::{
    collections::BTreeMap,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use rustix::{
    fs::{AtFlags, FileType, OFlags, StatxFlags, XattrFlags},
    io::Errno,
};

use crate::{
    sys::dir,
    tree::{Inode, MARK, Owner, OwnerTable},
};

/// The owners of what carries no mark, by file system and inode.
#[derive(Debug)]
pub(super) struct Marks {
    /// The upper directory of the step's overlay.
    upper: OwnedFd,
    table: BTreeMap<(u64, Inode), Owner>,
    /// Files and directories are in it too: read-only mounts, or file systems without attributes.
    mixed: bool,
}

impl Marks {
    /// None yet.
    pub(super) fn new(upper: OwnedFd) -> Self {
        Self { upper, table: BTreeMap::new(), mixed: false }
    }

    /// The owner of a file of this mode that was given to somebody; `None`: it is root's because nobody said otherwise.
    pub(super) fn recorded(&self, fd: &OwnedFd, mode: u32) -> Option<Owner> {
        if carries(mode) {
            let mut value = [0; 32];
            // The supervisor's working directory has its own fds as names.
            match rustix::fs::getxattr(fd.as_raw_fd().to_string(), MARK, &mut value[..]) {
                Ok(length) => return value.get(..length).and_then(Owner::parse),
                Err(Errno::OPNOTSUPP) => {}
                Err(_) if self.mixed => {}
                Err(_) => return None,
            }
        }
        if self.table.is_empty() {
            return None;
        }
        self.table.get(&key(fd).ok()?).copied()
    }

    /// The owner of a file.
    pub(super) fn owner(&self, fd: &OwnedFd, mode: u32) -> Owner {
        self.recorded(fd, mode).unwrap_or_default()
    }

    /// Gives a file to somebody.
    pub(super) fn give(&mut self, fd: &OwnedFd, mode: u32, owner: Owner) -> Result<(), Errno> {
        if carries(mode) {
            let path = fd.as_raw_fd().to_string();
            let marked = if owner == Owner::ROOT {
                match rustix::fs::removexattr(path, MARK) {
                    Err(Errno::NODATA) => Ok(()),
                    other => other,
                }
            } else {
                rustix::fs::setxattr(path, MARK, &owner.mark(), XattrFlags::empty())
            };
            match marked {
                Err(Errno::OPNOTSUPP | Errno::ROFS) => self.mixed = true,
                other => return other,
            }
        }
        let key = key(fd)?;
        for key in [Some(key), self.copied_up(fd, key)].into_iter().flatten() {
            if owner == Owner::ROOT {
                self.table.remove(&key);
            } else if self.table.len() < MOST || self.table.contains_key(&key) {
                self.table.insert(key, owner);
            } else {
                return Err(Errno::NOSPC);
            }
        }
        Ok(())
    }

    /// The inode that the upper directory has for it. Overlay goes on to show the number of the lower one, for as long as it
    /// remembers where a file came from: not in another name of it, nor in the upper directory afterwards. Both are born at
    /// the same time.
    fn copied_up(&self, fd: &OwnedFd, (device, seen): (u64, Inode)) -> Option<(u64, Inode)> {
        // From the step's root on: that is the supervisor's own.
        let path = rustix::fs::readlink(fd.as_raw_fd().to_string(), Vec::new()).ok()?;
        let path = path.to_bytes().strip_prefix(b"/")?;
        let found = dir::open_beneath(&self.upper, std::path::Path::new(std::ffi::OsStr::from_bytes(path)), OFlags::PATH).ok()?;
        let (_, inode) = key(&found).ok()?;
        (inode.born == seen.born && inode.number != seen.number).then_some((device, inode))
    }

    /// What the engine is to know, without what file system it was.
    pub(super) fn into_table(self) -> OwnerTable {
        OwnerTable::new(self.table.into_iter().map(|((_, inode), owner)| (inode, owner)).collect())
    }
}

/// A bound on memory: links and pipes of others than root that one step makes.
const MOST: usize = 4 << 20;

/// Can it have an attribute of the `user.` kind?
fn carries(mode: u32) -> bool {
    matches!(FileType::from_raw_mode(mode), FileType::RegularFile | FileType::Directory)
}

fn key(fd: &OwnedFd) -> Result<(u64, Inode), Errno> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let found = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, wanted)?;
    let device = u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor);
    Ok((device, Inode { number: found.stx_ino, born: (found.stx_btime.tv_sec, found.stx_btime.tv_nsec) }))
}
