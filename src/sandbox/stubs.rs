//! Mountpoints in a root: found or made by [`Place`] before a step, taken away again by [`remove`] after it.
//!
//! A path is walked one name at a time on fds; a symbolic link is read and walked inside the root by hand, so that
//! nothing in a root, and nobody who changes it meanwhile, can lead out of it. What is removed is only what was made,
//! is still the same inode, and is still empty.
//!
//! Source: CVE-2024-23652 (a mountpoint's cleanup that followed a link of the step).

use std::{
    collections::VecDeque,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxAttributes, StatxFlags, Timespec, Timestamps},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::InitError;
use crate::tree::TreePath;

/// Who waits for a mount to be gone looks again after so long.
const PAUSE: Duration = Duration::from_millis(2);

/// A mountpoint that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stub {
    /// Where, without links.
    pub(super) path: TreePath,
    inode: u64,
    directory: bool,
    /// The time of the directory that holds it, seconds and nanoseconds, before and after.
    before: (i64, u32),
    after: (i64, u32),
}

/// What a mountpoint must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Directory,
    File,
}

/// May links be followed?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Inside the root.
    Follow,
    /// `/proc`, `/dev` and `/sys` of an image that are links would be mounted elsewhere than the program looks.
    Refuse,
}

/// Is what is missing to be made?
#[derive(Debug)]
pub(super) enum Missing<'a> {
    /// An error.
    Refuse,
    /// Made, and noted if it is on the root's own file system.
    Make(Shape, &'a mut Vec<Stub>),
}

/// What is at a path of a root.
#[derive(Debug)]
pub(super) struct Place {
    /// An `O_PATH` fd.
    pub(super) fd: OwnedFd,
    /// Without links.
    pub(super) path: TreePath,
    stat: Stat,
}

/// As many as the kernel follows.
const MOST_LINKS: usize = 40;

impl Place {
    /// Finds `path` in `root`.
    pub(super) fn find(root: &OwnedFd, path: &TreePath, links: Links, missing: Missing<'_>) -> Result<Self, InitError> {
        Self::walk(root, path, links, missing).map_err(InitError::new("find", path))
    }

    fn walk(root: &OwnedFd, path: &TreePath, links: Links, mut missing: Missing<'_>) -> Result<Self, Errno> {
        let device = rustix::fs::fstat(root)?.st_dev;
        let mut above = vec![Self::root(root)?];
        let mut left: VecDeque<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        let mut followed = 0;
        while let Some(name) = left.pop_front() {
            if name == b".." {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            let Some(here) = above.last() else { return Err(Errno::NOENT) };
            let next = match here.step(&name) {
                Err(Errno::NOENT) => match &mut missing {
                    Missing::Refuse => return Err(Errno::NOENT),
                    Missing::Make(shape, made) => {
                        let shape = if left.is_empty() { *shape } else { Shape::Directory };
                        match here.make(&name, shape) {
                            // A step that shares the cache mount around it was first.
                            Err(Errno::EXIST) => here.step(&name)?,
                            result => {
                                let (next, stub) = result?;
                                // What is made on another mount goes with it, or is that mount's owner's.
                                if here.stat.st_dev == device {
                                    made.push(stub);
                                }
                                next
                            }
                        }
                    }
                },
                result => result?,
            };
            if FileType::from_raw_mode(next.stat.st_mode) != FileType::Symlink {
                above.push(next);
                continue;
            }
            followed += 1;
            if links == Links::Refuse || followed > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            let target = rustix::fs::readlinkat(&next.fd, c"", Vec::new())?.into_bytes();
            if target.starts_with(b"/") {
                above.truncate(1);
            }
            let names = target.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
            names.rev().for_each(|name| left.push_front(name.to_vec()));
        }
        above.pop().ok_or(Errno::NOENT)
    }

    fn root(root: &OwnedFd) -> Result<Self, Errno> {
        let fd = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Self { fd, path: TreePath::root(), stat })
    }

    fn step(&self, name: &[u8]) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        let path = self.path.join(name).map_err(|_bad_name| Errno::INVAL)?;
        Ok(Self { fd, path, stat })
    }

    fn make(&self, name: &[u8], shape: Shape) -> Result<(Self, Stub), Errno> {
        let before = modified(&rustix::fs::fstat(&self.fd)?);
        match shape {
            Shape::Directory => rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755))?,
            Shape::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
                drop(rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o644))?);
            }
        }
        let made = self.step(name)?;
        let after = modified(&rustix::fs::fstat(&self.fd)?);
        let stub = Stub { path: made.path.clone(), inode: made.stat.st_ino, directory: shape == Shape::Directory, before, after };
        Ok((made, stub))
    }
}

/// How long what a step had mounted may be there when all its processes are gone.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Takes away what was made and is still as it was made, through the merged view, and says what is gone.
///
/// Mounts go with the last process of a step, unless another one holds on to their namespace, as whoever reads a process's
/// `/proc/PID/mountinfo` does: a stub that something is still mounted on is waited for. `EBUSY`: in vain. See `proc_pid_mountinfo(5)`,
/// `mount_namespaces(7)`.
pub(super) fn remove(root: &OwnedFd, stubs: &[Stub], patience: Duration) -> Result<Vec<TreePath>, Errno> {
    let end = Instant::now() + patience;
    let mut gone = Vec::new();
    // The last made goes first, so that directories are empty and times end where they began.
    for stub in stubs.iter().rev() {
        loop {
            match unlink(root, stub) {
                Err(Errno::BUSY) if Instant::now() < end => std::thread::sleep(PAUSE),
                Err(Errno::BUSY) => return Err(Errno::BUSY),
                result => {
                    gone.extend(result.is_ok().then(|| stub.path.clone()));
                    break;
                }
            }
        }
    }
    Ok(gone)
}

fn unlink(root: &OwnedFd, stub: &Stub) -> Result<(), Errno> {
    let parent = stub.path.parent().ok_or(Errno::INVAL)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::openat2(root, parent.as_os_path(), flags, Mode::empty(), resolve) {
        // Something is mounted above it.
        Err(Errno::XDEV) => return Err(Errno::BUSY),
        parent => parent?,
    };
    let name = std::ffi::OsStr::from_bytes(stub.path.name());
    let found = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let (kind, wanted) = if stub.directory { (FileType::Directory, 0o755) } else { (FileType::RegularFile, 0o644) };
    let untouched = FileType::from_raw_mode(found.st_mode) == kind
        && found.st_mode & 0o7777 == wanted
        && (found.st_uid, found.st_gid) == (0, 0)
        && found.st_ino == stub.inode
        && (stub.directory || found.st_size == 0);
    if !untouched {
        let seen = rustix::fs::statx(&parent, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
        let is_covered = seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        return Err(if is_covered { Errno::BUSY } else { Errno::STALE });
    }
    let held = modified(&rustix::fs::fstat(&parent)?);
    rustix::fs::unlinkat(&parent, name, if stub.directory { AtFlags::REMOVEDIR } else { AtFlags::empty() })?;
    // The directory's time is as it was before the stub, unless the step changed the directory.
    let (sec, nsec) = if held == stub.after { stub.before } else { held };
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: sec, tv_nsec: nsec.into() },
    };
    rustix::fs::utimensat(parent.as_fd(), c".", &times, AtFlags::empty()).ok();
    Ok(())
}

fn modified(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or_default())
}
