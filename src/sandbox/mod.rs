//! One process tree for one RUN: its own user, mount, pid, ipc and uts namespaces, on an overlay that the engine
//! mounts. It takes a plain [`Spec`] of values and fds and knows no Dockerfile, cache or image.
//!
//! ```text
//! engine ─ run ─ clone3 ──▶ step-init (pid 1 of the step) ── mounts, pivot_root, drops rights ──▶ the program
//!          │  ◀─ Mounted{stubs}, Failed, Ended ─┘  one socket: the engine's end of it is pid 1's lifeline
//!          └─ output pipes, pidfd, cancel
//! ```
//!
//! - [`driver`]: the axes on which ways to run steps differ, and how they are chosen.
//! - [`enter`]: the engine's own process and its user namespace.
//! - `run`: the engine's side of a step; `init`: pid 1's side; `wire`: what they say to each other.
//! - `seccomp`: the system calls that a step may make. `limits`, [`cgroup`]: what it may use; `watchdog`: how long, and how much disk.
//! - `overlay`: the root, and merged views; `memory`: where their changes can be if the store cannot have them. `stubs`: mountpoints that were made, and how they go again.
//! - `scene`, `family`: where nothing can be mounted and nobody confined, what stands in for mounts and for a pid namespace.
//! - `socket`: a socket that listens outside and is a file inside.
//! - `single`: owners where there is one user id.
//! - [`probe`]: what `doctor` tries.
//!
//! Source: `user_namespaces(7)`, `pid_namespaces(7)`, `mount_setattr(2)`, capabilities(7); the runtime specification's
//! default devices, masked and read-only paths.

pub mod cgroup;
pub mod driver;
pub mod enter;
mod family;
mod init;
mod limits;
mod memory;
mod overlay;
pub mod probe;
mod run;
mod scene;
mod seccomp;
mod single;
mod socket;
mod stubs;
mod watchdog;
mod wire;

use std::{ffi::OsString, path::PathBuf, sync::Arc};

pub use driver::Driver;
pub use init::{STEP_INIT, init_main};
pub use limits::{Limited, Limits, ProcessLimit};
pub use memory::Memory;
pub use run::run;
pub use single::{SUPERVISOR, supervisor_main};
pub use socket::Socket;

use crate::tree::{Owner, OwnerTable, TreePath};

/// What to run, where.
#[derive(Debug)]
pub struct Spec {
    /// How it is run. The calling engine was entered with these ids.
    pub driver: Driver,
    /// The program and its arguments, looked up in the PATH of `env` inside the root.
    pub argv: Vec<OsString>,
    /// `K=V`.
    pub env: Vec<OsString>,
    /// The working directory inside; it exists.
    pub cwd: TreePath,
    /// Who.
    pub user: User,
    /// The root.
    pub root: Root,
    /// Its network.
    pub network: Network,
    /// The name the host has inside.
    pub hostname: String,
    /// What is mounted besides /proc, /dev, /sys, /etc/hosts and /etc/resolv.conf.
    pub mounts: Vec<Mount>,
    /// The text of /etc/hosts.
    pub hosts: Vec<u8>,
    /// The text of /etc/resolv.conf.
    pub resolv_conf: Vec<u8>,
    /// What it may use.
    pub limits: Limits,
    /// Where its control group is made; `None`: it has none of its own.
    pub groups: Option<Arc<cgroup::Groups>>,
    /// How it is confined.
    pub security: Security,
    /// Where there is one user id: owners that are no marks.
    pub foreign: Foreign,
}

/// How a step is confined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Security {
    /// Docker's default capabilities and system calls, masked paths.
    #[default]
    Sandbox,
    /// All capabilities of its user namespace, every system call, nothing of /proc and /sys covered or read-only.
    Insecure,
}

/// Whose some things are, where there is one user id and they cannot say so themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Links, pipes and sockets in the trees of the root.
    pub rooted: Vec<(TreePath, Owner)>,
    /// In what is mounted, by the path inside.
    pub mounted: Vec<(TreePath, Owner)>,
}

/// Ids inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What a step sees as `/`.
#[derive(Debug)]
pub enum Root {
    /// A merged view, whose changes are in its upper directory.
    Overlay(Overlay),
    /// A directory, which the step changes.
    Tree(Tree),
}

/// A directory that is a root.
#[derive(Debug)]
pub struct Tree {
    /// It. Nobody else uses it meanwhile.
    pub dir: PathBuf,
    /// An empty directory, owned by the engine's root, on the same file system.
    pub work: PathBuf,
}

/// The trees a root is made of.
#[derive(Debug)]
pub struct Overlay {
    /// Lowers, base first. May be empty.
    pub lowers: Vec<PathBuf>,
    /// What the step writes. An empty directory, owned by the engine's root; its mode is the mode of `/`.
    pub upper: PathBuf,
    /// An empty directory beside it, for one mount only.
    pub work: PathBuf,
}

/// The network of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Network {
    /// The host's.
    Host,
    /// Only `lo`.
    None,
}

/// Something mounted for the step.
#[derive(Debug)]
pub struct Mount {
    /// Where, inside; resolved in the root without leaving it.
    pub target: TreePath,
    /// What.
    pub what: MountSource,
    /// Not writable.
    pub readonly: bool,
}

/// What is mounted.
#[derive(Debug)]
pub enum MountSource {
    /// A tmpfs of at most so many bytes.
    Tmpfs(Option<u64>),
    /// A file with these bytes, mode and owner, in memory only.
    File {
        /// Its bytes.
        bytes: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A host directory or file that the engine opened (`O_PATH`). Devices in it are none.
    Host(std::os::fd::OwnedFd),
    /// What is at this path of the host, on the file system of the root; nobody needs it there afterwards. Where nothing can be
    /// mounted it is moved into the root, and removed with it.
    Moved(PathBuf),
    /// A directory of the host, likewise, which is moved back after the step as the step left it.
    Lent(PathBuf),
    /// What is at a path of a merged view of trees, changes to it discarded. With an empty `upper` they are kept in
    /// memory, and `work` is not used.
    Overlay(Overlay, TreePath),
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Killed because the build was cancelled.
    Cancelled,
    /// Killed because it ran longer than [`Limits::time`].
    OutOfTime,
    /// Killed because it wrote more than [`Limits::disk`], or ended after it had.
    OutOfDisk,
}

/// How the run went, and what the layer must not contain.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: Status,
    /// Mountpoints that were made for it.
    pub stubs: Vec<TreePath>,
    /// It had the /proc that the engine has, read-only: parts of it are covered, and the kernel makes no fresh one beside it.
    pub outer_proc: bool,
    /// The kernel killed a process of it because its control group had no memory left.
    pub out_of_memory: bool,
    /// Owners of what carries no mark, where there is one user id; else empty.
    pub owners: OwnerTable,
    /// What its processes used, with what made its sandbox complete.
    pub usage: crate::sys::Usage,
}

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Why nothing could be run.
///
/// A program that is not there is one too: `step` is `exec`, `path` its name, and the errno is ENOENT, or EACCES for
/// one that is not executable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{step} `{path}`: {}", self.said())]
pub struct InitError {
    /// What was being done: `mount`, `exec`, `map ids`.
    pub step: String,
    /// On what.
    pub path: String,
    /// What the kernel said.
    pub errno: i32,
}

impl InitError {
    /// For `map_err`.
    fn new<E: Into<std::io::Error>>(step: &'static str, path: impl std::fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| {
            let errno = error.into().raw_os_error().unwrap_or_else(|| rustix::io::Errno::IO.raw_os_error());
            Self { step: step.to_owned(), path: path.to_string(), errno }
        }
    }

    /// What the step changed though it was mounted read-only, if that is what happened.
    pub fn changed(&self) -> Option<&str> {
        (self.step == scene::CHANGED).then_some(&self.path)
    }

    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<&'static str> {
        let errno = rustix::io::Errno::from_raw_os_error(self.errno);
        match (self.step.as_str(), self.path.as_str(), errno) {
            ("make", "a network without connections", _) => {
                Some("it takes a network namespace, which is forbidden here; leave `--network=none` out")
            }
            ("create", path, rustix::io::Errno::PERM) if path.starts_with("/dev/") => {
                Some("devices are forbidden here; in Docker: --cap-add MKNOD")
            }
            ("open", "/dev/null", rustix::io::Errno::ACCESS) => {
                Some("the store's file system is mounted without devices (nodev); put --root on another one")
            }
            ("make namespaces", _, rustix::io::Errno::NOSPC) => Some("raise the limit: sysctl -w user.max_user_namespaces=15000"),
            ("make namespaces", _, _) => {
                Some("a seccomp profile or a security module forbids it; in Docker: --security-opt seccomp=unconfined")
            }
            ("mount a fresh", "/proc", rustix::io::Errno::PERM) => {
                Some("parts of this container's /proc are covered; in Docker: --security-opt systempaths=unconfined")
            }
            ("mount" | "set upper of", "overlay", rustix::io::Errno::INVAL) => {
                Some("the store's file system cannot hold an overlay's changes, as overlayfs and NFS cannot; put --root on another one")
            }
            ("mount" | "open file system", "overlay", rustix::io::Errno::PERM | rustix::io::Errno::NODEV) => {
                Some("overlays in a user namespace need Linux 5.11 and the module `overlay`: modprobe overlay")
            }
            ("take away", "mountpoints", rustix::io::Errno::BUSY) => {
                Some("another program holds what the step had mounted, as one does that has its /proc/PID/mountinfo open; build again")
            }
            (_, path, rustix::io::Errno::NOENT | rustix::io::Errno::NODEV) if path.starts_with("/dev/") => {
                Some("a step gets the devices that this /dev has: mount a /dev that has null, zero, full, random and urandom")
            }
            (_, _, rustix::io::Errno::ROFS) => Some("put the store where you may write: `--root DIR` or LAPSTRAKE_ROOT"),
            (_, _, rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                Some("free some space, or put the store elsewhere with `--root`")
            }
            _ => None,
        }
    }

    fn said(&self) -> String {
        let errno = rustix::io::Errno::from_raw_os_error(self.errno);
        match (self.step.as_str(), errno) {
            ("exec", rustix::io::Errno::NOENT) => "not found".to_owned(),
            // The kernel's word for it would send the user to look at disks.
            ("make namespaces", rustix::io::Errno::NOSPC) => "the limit `user.max_user_namespaces` is reached".to_owned(),
            _ => std::io::Error::from(errno).to_string(),
        }
    }
}
