//! A step with one user id, in which ownership is kept all the same: a process of its own answers the calls that would show
//! that there is one id, or that the kernel would refuse because of it.
//!
//! ```text
//! engine ──▶ step-supervisor (one thread, in the step's user namespace) ◀── listener ── the step's program
//!    ▲             │ answers, one call after the other                       (filter installed before its exec)
//!    └─ table ─────┘ of owners that are no marks, when nobody is left who could call
//! ```
//!
//! - `filter`: which calls. `task`, `paths`: who asks, and what it means. `credentials`: who it believes to be.
//! - `marks`: whose a file is. `rights`: what that allows.
//! - one file for each family of calls: `identity`, `stating`, `owning`, `creating`, `executing`, `attributes`, `peers`.
//! - `process`: the supervisor as a process, and the engine's hold of it.
//!
//! The supervisor has the rights of the step's root and no more: what a hostile step makes of it is what it could do itself.
//! It resolves no path through a link that is no text, acts on fds and not on paths, and asks before it acts whether who
//! called still waits. If it dies, the step dies.
//!
//! Source: `seccomp_unotify(2)`, SANDBOX.md of the design (section 10).

#![expect(clippy::wildcard_enum_match_arm, reason = "each family answers its own calls, and is given no others")]

mod attributes;
mod creating;
mod credentials;
mod executing;
mod filter;
mod identity;
mod marks;
mod owning;
mod paths;
mod peers;
mod process;
mod rights;
mod stating;
mod task;

pub(super) use credentials::FIRST;
pub(super) use filter::filter;
pub(super) use process::{Orders, Supervisor};
pub use process::{SUPERVISOR, supervisor_main};

use rustix::{io::Errno, process::Pid};

use crate::sys::asking::{Asked, Call, Listener, Reply};
use credentials::Registry;
use marks::Marks;
use task::{Task, Window};

/// How a call is answered.
enum Answer {
    /// It returns this.
    Value(i64),
    /// The kernel does it.
    Continue,
    /// It has its answer, an fd.
    Given,
}

/// What the supervisor knows of the step.
struct State {
    registry: Registry,
    marks: Marks,
    bound: Vec<peers::Bound>,
    /// pid 1 of the step, if others can be found by it.
    init: Option<Pid>,
}

impl State {
    fn answer(&mut self, window: &Window, listener: &Listener, asked: &Asked) {
        let task = Task::new(window, listener, asked);
        match asked.call.map_or(Ok(Answer::Continue), |call| self.call(&task, call)) {
            Ok(Answer::Value(value)) => listener.reply(asked, Reply::Value(value)),
            Ok(Answer::Continue) => listener.reply(asked, Reply::Continue),
            Ok(Answer::Given) => {}
            Err(errno) => listener.reply(asked, Reply::Error(errno)),
        }
    }

    fn call(&mut self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        if !self.bound.is_empty() {
            self.own_bound();
        }
        match call {
            Call::Newfstatat | Call::Fstat | Call::Statx | Call::Stat | Call::Lstat => self.stat(task, call),
            Call::Access | Call::Faccessat | Call::Faccessat2 => self.access(task, call),
            Call::Open | Call::Openat | Call::Openat2 | Call::Creat => self.open(task, call),
            Call::Mkdir | Call::Mkdirat | Call::Symlink | Call::Symlinkat | Call::Mknod | Call::Mknodat => self.make(task, call),
            Call::Chown | Call::Lchown | Call::Fchown | Call::Fchownat => self.chown(task, call),
            Call::Chmod | Call::Fchmod | Call::Fchmodat | Call::Fchmodat2 => self.chmod(task, call),
            Call::Unlink | Call::Unlinkat | Call::Rmdir | Call::Rename | Call::Renameat | Call::Renameat2 => self.remove(task, call),
            Call::Execve | Call::Execveat => self.execute(task, call),
            Call::Listxattr | Call::Llistxattr | Call::Flistxattr => self.list_attributes(task, call),
            Call::Setxattr | Call::Lsetxattr | Call::Fsetxattr => self.set_attribute(task, call),
            Call::Removexattr | Call::Lremovexattr | Call::Fremovexattr => self.remove_attribute(task, call),
            Call::Getsockopt => self.peer(task),
            Call::Bind => self.bind(task),
            _ => self.identity(task, call),
        }
    }
}
