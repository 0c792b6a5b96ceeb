//! chown, and what only an owner may: chmod, and taking names from directories.
//!
//! A chown is done here, on what the path led to, and never left to the kernel once it matters: first to the one id that
//! there is, which copies a file up, checks what only the kernel knows, and takes away setuid bits and capabilities as any
//! chown does; then the mark.
//!
//! Source: chown(2), chmod(2), unlink(2), rename(2).

use std::os::fd::OwnedFd;

use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Uid},
    io::Errno,
};

use super::{
    Answer, State,
    credentials::{Credentials, NONE},
    paths::{self, Route, Spot},
    rights::{Subject, may_remove, may_write_in},
    task::{CWD, Task, c_string},
};
use crate::{sys::asking::Call, tree::Owner};

const NO_FOLLOW: u32 = 0x100;

impl State {
    /// chown, lchown, fchown, fchownat.
    pub(super) fn chown(&mut self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        let (found, ids) = match call {
            Call::Chown => (paths::named(task, CWD, 0, 0), 1),
            Call::Lchown => (paths::named(task, CWD, 0, NO_FOLLOW), 1),
            Call::Fchown => (task.base(task.fd(0)), 1),
            _ => (paths::named(task, task.fd(0), 1, task.number(4)), 2),
        };
        let found = match found {
            // What the supervisor does not resolve, the kernel does, and owners other than the one id it refuses.
            Err(Errno::LOOP | Errno::XDEV | Errno::AGAIN) => return Ok(Answer::Continue),
            other => other?,
        };
        let (uid, gid) = (task.number(ids), task.number(ids + 1));
        let who = self.registry.of(task.thread())?;
        let subject = Subject::of(&self.marks, &found)?;
        if !may_give(&who, subject.owner, uid, gid) {
            return Err(Errno::PERM);
        }
        task.waits()?;
        let own = |id: u32| (id != NONE).then_some(0);
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&found, c"", own(uid).map(Uid::from_raw), own(gid).map(Gid::from_raw), flags)?;
        let or = |id: u32, old: u32| if id == NONE { old } else { id };
        let owner = Owner { uid: or(uid, subject.owner.uid), gid: or(gid, subject.owner.gid) };
        if owner != subject.owner {
            self.marks.give(&found, subject.mode, owner)?;
        } else if owner != Owner::ROOT {
            // The kernel's own chown may have copied it to another inode, which the table does not know.
            self.marks.give(&found, subject.mode, owner)?;
        }
        Ok(Answer::Value(0))
    }

    /// chmod, fchmod, fchmodat, fchmodat2: the owner's and root's; then the kernel does it.
    pub(super) fn chmod(&self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        let who = self.registry.of(task.thread())?;
        if who.overrides() {
            return Ok(Answer::Continue);
        }
        let found = match call {
            Call::Chmod => paths::named(task, CWD, 0, 0),
            Call::Fchmod => task.base(task.fd(0)),
            Call::Fchmodat => paths::named(task, task.fd(0), 1, 0),
            _ => paths::named(task, task.fd(0), 1, task.number(3)),
        };
        let Ok(found) = found else { return Ok(Answer::Continue) };
        if Subject::of(&self.marks, &found)?.belongs_to(&who) { Ok(Answer::Continue) } else { Err(Errno::PERM) }
    }

    /// unlink, rmdir, rename and the like, for who is not root: by the directory's rights; then the kernel does it.
    pub(super) fn remove(&self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        let who = self.registry.of(task.thread())?;
        if who.overrides() {
            return Ok(Answer::Continue);
        }
        let (first, second) = match call {
            Call::Unlink | Call::Rmdir => ((CWD, 0), None),
            Call::Unlinkat => ((task.fd(0), 1), None),
            Call::Rename => ((CWD, 0), Some((CWD, 1))),
            _ => ((task.fd(0), 1), Some((task.fd(2), 3))),
        };
        if let Some(spot) = self.there(task, first) {
            // What is not there is the kernel's to say.
            let Some(named) = spot.1 else { return Ok(Answer::Continue) };
            may_remove(&self.marks, &who, &spot.0.parent, Some(&named))?;
        }
        if let Some(spot) = second.and_then(|route| self.there(task, route)) {
            may_write_in(&self.marks, &who, &spot.0.parent)?;
            may_remove(&self.marks, &who, &spot.0.parent, spot.1.as_ref())?;
        }
        Ok(Answer::Continue)
    }

    #[expect(clippy::unused_self, reason = "it belongs to the calls above")]
    fn there(&self, task: &Task<'_>, (from, path): (i32, usize)) -> Option<(Spot, Option<OwnedFd>)> {
        let spot = paths::spot(task, &Route { from, path: task.text(path).ok()? }).ok()?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let named = rustix::fs::openat(&spot.parent, c_string(&spot.name).ok()?, flags, Mode::empty()).ok();
        Some((spot, named))
    }
}

/// Root gives files to anybody; an owner only to a group of its own.
fn may_give(who: &Credentials, has: Owner, uid: u32, gid: u32) -> bool {
    let same_user = uid == NONE || uid == has.uid;
    let own_group = gid == NONE || gid == has.gid || who.is_in(gid);
    who.overrides() || (who.users.files == has.uid && same_user && own_group)
}
