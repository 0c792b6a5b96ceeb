//! A boundary that abstract sockets do not cross: they have names that no mount namespace hides.
//!
//! Source: landlock(7), `landlock_create_ruleset(2)`, `landlock_restrict_self(2)`.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

/// The kernel's `struct landlock_ruleset_attr` since Linux 6.12.
#[repr(C)]
struct Rules {
    files: u64,
    network: u64,
    scoped: u64,
}

const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;

/// Rules under which a process reaches only abstract sockets of those who have the same rules from the same hand. `None`: the
/// kernel has no such thing (before Linux 6.12, or without Landlock).
pub fn own_abstract_sockets() -> Option<OwnedFd> {
    let rules = Rules { files: 0, network: 0, scoped: SCOPE_ABSTRACT_UNIX_SOCKET };
    // SAFETY: a structure that lives here, and its size; a kernel that knows less of it refuses.
    let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const rules, size_of::<Rules>(), 0) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: a new fd, closed on exec, that nobody else knows.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes the rules upon this process, for good; the caller has `CAP_SYS_ADMIN` in its user namespace, or can gain no
/// privileges. Allocates nothing.
pub(super) fn restrict(rules: BorrowedFd<'_>) -> Result<(), i32> {
    // SAFETY: plain numbers.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
    }
}
