//! Everything that a process started, at whatever remove, and its end. Where there is no pid namespace whose end would end it
//! all, a child subreaper gets every orphan, and kills until it has no child left.
//!
//! Source: `PR_SET_CHILD_SUBREAPER(2const)`, `proc_tid_children(5)`.

use std::{fs::File, io::Read as _, os::fd::OwnedFd, time::Duration};

use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    process::{Pid, Signal, WaitOptions},
};

use super::InitError;

/// The descendants of this process. They can be found when /proc can no longer be seen.
#[derive(Debug)]
pub(super) struct Family {
    thread: OwnedFd,
}

impl Family {
    /// Makes this process the one that orphans below it come to. Called on its first thread, to which they come.
    pub(super) fn adopt() -> Result<Self, InitError> {
        let failed = |path: &'static str| InitError::new::<Errno>("watch", path);
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(failed("the processes of a step"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let thread = rustix::fs::openat(CWD, c"/proc/thread-self", flags, Mode::empty()).map_err(failed("/proc/thread-self"))?;
        let family = Self { thread };
        family.children().map_err(failed("/proc/thread-self/children"))?;
        Ok(family)
    }

    fn children(&self) -> Result<Vec<Pid>, Errno> {
        let file = rustix::fs::openat(&self.thread, c"children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(text.split_whitespace().filter_map(|number| number.parse().ok().and_then(Pid::from_raw)).collect())
    }

    /// Kills and reaps until there is nobody. What a killed one has started comes here, and is next.
    pub(super) fn end(&self) {
        for round in 0_u32.. {
            // Not yet reaped, so the numbers are still theirs.
            for child in self.children().unwrap_or_default() {
                // Refused only to what is dead already.
                rustix::process::kill_process(child, Signal::KILL).ok();
            }
            loop {
                match rustix::process::wait(WaitOptions::NOHANG) {
                    Ok(Some(_)) | Err(Errno::INTR) => {}
                    Ok(None) => break,
                    // There is no child.
                    Err(_) => return,
                }
            }
            if round > EAGER {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// So many rounds without a rest: who forks and ends again and again is met by being faster.
const EAGER: u32 = 1000;
