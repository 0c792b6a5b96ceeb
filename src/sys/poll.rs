//! Asking whether something can be read, without waiting.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, poll};

/// Is there something to read, or has the other end hung up?
pub fn is_ready(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}
