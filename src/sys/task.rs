//! What one process may do to another that it supervises: its memory, a limit of it; and what `stat` says in the very
//! bytes that the other one asked for.
//!
//! Source: `process_vm_readv(2)`, prlimit(2), stat(2), statx(2).

use std::{
    os::fd::{AsFd, AsRawFd as _},
    ptr,
};

use rustix::{io::Errno, process::Pid};

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Reads memory of another process, all of it or an error.
pub fn read_memory(of: Pid, at: u64, into: &mut [u8]) -> Result<(), Errno> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec {
        iov_base: ptr::with_exposed_provenance_mut(usize::try_from(at).map_err(|_too_large| Errno::FAULT)?),
        iov_len: into.len(),
    };
    // SAFETY: the local part is the slice; the remote one is checked by the kernel.
    let read = unsafe { libc::process_vm_readv(of.as_raw_nonzero().get(), &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(read) {
        Ok(read) if read == into.len() => Ok(()),
        Ok(_) => Err(Errno::FAULT),
        Err(_) => Err(last()),
    }
}

/// Writes memory of another process, all of it or an error.
pub fn write_memory(of: Pid, at: u64, from: &[u8]) -> Result<(), Errno> {
    let local = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let remote = libc::iovec {
        iov_base: ptr::with_exposed_provenance_mut(usize::try_from(at).map_err(|_too_large| Errno::FAULT)?),
        iov_len: from.len(),
    };
    // SAFETY: the local part is the slice, which is only read; the remote one is checked by the kernel.
    let written = unsafe { libc::process_vm_writev(of.as_raw_nonzero().get(), &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(written) {
        Ok(written) if written == from.len() => Ok(()),
        Ok(_) => Err(Errno::FAULT),
        Err(_) => Err(last()),
    }
}

/// The soft limit `RLIMIT_LOCKS` of a process; `None`: there is none. The kernel has ignored this limit since 2.4.25, copies
/// it on fork and keeps it on exec: a number that goes with a process.
pub fn number_of(process: Pid) -> Result<Option<u64>, Errno> {
    let soft = limit(process)?.rlim_cur;
    Ok((soft != libc::RLIM64_INFINITY).then_some(soft))
}

fn limit(process: Pid) -> Result<libc::rlimit64, Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the structure; a null new limit changes nothing.
    match unsafe { libc::prlimit64(process.as_raw_nonzero().get(), libc::RLIMIT_LOCKS, ptr::null(), &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(last()),
    }
}

/// Sets what [`number_of`] says.
pub fn set_number_of(process: Pid, number: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: number, ..limit(process)? };
    // SAFETY: reads the structure; the old limit is not asked for.
    match unsafe { libc::prlimit64(process.as_raw_nonzero().get(), libc::RLIMIT_LOCKS, &raw const limit, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(last()),
    }
}

/// What `fstat` says, as the kernel's structure.
#[derive(Clone, Copy)]
pub struct RawStat(libc::stat);

impl RawStat {
    /// Of what an fd is about.
    pub fn of(fd: impl AsFd) -> Result<Self, Errno> {
        // SAFETY: all zeros is a value of this plain structure.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the path is empty, so the fd is what is asked about; the structure is the kernel's own on these machines.
        let result =
            unsafe { libc::syscall(libc::SYS_newfstatat, fd.as_fd().as_raw_fd(), c"".as_ptr(), &raw mut stat, libc::AT_EMPTY_PATH) };
        if result == 0 { Ok(Self(stat)) } else { Err(last()) }
    }

    /// Type and permissions.
    pub fn mode(&self) -> u32 {
        self.0.st_mode
    }

    /// The number of the inode.
    pub fn inode(&self) -> u64 {
        self.0.st_ino
    }

    /// Puts other owners in.
    pub fn set_owner(&mut self, uid: u32, gid: u32) {
        self.0.st_uid = uid;
        self.0.st_gid = gid;
    }

    /// The bytes that `stat` writes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the structure was zeroed and then filled, so all of its bytes are set, and any bytes are a `u8` each.
        unsafe { std::slice::from_raw_parts(ptr::from_ref(&self.0).cast(), size_of::<libc::stat>()) }
    }
}

/// What `statx` says, as the kernel's structure of 256 bytes.
#[derive(Clone, Copy)]
pub struct RawStatx([u8; 256]);

impl RawStatx {
    /// Of what an fd is about. `flags` beyond those of synchronisation are dropped.
    pub fn of(fd: impl AsFd, flags: u32, mask: u32) -> Result<Self, Errno> {
        let mut statx = [0_u8; 256];
        let flags = (flags & 0x6000) | libc::AT_EMPTY_PATH.unsigned_abs();
        // SAFETY: the path is empty, so the fd is what is asked about; the buffer has the structure's size.
        let result = unsafe { libc::syscall(libc::SYS_statx, fd.as_fd().as_raw_fd(), c"".as_ptr(), flags, mask, statx.as_mut_ptr()) };
        if result == 0 { Ok(Self(statx)) } else { Err(last()) }
    }

    /// Puts other owners in.
    pub fn set_owner(&mut self, uid: u32, gid: u32) {
        for (at, number) in [(20, uid), (24, gid)] {
            if let Some(place) = self.0.get_mut(at..at + 4) {
                place.copy_from_slice(&number.to_ne_bytes());
            }
        }
    }

    /// The bytes that `statx` writes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The process at the other end of a unix socket, as a number of our pid namespace; `None`: there is none.
pub fn peer_of(socket: impl AsFd) -> Result<Option<Pid>, Errno> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or_default();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: writes the structure, which has the size said.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, ptr::from_mut(&mut peer).cast(), &raw mut size) };
    if result == 0 { Ok(Pid::from_raw(peer.pid.max(0))) } else { Err(last()) }
}
