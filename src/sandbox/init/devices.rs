//! `/dev` of a step: a tmpfs with the devices that every container has.
//!
//! Source: the runtime specification, config-linux.md, "Default Devices"; runc's links.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags},
    io::Errno,
    mount::MountAttrFlags,
};

use super::mounts::{attach, attach_over, copy_from, file_system};
use crate::sandbox::{InitError, stubs::Place};

/// Name, major, minor. All are world-writable in a sane host's /dev.
pub(in crate::sandbox) const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

pub(in crate::sandbox) const LINKS: [(&str, &str); 6] = [
    ("core", "/proc/kcore"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts it at `place`, with so many bytes of shared memory; without, where the step mounts something at /dev/shm itself.
pub(super) fn mount(place: &Place, shared_memory: Option<u64>) -> Result<(), InitError> {
    let failed = |name: &str| InitError::new::<Errno>("mount", format!("/dev/{name}"));
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let dev = file_system("tmpfs", &[("mode", "0755"), ("size", "65536k")], flags).map_err(failed(""))?;
    attach(&dev, place)?;
    for (name, major, minor) in DEVICES {
        device(&dev, name, major, minor).map_err(failed(name))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name).map_err(failed(name))?;
    }
    within(&dev, "pts", terminals).map_err(failed("pts"))?;
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if let Some(bytes) = shared_memory {
        let size = bytes.to_string();
        within(&dev, "shm", || file_system("tmpfs", &[("mode", "1777"), ("size", &size)], quiet)).map_err(failed("shm"))?;
    }
    match within(&dev, "mqueue", || file_system("mqueue", &[], quiet)) {
        // A kernel may be without.
        Ok(()) | Err(Errno::NODEV) => Ok(()),
        Err(errno) => Err(failed("mqueue")(errno)),
    }
}

/// A file with the host's device over it: a user namespace can make none.
fn device(dev: &OwnedFd, name: &str, major: u32, minor: u32) -> Result<(), Errno> {
    let path = format!("/dev/{name}");
    let host = match rustix::fs::open(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        // A container's /dev may have no terminal.
        Err(Errno::NOENT) if name == "tty" => return Ok(()),
        host => host?,
    };
    let stat = rustix::fs::fstat(&host)?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || number != (major, minor) {
        return Err(Errno::NODEV);
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(rustix::fs::openat(dev, name, flags, Mode::from_raw_mode(0o666))?);
    let target = rustix::fs::openat(dev, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    attach_over(&copy_from(host.as_fd(), "")?, &target)
}

/// The group of terminals is 5, where there is a group 5.
fn terminals() -> Result<OwnedFd, Errno> {
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    match file_system("devpts", &options, flags) {
        Err(Errno::INVAL) => file_system("devpts", options.get(..3).unwrap_or_default(), flags),
        result => result,
    }
}

fn within(dev: &OwnedFd, name: &str, mount: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<(), Errno> {
    let mount = mount()?;
    rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    attach_over(&mount, &rustix::fs::openat(dev, name, flags, Mode::empty())?)
}

/// The null device of the host, to put over files that are to look empty; checked to be it.
pub(super) fn null() -> Result<OwnedFd, Errno> {
    let host = rustix::fs::openat(CWD, c"/dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&host)?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && number == (1, 3) { Ok(host) } else { Err(Errno::NODEV) }
}
