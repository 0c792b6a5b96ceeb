//! A unix socket that a step sees as a file: bound in a file system in memory of its own, so that no name of it is on
//! disk, and nobody outside the engine's mount namespace can reach it.
//!
//! Source: unix(7): who may connect is decided by the file's permissions; the name is looked up in the file system and
//! not in a network namespace.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Uid},
    io::Errno,
    mount::{MountAttrFlags, MoveMountFlags, UnmountFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

use super::{InitError, MountSource, init::file_system};

/// Its name in its file system.
const NAME: &str = "socket";

/// How many may wait to be accepted.
const WAITING: i32 = 16;

/// A socket that listens. Its file is gone when this is dropped; mounts of it in a step that still runs are not.
#[derive(Debug)]
pub struct Socket {
    place: PathBuf,
    listener: OwnedFd,
    /// Where it is in memory; `None`: it is a file of the place itself.
    file: Option<OwnedFd>,
}

impl Socket {
    /// Listens. `place` is an empty directory that is the caller's alone; the ids are those inside.
    ///
    /// The caller is the engine: root in a user namespace, with a mount namespace of its own.
    pub fn listen(place: &Path, mode: u32, uid: u32, gid: u32) -> Result<Self, InitError> {
        let failed = |step: &'static str| InitError::new::<Errno>(step, "socket");
        let options = [("mode", "0755"), ("size", "64k")];
        let memory = file_system("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NODEV).map_err(failed("mount"))?;
        let listener = listen(&memory, mode, uid, gid)?;
        // Only what is attached somewhere in our namespace can be mounted once more.
        let attached = rustix::mount::move_mount(&memory, c"", rustix::fs::CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        attached.map_err(failed("attach"))?;
        let file = rustix::fs::openat(&memory, NAME, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        match file {
            Ok(file) => Ok(Self { place: place.to_owned(), listener, file: Some(file) }),
            Err(errno) => {
                detach(place);
                Err(failed("open")(errno))
            }
        }
    }

    /// The same where nothing can be mounted: its name is in `place` itself, until the step has it.
    pub fn listen_unmounted(place: &Path, mode: u32, uid: u32, gid: u32) -> Result<Self, InitError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(place, flags, Mode::empty()).map_err(InitError::new("open", place.display()))?;
        Ok(Self { place: place.to_owned(), listener: listen(&dir, mode, uid, gid)?, file: None })
    }

    /// What accepts. It does not block.
    pub fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// Its file, to be mounted.
    pub fn source(&self) -> Result<MountSource, InitError> {
        match &self.file {
            Some(file) => file.try_clone().map(MountSource::Host).map_err(InitError::new("duplicate", "socket")),
            None => Ok(MountSource::Moved(self.place.join(NAME))),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.file.is_some() {
            detach(&self.place);
        }
    }
}

/// A socket in that directory.
fn listen(dir: &OwnedFd, mode: u32, uid: u32, gid: u32) -> Result<OwnedFd, InitError> {
    let failed = |step: &'static str| InitError::new::<Errno>(step, "socket");
    if uid == u32::MAX || gid == u32::MAX {
        // The kernel takes it for "as it is".
        return Err(failed("own")(Errno::INVAL));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed("make"))?;
    // An address holds 107 bytes, which a path in the store may not fit into.
    let name = SocketAddrUnix::new(format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd())).map_err(failed("name"))?;
    rustix::net::bind(&listener, &name).map_err(failed("bind"))?;
    rustix::fs::chownat(dir, NAME, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW).map_err(failed("own"))?;
    rustix::fs::chmodat(dir, NAME, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty()).map_err(failed("protect"))?;
    rustix::net::listen(&listener, WAITING).map_err(failed("listen on"))?;
    Ok(listener)
}

fn detach(place: &Path) {
    // If it stays, it ends with the engine's mount namespace.
    rustix::mount::unmount(place, UnmountFlags::DETACH).ok();
}
