//! Out of a chroot: the kernel makes no user namespace for a process whose root is not its mount namespace's. Root can have a
//! mount namespace whose root is the directory that it was confined to.
//!
//! Source: `user_namespaces(7)` (EPERM), `setns(2)` (a mount namespace resets the root), `pivot_root(2)`.

use std::os::fd::AsFd as _;

use rustix::{
    fs::{Mode, OFlags},
    io::Result,
    mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
    thread::LinkNameSpaceType,
};

use crate::sys;

/// Makes the root that this process has the root of a mount namespace of its own. The process has one thread.
pub(super) fn leave() -> std::io::Result<()> {
    sys::unshare_mounts()?;
    Ok(become_root_of_the_namespace()?)
}

fn become_root_of_the_namespace() -> Result<()> {
    let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Opened after the mounts were copied: it is of this namespace.
    let root = rustix::fs::open("/", dir, Mode::empty())?;
    let namespace = rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    rustix::mount::mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(&root, c"", flags)?;
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&tree, c"", &root, c"", both)?;
    rustix::process::fchdir(&tree)?;
    rustix::process::pivot_root(c".", c".")?;
    // The old root lies over the new one now.
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}
