//! What the kernel would allow a user who is none to it: by owner, group and mode, as recorded. Access lists are not asked.
//!
//! It keeps programs honest that rely on being refused; it is no wall. Behind it everything is the step's own.
//!
//! Source: `path_resolution(7)`, inode(7), chmod(2), unlink(2).

use std::os::fd::OwnedFd;

use rustix::{fs::FileType, io::Errno};

use super::{credentials::Credentials, marks::Marks};
use crate::tree::Owner;

/// Permission bits, as in one digit of a mode.
pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const SEARCH: u32 = 1;

/// What counts of a file.
pub(super) struct Subject {
    pub(super) mode: u32,
    pub(super) owner: Owner,
}

impl Subject {
    pub(super) fn of(marks: &Marks, fd: &OwnedFd) -> Result<Self, Errno> {
        let mode = rustix::fs::fstat(fd)?.st_mode;
        Ok(Self { mode, owner: marks.owner(fd, mode) })
    }

    /// Does the mode give somebody these bits?
    pub(super) fn allows(&self, who: &Credentials, bits: u32) -> bool {
        let directory = FileType::from_raw_mode(self.mode) == FileType::Directory;
        if who.overrides() {
            // Root needs somebody who may execute a file.
            return bits & SEARCH == 0 || directory || self.mode & 0o111 != 0;
        }
        let shift = if who.users.files == self.owner.uid {
            6
        } else if who.is_in(self.owner.gid) {
            3
        } else {
            0
        };
        self.mode >> shift & bits == bits
    }

    /// May somebody change its mode, or take its name from a sticky directory?
    pub(super) fn belongs_to(&self, who: &Credentials) -> bool {
        who.overrides() || who.users.files == self.owner.uid
    }
}

/// May somebody put names into a directory?
pub(super) fn may_write_in(marks: &Marks, who: &Credentials, parent: &OwnedFd) -> Result<(), Errno> {
    if who.overrides() || Subject::of(marks, parent)?.allows(who, WRITE | SEARCH) { Ok(()) } else { Err(Errno::ACCESS) }
}

/// May somebody take a name from a directory?
pub(super) fn may_remove(marks: &Marks, who: &Credentials, parent: &OwnedFd, named: Option<&OwnedFd>) -> Result<(), Errno> {
    if who.overrides() {
        return Ok(());
    }
    let dir = Subject::of(marks, parent)?;
    if !dir.allows(who, WRITE | SEARCH) {
        return Err(Errno::ACCESS);
    }
    let sticky = dir.mode & 0o1000 != 0 && !dir.belongs_to(who);
    match named {
        Some(named) if sticky && !Subject::of(marks, named)?.belongs_to(who) => Err(Errno::PERM),
        _ => Ok(()),
    }
}
