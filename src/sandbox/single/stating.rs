//! The calls that say what a file is: with its recorded owner in the place of the kernel's. What has none is the kernel's
//! to answer, and so is every error.
//!
//! Source: stat(2), statx(2), access(2), faccessat2(2).

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::{
    Answer, State,
    credentials::{Credentials, Ids},
    paths,
    rights::Subject,
    task::{CWD, Task},
};
use crate::sys::{
    asking::Call,
    task::{RawStat, RawStatx},
};

const NO_FOLLOW: u32 = 0x100;

impl State {
    /// stat, lstat, fstat, fstatat, statx.
    pub(super) fn stat(&self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        let found = match call {
            Call::Stat => paths::named(task, CWD, 0, 0),
            Call::Lstat => paths::named(task, CWD, 0, NO_FOLLOW),
            Call::Fstat => task.base(task.fd(0)),
            Call::Newfstatat => paths::named(task, task.fd(0), 1, task.number(3)),
            _ => paths::named(task, task.fd(0), 1, task.number(2)),
        };
        let Ok(found) = found else { return Ok(Answer::Continue) };
        let Ok(mut stat) = RawStat::of(&found) else { return Ok(Answer::Continue) };
        let Some(owner) = self.recorded(&found, stat.mode()) else { return Ok(Answer::Continue) };
        if call == Call::Statx {
            let mut statx = RawStatx::of(&found, task.number(2), task.number(3))?;
            statx.set_owner(owner.uid, owner.gid);
            task.write(task.word(4), statx.bytes())?;
        } else {
            stat.set_owner(owner.uid, owner.gid);
            let at = if call == Call::Newfstatat { 2 } else { 1 };
            task.write(task.word(at), stat.bytes())?;
        }
        Ok(Answer::Value(0))
    }

    fn recorded(&self, found: &OwnedFd, mode: u32) -> Option<crate::tree::Owner> {
        self.marks.recorded(found, mode)
    }

    /// access, faccessat, faccessat2: the kernel would allow everything that root may.
    pub(super) fn access(&self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        const EFFECTIVE: u32 = 0x200;
        let who = self.registry.of(task.thread())?;
        let (from, path, wanted, flags) = match call {
            Call::Access => (CWD, 0, task.number(1), 0),
            Call::Faccessat => (task.fd(0), 1, task.number(2), 0),
            _ => (task.fd(0), 1, task.number(2), task.number(3)),
        };
        let real = |ids: Ids| Ids { files: ids.real, ..ids };
        let who = if flags & EFFECTIVE == 0 {
            Credentials { users: real(who.users), groups: real(who.groups), ..(*who).clone() }
        } else {
            (*who).clone()
        };
        if who.overrides() || wanted.trailing_zeros() > 2 {
            return Ok(Answer::Continue);
        }
        let Ok(found) = paths::named(task, from, path, flags) else { return Ok(Answer::Continue) };
        if Subject::of(&self.marks, &found)?.allows(&who, wanted & 7) { Ok(Answer::Continue) } else { Err(Errno::ACCESS) }
    }
}
