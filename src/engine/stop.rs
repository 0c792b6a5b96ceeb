//! What ends a build before its time: the user's side, whose lifeline hangs up, or a step that failed.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Mutex,
    time::Duration,
};

use rustix::{
    event::epoll,
    pipe::{PipeFlags, pipe_with},
};

use super::whole;
use crate::{
    error::{Error, Kind},
    sys,
};

/// One fd that is readable as soon as either says so.
pub(super) struct Stop {
    /// An epoll of the lifeline and of `ours`: what is waited for by whoever waits for one fd.
    either: OwnedFd,
    ours: OwnedFd,
    /// Closed by [`Stop::now`].
    held: Mutex<Option<OwnedFd>>,
}

impl Stop {
    /// Not yet. `lifeline` is readable or hung up as soon as the build is cancelled.
    pub(super) fn of(lifeline: BorrowedFd<'_>) -> Result<Self, Error> {
        let failed =
            |errno: rustix::io::Errno| Error::new(Kind::Environment, "cannot watch the lifeline").because(&std::io::Error::from(errno));
        let (ours, held) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let either = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        for (number, fd) in [(0, lifeline), (1, ours.as_fd())] {
            epoll::add(&either, fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN).map_err(failed)?;
        }
        Ok(Self { either, ours, held: Mutex::new(Some(held)) })
    }

    /// Readable from then on.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.either
    }

    /// Ends all that runs.
    pub(super) fn now(&self) {
        drop(whole(&self.held).take());
    }

    /// An error if it is time.
    pub(super) fn go_on(&self) -> Result<(), Error> {
        if sys::is_ready(self.either.as_fd()) { Err(interrupted()) } else { Ok(()) }
    }

    /// Waits so long, or until it is time.
    pub(super) fn go_on_after(&self, pause: Duration) -> Result<(), Error> {
        if sys::is_ready_within(self.either.as_fd(), pause) { Err(interrupted()) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stop").field("ours", &self.ours).finish_non_exhaustive()
    }
}

/// Nobody's fault: what is shown is who asked for it, or the step that failed.
pub(super) fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "the build was interrupted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_side_ends_the_build() {
        let (lifeline, theirs) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (one, other) = (Stop::of(lifeline.as_fd()).unwrap(), Stop::of(lifeline.as_fd()).unwrap());
        assert!(one.go_on().is_ok() && one.go_on_after(Duration::from_millis(1)).is_ok());
        one.now();
        assert_eq!(one.go_on().unwrap_err().kind, Kind::Interrupted);
        assert!(other.go_on().is_ok());
        drop(theirs);
        assert!(other.go_on_after(Duration::from_mins(1)).is_err());
    }
}
