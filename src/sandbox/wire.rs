//! What the engine and a step's pid 1 say to each other.
//!
//! The engine's [`Orders`] are in a memory file: the length of a JSON text as eight bytes, little-endian, the text, and
//! then the bytes of all files that are to appear in the sandbox. The answers ([`Report`]) are one JSON text a message.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::fd::OwnedFd,
    path::PathBuf,
};

use rustix::{
    fs::MemfdFlags,
    net::{RecvFlags, SendFlags},
};
use serde::{Deserialize, Serialize};

use super::{InitError, Network, ProcessLimit, Security, driver::Isolation, stubs::Stub};
use crate::tree::TreePath;

/// What pid 1 finds open.
pub(super) mod fds {
    /// The socket to the engine. When the engine's end closes, the step ends.
    pub(crate) const SOCKET: u16 = 3;
    /// The orders.
    pub(crate) const ORDERS: u16 = 4;
    /// The root, mounted by the engine, attached nowhere.
    pub(crate) const ROOT: u16 = 5;
    /// Mounts of host directories and files, in the order of the orders; after them the supervisor's channel, if there is one.
    pub(crate) const FIRST_MOUNT: u16 = 6;
}

/// A [`super::Spec`] as pid 1 gets it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) isolation: Isolation,
    pub(super) argv: Vec<OsString>,
    pub(super) env: Vec<OsString>,
    pub(super) cwd: TreePath,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) network: Network,
    pub(super) hostname: String,
    pub(super) mounts: Vec<Order>,
    pub(super) hosts: Blob,
    pub(super) resolv_conf: Blob,
    /// What each process of the step may use.
    pub(super) limits: Vec<ProcessLimit>,
    /// The size of /dev/shm in bytes.
    pub(super) shared_memory: u64,
    /// What judges the program's system calls: a [`crate::sys::Filter`], or nothing.
    pub(super) filter: Option<Blob>,
    pub(super) security: Security,
    /// Another process answers for ids and owners: the channel to it follows the mounts.
    pub(super) supervised: bool,
    /// Root inside is root of the host.
    pub(super) host_root: bool,
    /// Two directories of the host that are the engine's alone: where the root is attached before it becomes the
    /// root, and where what is to be seen in parts is.
    pub(super) place: PathBuf,
    pub(super) work: PathBuf,
}

/// A [`super::Mount`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) target: TreePath,
    pub(super) what: Source,
    pub(super) readonly: bool,
}

/// A [`super::MountSource`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Source {
    Tmpfs(Option<u64>),
    File {
        bytes: Blob,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// The next of the passed mounts.
    Host,
    Overlay {
        lowers: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        path: TreePath,
    },
}

/// So many bytes after the JSON; they come in the order in which the orders name them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Blob {
    pub(super) at: usize,
    pub(super) len: usize,
}

/// The bytes of files, while orders are written.
#[derive(Debug, Default)]
pub(super) struct Blobs(Vec<u8>);

impl Blobs {
    pub(super) fn add(&mut self, bytes: &[u8]) -> Blob {
        let at = self.0.len();
        self.0.extend_from_slice(bytes);
        Blob { at, len: bytes.len() }
    }

    pub(super) fn find(&self, blob: Blob) -> &[u8] {
        blob.at.checked_add(blob.len).and_then(|end| self.0.get(blob.at..end)).unwrap_or_default()
    }
}

impl Orders {
    /// Into a memory file.
    pub(super) fn write(&self, blobs: &Blobs) -> io::Result<OwnedFd> {
        let mut file = File::from(rustix::fs::memfd_create(c"orders", MemfdFlags::CLOEXEC)?);
        let text = serde_json::to_vec(self)?;
        file.write_all(&(text.len() as u64).to_le_bytes())?;
        file.write_all(&text)?;
        file.write_all(&blobs.0)?;
        file.rewind()?;
        Ok(file.into())
    }

    /// From the memory file.
    pub(super) fn read(file: OwnedFd) -> io::Result<(Self, Blobs)> {
        let mut all = Vec::new();
        File::from(file).read_to_end(&mut all)?;
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let (len, rest) = all.split_first_chunk::<8>().ok_or_else(broken)?;
        let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_too_large| broken())?;
        let (text, bytes) = rest.split_at_checked(len).ok_or_else(broken)?;
        Ok((serde_json::from_slice(text)?, Blobs(bytes.to_vec())))
    }
}

/// What pid 1 says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The root is complete; these mountpoints were made in it.
    Mounted(Vec<Stub>),
    /// The step has the engine's /proc, and no fresh one. Before the program is started.
    OuterProc,
    /// Nothing was run.
    Failed(InitError),
    /// The program exited.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
}

impl Report {
    pub(super) fn send(&self, to: &OwnedFd) -> io::Result<()> {
        rustix::net::send(to, &serde_json::to_vec(self)?, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next one. `WouldBlock` if there is none now.
    pub(super) fn receive(from: &OwnedFd) -> io::Result<Self> {
        // A message on such a socket is at most as large as its send buffer, 212,992 bytes by default.
        let mut buffer = vec![0; 1 << 18];
        let (read, _) = rustix::net::recv(from, &mut buffer[..], RecvFlags::DONTWAIT)?;
        match read {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(serde_json::from_slice(buffer.get(..read).unwrap_or_default())?),
        }
    }
}
