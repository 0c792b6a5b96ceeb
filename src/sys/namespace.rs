//! What rustix has no safe form of, about the process and its namespaces: attributes of whole mount trees, the
//! loopback device, the session keyring, SIGCHLD as an fd.
//!
//! Source: `mount_setattr(2)`, netdevice(7), keyctl(2), signalfd(2).

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use rustix::mount::MountAttrFlags;

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Sets attributes on the mount that `mount` is the root of, and on all below it.
pub fn set_mount_attributes(mount: impl AsFd, set: MountAttrFlags) -> io::Result<()> {
    let attr = MountAttr { set: u64::from(set.bits()), clear: 0, propagation: 0, userns: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    let fd = mount.as_fd().as_raw_fd();
    // SAFETY: the string and the structure live here, and the size is the structure's.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, ptr::from_ref(&attr), size_of::<MountAttr>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Leaves for a new user namespace and a new mount namespace. Refused with EINVAL to a process of several threads.
pub fn unshare_user_and_mounts() -> io::Result<()> {
    // SAFETY: plain numbers; the table of fds stays shared with nobody.
    match unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Leaves for a new mount namespace.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: a plain number; the table of fds stays shared with nobody.
    match unsafe { libc::unshare(libc::CLONE_NEWNS) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Leaves for a new network namespace.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: a plain number; the table of fds stays shared with nobody.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Brings `lo` up in the network namespace of this process.
pub fn raise_loopback() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: all zeros is a value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: the request is the structure that this ioctl reads.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, ptr::from_ref(&request)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Leaves the session keyring that was inherited for a new, empty one.
pub fn leave_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name means a new one without a name.
    match unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Names the host in the uts namespace of this process.
pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of one slice.
    match unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// An fd that is readable when a child has ended. SIGCHLD is blocked from now on in this thread.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: all zeros is a value of this plain structure.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set that lives here.
    unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: a set that lives here.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGCHLD) };
    // SAFETY: a set that lives here; the old one is not wanted.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
    // SAFETY: a set that lives here; -1 asks for a new fd.
    match unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: a new fd that nobody else knows.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// The program that runs, as an fd that it can be started from again even if its file is replaced. Where the caller
/// may mount, it is a read-only view: what reaches it through `/proc/PID/exe` cannot write to it.
pub fn own_program() -> io::Result<OwnedFd> {
    use rustix::{fs, mount};
    let plain = fs::open(c"/proc/self/exe", fs::OFlags::PATH | fs::OFlags::CLOEXEC, fs::Mode::empty())?;
    let flags = mount::OpenTreeFlags::OPEN_TREE_CLONE | mount::OpenTreeFlags::OPEN_TREE_CLOEXEC;
    // By its path: the file that runs is on a mount of the namespace that it was started in, which may be another.
    let path = fs::readlink(c"/proc/self/exe", Vec::new())?;
    let Ok(view) = mount::open_tree(fs::CWD, path, flags) else { return Ok(plain) };
    let (runs, found) = (fs::fstat(&plain)?, fs::fstat(&view)?);
    let same = (runs.st_dev, runs.st_ino) == (found.st_dev, found.st_ino);
    let protected = same && set_mount_attributes(&view, MountAttrFlags::MOUNT_ATTR_RDONLY).is_ok();
    Ok(if protected { view } else { plain })
}
