//! Starting programs: setuid and setgid bits count by the recorded owner. Then the kernel starts the program, which it has
//! nothing to change for.
//!
//! Source: execve(2), credentials(7).

use std::{
    io::Read as _,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::{
    fs::{FileType, Mode, OFlags, StatVfsMountFlags},
    io::Errno,
};

use super::{
    Answer, State, paths,
    rights::{SEARCH, Subject},
    task::{CWD, Task},
};
use crate::sys::asking::Call;

const SET_USER: u32 = 0o4000;
/// The setgid bit, and the right to execute that makes it one.
const SET_GROUP: u32 = 0o2010;

impl State {
    /// execve, execveat.
    pub(super) fn execute(&mut self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        let found = if call == Call::Execve { paths::named(task, CWD, 0, 0) } else { paths::named(task, task.fd(0), 1, task.number(4)) };
        let Ok(found) = found else { return Ok(Answer::Continue) };
        let subject = Subject::of(&self.marks, &found)?;
        if FileType::from_raw_mode(subject.mode) != FileType::RegularFile {
            return Ok(Answer::Continue);
        }
        let who = self.registry.of(task.thread())?;
        if !subject.allows(&who, SEARCH) {
            return Err(Errno::ACCESS);
        }
        let (mut user, mut group) = (None, None);
        if subject.mode & (SET_USER | 0o2000) != 0 && !task.gains_nothing()? && counts(&found)? {
            user = (subject.mode & SET_USER != 0).then_some(subject.owner.uid);
            group = (subject.mode & SET_GROUP == SET_GROUP).then_some(subject.owner.gid);
        }
        let new = who.after_exec(user, group);
        if new != *who {
            task.waits()?;
            self.registry.give(task.thread(), new)?;
        }
        Ok(Answer::Continue)
    }
}

/// Do the bits of that file count? Not of a script, whose interpreter is what runs, nor where the mount says so.
fn counts(found: &OwnedFd) -> Result<bool, Errno> {
    if rustix::fs::fstatvfs(found)?.f_flag.contains(StatVfsMountFlags::NOSUID) {
        return Ok(false);
    }
    let file = rustix::fs::open(found.as_raw_fd().to_string(), OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let mut begins = [0; 2];
    let read = std::fs::File::from(file).read(&mut begins).unwrap_or(0);
    Ok(read < 2 || begins != *b"#!")
}
