//! Mounting overlays.
//!
//! Always with `userxattr`: without it a user namespace mounts an overlay happily, and then removing a merged
//! directory fails with EIO. Always `volatile`: else the unmount writes back all of the upper's file system. The layers
//! are named by fd through /proc, because an option of `fsconfig` is at most 255 bytes and one of `mount` shares a page
//! with all others.
//!
//! Source: the kernel's Documentation/filesystems/overlayfs.rst.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags},
};

use super::InitError;

/// A layer as an option names it.
struct Named {
    text: String,
    /// The text is about this fd.
    _fd: OwnedFd,
}

impl Named {
    fn open(path: &Path) -> Result<Self, InitError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(InitError::new("open", path.display()))?;
        Ok(Self { text: format!("/proc/self/fd/{}", fd.as_raw_fd()), _fd: fd })
    }
}

/// Where changes go.
pub(super) struct Writable<'a> {
    pub(super) upper: &'a Path,
    pub(super) work: &'a Path,
}

/// A merged view, attached nowhere. `lowers` are base first, and not empty.
pub(super) fn merge(lowers: &[PathBuf], writable: Option<&Writable<'_>>) -> Result<OwnedFd, InitError> {
    // Two steps can make the same layer, and the kernel refuses a tree that is there twice (ELOOP). The upper one alone is
    // the same view: all that the lower one has or hides, it has or hides too.
    let mut seen = BTreeSet::new();
    let once = lowers.iter().rev().filter(|path| seen.insert(*path));
    let layers = once.map(|path| Named::open(path)).collect::<Result<Vec<_>, _>>()?;
    let changes = match writable {
        Some(to) => Some((Named::open(to.upper)?, Named::open(to.work)?)),
        None => None,
    };
    let changes = changes.as_ref().map(|(upper, work)| (upper, work));
    match by_parts(&layers, changes) {
        // Kernels before 6.7 know no `lowerdir+`.
        Err(error) if error.step == "add layer" && error.errno == rustix::io::Errno::INVAL.raw_os_error() => match writable {
            Some(to) => by_text(&layers, changes, to.work),
            None => Err(error),
        },
        result => result,
    }
}

/// A directory as a mount, attached nowhere.
pub(super) fn as_mount(dir: &Path) -> Result<OwnedFd, InitError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, dir, flags).map_err(InitError::new("bind", dir.display()))
}

fn by_parts(layers: &[Named], changes: Option<(&Named, &Named)>) -> Result<OwnedFd, InitError> {
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};
    let failed = |what: &'static str| InitError::new::<rustix::io::Errno>(what, "overlay");
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("open file system"))?;
    fsconfig_set_string(context.as_fd(), c"source", c"lapstrake").map_err(failed("configure"))?;
    for layer in layers {
        fsconfig_set_string(context.as_fd(), c"lowerdir+", layer.text.as_str()).map_err(failed("add layer"))?;
    }
    fsconfig_set_flag(context.as_fd(), c"userxattr").map_err(failed("set userxattr of"))?;
    if let Some((upper, work)) = changes {
        fsconfig_set_string(context.as_fd(), c"upperdir", upper.text.as_str()).map_err(failed("set upper of"))?;
        fsconfig_set_string(context.as_fd(), c"workdir", work.text.as_str()).map_err(failed("set work of"))?;
        fsconfig_set_flag(context.as_fd(), c"volatile").map_err(failed("set volatile of"))?;
    }
    fsconfig_create(context.as_fd()).map_err(failed("mount"))?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(failed("mount"))
}

/// By the old call, which mounts on a path: on the work directory, and from there it is taken away again.
fn by_text(layers: &[Named], changes: Option<(&Named, &Named)>, onto: &Path) -> Result<OwnedFd, InitError> {
    let failed = |what: &'static str| InitError::new::<rustix::io::Errno>(what, "overlay");
    let lowers = layers.iter().map(|layer| layer.text.as_str()).collect::<Vec<_>>().join(":");
    let changes = changes.map(|(upper, work)| format!(",upperdir={},workdir={},volatile", upper.text, work.text));
    let options = format!("userxattr,lowerdir={lowers}{}", changes.unwrap_or_default());
    let options = std::ffi::CString::new(options).map_err(InitError::new("mount", "overlay"))?;
    rustix::mount::mount(c"lapstrake", onto, c"overlay", MountFlags::empty(), Some(options.as_c_str())).map_err(failed("mount"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let view = rustix::mount::open_tree(CWD, onto, flags).map_err(failed("take"));
    rustix::mount::unmount(onto, UnmountFlags::DETACH).map_err(failed("detach"))?;
    view
}
