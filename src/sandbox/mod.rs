//! One process tree for one RUN: its own user, mount, pid, ipc and uts namespaces, on an overlay that the engine
//! mounts. It takes a plain [`Spec`] of values and fds and knows no Dockerfile, cache or image.
//!
//! Source: user_namespaces(7), pid_namespaces(7), mount_setattr(2), capabilities(7); runc's masked paths.

use std::{ffi::OsString, path::PathBuf};

use crate::tree::TreePath;

/// What to run, where.
#[derive(Debug)]
pub struct Spec {
    /// The program and its arguments, looked up in the PATH of `env` inside the root.
    pub argv: Vec<OsString>,
    /// `K=V`.
    pub env: Vec<OsString>,
    /// The working directory inside; it exists.
    pub cwd: TreePath,
    /// Who.
    pub user: User,
    /// The root.
    pub root: Overlay,
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

/// The trees a root is made of.
#[derive(Debug)]
pub struct Overlay {
    /// Lowers, base first. May be empty.
    pub lowers: Vec<PathBuf>,
    /// What the step writes. An empty directory, owned by the engine's root.
    pub upper: PathBuf,
    /// An empty directory beside it.
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
    /// A host directory or file that the engine opened (O_PATH).
    Host(std::os::fd::OwnedFd),
    /// A merged view of trees, changes to it discarded.
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
}

/// How the run went, and what the layer must not contain.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: Status,
    /// Mountpoints that were made for it.
    pub stubs: Vec<TreePath>,
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
#[derive(Debug, thiserror::Error)]
#[error("{step} `{path}`: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct InitError {
    /// What was being done: `mount`, `exec`, `map ids`.
    pub step: String,
    /// On what.
    pub path: String,
    /// What the kernel said.
    pub errno: i32,
}

/// Runs it to its end. `output` gets what it prints as it comes; a byte on `cancel`, or its end, kills it.
pub fn run(spec: Spec, cancel: &std::os::fd::OwnedFd, output: &mut dyn FnMut(Stream, &[u8])) -> Result<Finished, InitError> {
    let _ = (spec, cancel, output);
    unimplemented!("sandbox")
}
