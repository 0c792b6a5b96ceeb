//! Extended attributes: the mark is not listed, and cannot be set or removed. The other ones are set and removed here, on what
//! the path led to and by the name that was looked at; a name that changes after the look is nobody's way to the mark.
//!
//! Source: listxattr(2), setxattr(2), removexattr(2), xattr(7).

use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::{fs::XattrFlags, io::Errno};

use super::{
    Answer, State, paths,
    rights::{Subject, WRITE},
    task::{CWD, Task},
};
use crate::{sys::asking::Call, tree::MARK};

/// The kernel's limits: of a list, and of a value.
const LONGEST: usize = 1 << 16;
const NO_FOLLOW: u32 = 0x100;

impl State {
    /// listxattr, llistxattr, flistxattr.
    #[expect(clippy::unused_self, reason = "one of the families of calls")]
    pub(super) fn list_attributes(&self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        let found = match call {
            Call::Listxattr => paths::named(task, CWD, 0, 0),
            Call::Llistxattr => paths::named(task, CWD, 0, NO_FOLLOW),
            _ => task.base(task.fd(0)),
        };
        let Ok(found) = found else { return Ok(Answer::Continue) };
        let mut list = vec![0; LONGEST];
        let length = rustix::fs::listxattr(name(&found), list.as_mut_slice())?;
        list.truncate(length);
        let shown: Vec<u8> =
            list.split_inclusive(|byte| *byte == 0).filter(|name| !is_mark(name.trim_ascii_end())).flatten().copied().collect();
        let room = usize::try_from(task.word(2)).unwrap_or(usize::MAX);
        if room != 0 {
            if room < shown.len() {
                return Err(Errno::RANGE);
            }
            if !shown.is_empty() {
                task.write(task.word(1), &shown)?;
            }
        }
        Ok(Answer::Value(i64::try_from(shown.len()).unwrap_or(0)))
    }

    /// setxattr, lsetxattr, fsetxattr.
    pub(super) fn set_attribute(&self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        let attribute = task.text(1)?;
        if is_mark(&attribute) {
            return Err(Errno::PERM);
        }
        let found = match call {
            Call::Setxattr => paths::named(task, CWD, 0, 0),
            Call::Lsetxattr => paths::named(task, CWD, 0, NO_FOLLOW),
            _ => task.base(task.fd(0)),
        }?;
        self.may_change(task, &found, &attribute)?;
        let size = usize::try_from(task.word(3)).ok().filter(|size| *size <= LONGEST).ok_or(Errno::TOOBIG)?;
        let value = if size == 0 { Vec::new() } else { task.bytes(task.word(2), size)? };
        task.waits()?;
        let flags = XattrFlags::from_bits(task.number(4)).ok_or(Errno::INVAL)?;
        rustix::fs::setxattr(name(&found), attribute.as_slice(), &value, flags)?;
        Ok(Answer::Value(0))
    }

    /// removexattr, lremovexattr, fremovexattr.
    pub(super) fn remove_attribute(&self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        let attribute = task.text(1)?;
        if is_mark(&attribute) {
            return Err(Errno::NODATA);
        }
        let found = match call {
            Call::Removexattr => paths::named(task, CWD, 0, 0),
            Call::Lremovexattr => paths::named(task, CWD, 0, NO_FOLLOW),
            _ => task.base(task.fd(0)),
        }?;
        self.may_change(task, &found, &attribute)?;
        task.waits()?;
        rustix::fs::removexattr(name(&found), attribute.as_slice())?;
        Ok(Answer::Value(0))
    }

    /// Who is not root may change what it may write, and lists of rights of what it owns.
    fn may_change(&self, task: &Task<'_>, found: &OwnedFd, attribute: &[u8]) -> Result<(), Errno> {
        let who = self.registry.of(task.thread())?;
        if who.overrides() {
            return Ok(());
        }
        let subject = Subject::of(&self.marks, found)?;
        if attribute.starts_with(b"user.") {
            if subject.allows(&who, WRITE) { Ok(()) } else { Err(Errno::ACCESS) }
        } else if attribute.starts_with(b"system.") && subject.belongs_to(&who) {
            Ok(())
        } else {
            Err(Errno::PERM)
        }
    }
}

/// The supervisor's working directory has its own fds as names.
fn name(found: &OwnedFd) -> String {
    found.as_raw_fd().to_string()
}

/// Is it the mark, or something else that is named as ours?
fn is_mark(attribute: &[u8]) -> bool {
    let ours = MARK.as_bytes();
    attribute == ours || attribute.strip_suffix(b"\0") == Some(ours) || attribute.starts_with(b"user.lapstrake.")
}
