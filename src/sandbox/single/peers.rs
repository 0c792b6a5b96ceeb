//! Unix sockets: who is at the other end, of whom the kernel would say that it is root; and whose the file is that one is
//! bound to. The kernel binds, because it is the caller's name that the address keeps; the file gets its owner with the next
//! call that anybody makes.
//!
//! Source: unix(7), `SO_PEERCRED` and `SO_PEERGROUPS`; bind(2).

use std::os::fd::OwnedFd;

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

use super::{
    Answer, State,
    paths::{self, Route},
    rights::may_write_in,
    task::{CWD, Task, c_string},
};
use crate::{sys::task, tree::Owner};

const SO_PEERCRED: u32 = 17;

/// A name that a socket is about to be bound to.
pub(super) struct Bound {
    parent: OwnedFd,
    name: Vec<u8>,
    owner: Owner,
    /// How many calls it may still be waited for.
    left: u32,
}

/// How many are waited for, and for how long.
const MOST: (usize, u32) = (16, 1000);

impl State {
    /// getsockopt with one of the two.
    pub(super) fn peer(&self, task: &Task<'_>) -> Result<Answer, Errno> {
        let Ok(socket) = task.copy(task.fd(0)) else { return Ok(Answer::Continue) };
        let Ok(Some(peer)) = task::peer_of(&socket) else { return Ok(Answer::Continue) };
        // Somebody who is gone was root to the kernel, and nobody knows better.
        let Ok(who) = self.registry.of(peer) else { return Ok(Answer::Continue) };
        let size = task.bytes(task.word(4), 4)?;
        let room = size.as_chunks::<4>().0.first().map_or(0, |size| u32::from_ne_bytes(*size)) as usize;
        let (bytes, cut) = if task.number(2) == SO_PEERCRED {
            let names = task.window().status(peer, "NSpid:")?;
            let inside: u32 = names.split_whitespace().last().and_then(|pid| pid.parse().ok()).ok_or(Errno::SRCH)?;
            let all = [inside, who.users.effective, who.groups.effective];
            (all.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>(), room.min(12))
        } else {
            let all: Vec<u8> = who.others.iter().flat_map(|group| group.to_ne_bytes()).collect();
            let needed = all.len();
            if room < needed {
                task.write(task.word(4), &u32::try_from(needed).unwrap_or(0).to_ne_bytes())?;
                return Err(Errno::RANGE);
            }
            (all, needed)
        };
        if cut > 0 {
            task.write(task.word(3), bytes.get(..cut).unwrap_or_default())?;
        }
        task.write(task.word(4), &u32::try_from(cut).unwrap_or(0).to_ne_bytes())?;
        Ok(Answer::Value(0))
    }
    /// bind: to a path, by somebody else than root.
    pub(super) fn bind(&mut self, task: &Task<'_>) -> Result<Answer, Errno> {
        const UNIX: [u8; 2] = 1_u16.to_ne_bytes();
        let length = usize::try_from(task.word(2)).unwrap_or(usize::MAX).min(110);
        let Ok(address) = task.bytes(task.word(1), length) else { return Ok(Answer::Continue) };
        let Some(path) = address.strip_prefix(&UNIX) else { return Ok(Answer::Continue) };
        let path: Vec<u8> = path.iter().copied().take_while(|byte| *byte != 0).collect();
        if path.is_empty() {
            return Ok(Answer::Continue);
        }
        let Ok(spot) = paths::spot(task, &Route { from: CWD, path }) else { return Ok(Answer::Continue) };
        let who = self.registry.of(task.thread())?;
        let Some(owner) = self.owner_in(&who, &spot.parent)? else { return Ok(Answer::Continue) };
        if rustix::fs::statat(&spot.parent, c_string(&spot.name)?, AtFlags::SYMLINK_NOFOLLOW).is_err() {
            may_write_in(&self.marks, &who, &spot.parent)?;
            self.bound.truncate(MOST.0 - 1);
            self.bound.insert(0, Bound { parent: spot.parent, name: spot.name, owner, left: MOST.1 });
        }
        Ok(Answer::Continue)
    }

    /// Gives the sockets that were bound meanwhile to who bound them.
    pub(super) fn own_bound(&mut self) {
        let marks = &mut self.marks;
        self.bound.retain_mut(|bound| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = c_string(&bound.name).and_then(|name| rustix::fs::openat(&bound.parent, name, flags, Mode::empty()));
            let Ok(found) = found else {
                bound.left = bound.left.saturating_sub(1);
                return bound.left > 0;
            };
            if let Ok(stat) = rustix::fs::fstat(&found)
                && FileType::from_raw_mode(stat.st_mode) == FileType::Socket
            {
                // If there is no room for it in the table it stays root's.
                marks.give(&found, stat.st_mode, bound.owner).ok();
            }
            false
        });
    }
}
