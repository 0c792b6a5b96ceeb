//! Waiting for the signals that end a program.

use std::{io, mem::MaybeUninit};

/// The signals that ask a program to end: the terminal's, a supervisor's, a lost terminal's.
const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

fn ending() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the whole set behind a pointer that is valid for writing; it cannot fail for a valid pointer.
    let _zero = unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the call above has initialised it.
    let mut set = unsafe { set.assume_init() };
    for signal in ENDING {
        // SAFETY: the set is initialised and borrowed for the call; the numbers are valid signals.
        let _zero = unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// Blocks the ending signals in this thread and in the threads it starts from now on; [`wait_for_ending`] gets them instead.
pub fn block_ending() -> io::Result<()> {
    let set = ending();
    // SAFETY: the set is initialised and lives through the call; no old mask is asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Waits for one of the signals that [`block_ending`] blocked; its number.
pub fn wait_for_ending() -> io::Result<i32> {
    let set = ending();
    let mut signal = 0;
    // SAFETY: both pointers are to live locals of the right types.
    match unsafe { libc::sigwait(&raw const set, &raw mut signal) } {
        0 => Ok(signal),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
