//! Waiting for a child, and what it and all that it waited for have used.
//!
//! Source: wait4(2), getrusage(2).

use std::{io, mem::MaybeUninit, os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

use rustix::process::Pid;

/// What processes have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of processors, in the kernel and outside of it.
    pub processors: Duration,
    /// The largest memory that one of them had at a time, in bytes: of one process, not of all together.
    pub peak_memory: u64,
}

/// Waits for the end of a child that nobody has waited for: how it ended, and what it and the descendants that it waited for used.
pub fn reap(child: Pid) -> io::Result<(ExitStatus, Usage)> {
    let mut status = 0;
    let mut used = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are of live places of the right types, which the kernel fills.
        if unsafe { libc::wait4(child.as_raw_nonzero().get(), &raw mut status, 0, used.as_mut_ptr()) } >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: all bytes are set, to zero at first, and every value of each field is one.
    let used = unsafe { used.assume_init() };
    let processors = duration(used.ru_utime) + duration(used.ru_stime);
    let kibibytes = u64::try_from(used.ru_maxrss).unwrap_or(0);
    Ok((ExitStatus::from_raw(status), Usage { processors, peak_memory: kibibytes << 10 }))
}

/// What this process and all that it waited for have used.
pub fn used_by_all() -> Usage {
    let of = |who| {
        let mut used = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the pointer is of a live place of the right type, which the kernel fills. It fails for an unknown `who` alone, and
        // leaves zeros then.
        let _filled = unsafe { libc::getrusage(who, used.as_mut_ptr()) };
        // SAFETY: all bytes are set, to zero at first, and every value of each field is one.
        let used = unsafe { used.assume_init() };
        (duration(used.ru_utime) + duration(used.ru_stime), u64::try_from(used.ru_maxrss).unwrap_or(0) << 10)
    };
    let (ours, theirs) = (of(libc::RUSAGE_SELF), of(libc::RUSAGE_CHILDREN));
    Usage { processors: ours.0 + theirs.0, peak_memory: ours.1.max(theirs.1) }
}

fn duration(time: libc::timeval) -> Duration {
    let (seconds, micros) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_usec).unwrap_or(0));
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, clippy::zombie_processes, reason = "a child to wait for, and it is")]
    fn a_child_is_reaped_with_what_it_used() {
        let spin = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; exit 3";
        let child = std::process::Command::new("/bin/sh").args(["-c", spin]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let (status, used) = reap(pid).unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(used.processors > Duration::from_millis(1) && used.peak_memory > 100 << 10, "{used:?}");
        assert!(reap(pid).is_err());
    }
}
