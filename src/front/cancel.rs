//! The way to stop a build from another thread.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Mutex,
};

/// A pipe whose read end hangs up when the build is cancelled, or when this process ends, however it ends.
#[derive(Debug)]
pub struct Cancel {
    lifeline: OwnedFd,
    held: Mutex<Option<OwnedFd>>,
}

impl Cancel {
    /// Not cancelled.
    pub fn new() -> io::Result<Self> {
        let (lifeline, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok(Self { lifeline, held: Mutex::new(Some(held)) })
    }

    /// Cancels, once and for all.
    pub fn cancel(&self) {
        if let Ok(mut held) = self.held.lock() {
            drop(held.take());
        }
    }

    /// Was it cancelled?
    pub fn is_cancelled(&self) -> bool {
        self.held.lock().is_ok_and(|held| held.is_none())
    }

    /// What the engine watches.
    pub fn lifeline(&self) -> BorrowedFd<'_> {
        self.lifeline.as_fd()
    }
}
