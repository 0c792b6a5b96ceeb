//! Everything that is mounted in a step's root, before it becomes the root. All by fd.

use std::{
    io::Write as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{CWD, Gid, Mode, OFlags, Uid},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags},
};

use super::{devices, kernel};
use crate::{
    sandbox::{
        InitError, Network,
        overlay::{self, Writable},
        stubs::{Links, Missing, Place, Shape, Stub},
        wire::{Blob, Blobs, Order, Orders, Source},
    },
    sys,
    tree::TreePath,
};

/// Attaches the root, and everything in it. Says which mountpoints were made in the root itself.
pub(super) fn complete(root: &OwnedFd, orders: &Orders, blobs: &Blobs, passed: Vec<OwnedFd>) -> Result<Vec<Stub>, InitError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(root, c"", CWD, &orders.place, flags).map_err(InitError::new("attach", "/"))?;
    let stage = Stage { at: &orders.work };
    let files = Files::new(&stage)?;
    let mut made = Vec::new();
    for (path, blob) in [("etc/hosts", orders.hosts), ("etc/resolv.conf", orders.resolv_conf)] {
        // First of all, while nothing but the root is there: an image's link to /run, say, leads into the root.
        let file = files.add(blobs, blob, Owner { mode: 0o644, uid: 0, gid: 0 }).map_err(InitError::new("create", path))?;
        let place = Place::find(root, &fixed(path)?, Links::Follow, Missing::Make(Shape::File, &mut made))?;
        attach(&file, &place)?;
    }
    for (path, mount) in [("proc", 0), ("dev", 1), ("sys", 2)] {
        let place = Place::find(root, &fixed(path)?, Links::Refuse, Missing::Make(Shape::Directory, &mut made))?;
        match mount {
            0 => kernel::mount_proc(&place, &stage, orders.host_root, orders.security)?,
            1 => {
                let own = orders.mounts.iter().any(|order| order.target.as_bytes() == b"dev/shm");
                devices::mount(&place, (!own).then_some(orders.shared_memory))?;
            }
            _ => kernel::mount_sys(&place, &stage, orders.network == Network::None, orders.security)?,
        }
    }
    let mut passed = passed.into_iter();
    for order in &orders.mounts {
        let mount = match &order.what {
            Source::Host => passed.next().ok_or(Errno::BADF).map_err(InitError::new("mount", &order.target))?,
            Source::Tmpfs(_) | Source::File { .. } | Source::Overlay { .. } => source(order, &stage, &files, blobs)?,
        };
        let shape = shape(&mount).map_err(InitError::new("mount", &order.target))?;
        let place = Place::find(root, &order.target, Links::Follow, Missing::Make(shape, &mut made))?;
        attach(&mount, &place)?;
        if order.readonly {
            sys::set_mount_attributes(&mount, MountAttrFlags::MOUNT_ATTR_RDONLY).map_err(InitError::new("protect", &order.target))?;
        }
    }
    Ok(made)
}

fn source(order: &Order, stage: &Stage<'_>, files: &Files, blobs: &Blobs) -> Result<OwnedFd, InitError> {
    let failed = InitError::new::<Errno>("mount", &order.target);
    match &order.what {
        Source::Tmpfs(size) => {
            let size = size.map(|bytes| bytes.to_string());
            let options: Vec<(&str, &str)> = size.iter().map(|bytes| ("size", bytes.as_str())).collect();
            // BuildKit's options; devices cannot be made in a user namespace anyway.
            file_system("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID).map_err(failed)
        }
        Source::File { bytes, mode, uid, gid } => {
            let owner = Owner { mode: *mode, uid: *uid, gid: *gid };
            files.add(blobs, *bytes, owner).map_err(InitError::new("create", &order.target))
        }
        Source::Overlay { lowers, upper, work, path } => merged(stage, lowers, upper, work, path),
        Source::Host => Err(failed(Errno::BADF)),
    }
}

/// What is at `path` of the merged view of `lowers`.
fn merged(stage: &Stage<'_>, lowers: &[PathBuf], upper: &PathBuf, work: &PathBuf, path: &TreePath) -> Result<OwnedFd, InitError> {
    let view = if upper.as_os_str().is_empty() {
        let memory = file_system("tmpfs", &[("mode", "0755")], MountAttrFlags::empty()).map_err(InitError::new("mount", "tmpfs"))?;
        stage.attach(&memory)?;
        let place = stage.at;
        let dirs = ["upper", "work", "none"].map(|name| place.join(name));
        for dir in &dirs {
            std::fs::create_dir(dir).map_err(InitError::new("create", dir.display()))?;
        }
        let [upper, work, none] = &dirs;
        std::fs::set_permissions(upper, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(InitError::new("create", upper.display()))?;
        let lowers = if lowers.is_empty() { std::slice::from_ref(none) } else { lowers };
        overlay::merge(lowers, Some(&Writable { upper, work }))?
    } else {
        overlay::merge(lowers, Some(&Writable { upper, work }))?
    };
    stage.attach(&view)?;
    let place = Place::find(&view, path, Links::Follow, Missing::Refuse)?;
    copy_of(&place.fd).map_err(InitError::new("bind", path))
}

fn shape(mount: &OwnedFd) -> Result<Shape, Errno> {
    let mode = rustix::fs::fstat(mount)?.st_mode;
    let directory = rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Directory;
    Ok(if directory { Shape::Directory } else { Shape::File })
}

/// A path that the program itself names.
pub(super) fn fixed(path: &str) -> Result<TreePath, InitError> {
    TreePath::parse(path.as_bytes()).map_err(|_bad| InitError::new("find", path)(Errno::INVAL))
}

/// A directory of the host that is the engine's alone. Mounts that are to be seen only in parts are attached there,
/// one over the other: it goes with the host's root.
pub(super) struct Stage<'a> {
    at: &'a PathBuf,
}

impl Stage<'_> {
    pub(super) fn attach(&self, mount: &OwnedFd) -> Result<(), InitError> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount, c"", CWD, self.at, flags).map_err(InitError::new("attach", self.at.display()))
    }
}

/// Files in memory that appear in the sandbox one by one.
struct Files {
    tmpfs: OwnedFd,
    count: std::cell::Cell<u32>,
}

#[derive(Clone, Copy)]
struct Owner {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Files {
    fn new(stage: &Stage<'_>) -> Result<Self, InitError> {
        let flags = MountAttrFlags::MOUNT_ATTR_NODEV;
        let tmpfs = file_system("tmpfs", &[("mode", "0755")], flags).map_err(InitError::new("mount", "tmpfs"))?;
        stage.attach(&tmpfs)?;
        Ok(Self { tmpfs, count: std::cell::Cell::new(0) })
    }

    /// A mount of one file.
    fn add(&self, blobs: &Blobs, bytes: Blob, owner: Owner) -> std::io::Result<OwnedFd> {
        if owner.uid == u32::MAX || owner.gid == u32::MAX {
            // The kernel takes it for "as it is".
            return Err(Errno::INVAL.into());
        }
        let name = self.count.replace(self.count.get() + 1).to_string();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = std::fs::File::from(rustix::fs::openat(&self.tmpfs, &name, flags, Mode::from_raw_mode(0o600))?);
        file.write_all(blobs.find(bytes))?;
        rustix::fs::fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(owner.mode & 0o7777))?;
        drop(file);
        let found = rustix::fs::openat(&self.tmpfs, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        Ok(copy_of(&found)?)
    }
}

/// A new file system, attached nowhere.
pub(in crate::sandbox) fn file_system(kind: &str, options: &[(&str, &str)], flags: MountAttrFlags) -> Result<OwnedFd, Errno> {
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", kind)?;
    for (key, value) in options {
        match *value {
            "" => fsconfig_set_flag(context.as_fd(), *key)?,
            value => fsconfig_set_string(context.as_fd(), *key, value)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// Another mount of what `fd` is about, and of all that is mounted below it.
pub(super) fn copy_of(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    copy_from(fd.as_fd(), "")
}

/// Another mount of what is at `path`, and of all that is mounted below it.
pub(super) fn copy_from(dir: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(dir, path, flags)
}

/// Mounts it there.
pub(super) fn attach(mount: &OwnedFd, place: &Place) -> Result<(), InitError> {
    attach_over(mount, &place.fd).map_err(InitError::new("mount", &place.path))
}

/// Mounts it on what `over` is about.
pub(super) fn attach_over(mount: &OwnedFd, over: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", over, c"", flags)
}
