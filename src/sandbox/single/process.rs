//! The supervisor as a process: this program started again with one hidden argument, and what the engine holds of it.

use std::{
    ffi::CString,
    fs::File,
    io::{IoSliceMut, Read as _, Seek as _, Write as _},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    process::ExitCode,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{AtFlags, Gid, MemfdFlags, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
    net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType},
    process::{DumpableBehavior, Pid, Signal, WaitId, WaitIdOptions},
    thread::LinkNameSpaceType,
};
use serde::{Deserialize, Serialize};

use super::{
    State,
    credentials::{Credentials, Registry},
    identity,
    marks::Marks,
    task::Window,
};
use crate::{
    sandbox::{InitError, User},
    sys::{
        self,
        asking::{Asked, Listener},
    },
    tree::{Owner, OwnerTable, TreePath},
};

/// The hidden argument that makes this program a supervisor.
pub const SUPERVISOR: &str = "step-supervisor";

/// What it finds open.
mod fds {
    pub(super) const CHANNEL: u16 = 3;
    pub(super) const ORDERS: u16 = 4;
    pub(super) const ROOT: u16 = 5;
    pub(super) const USERS: u16 = 6;
    pub(super) const RESULT: u16 = 7;
    pub(super) const UPPER: u16 = 8;
}

/// What a supervisor must know before the step begins.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct Orders {
    pub(in crate::sandbox) uid: u32,
    pub(in crate::sandbox) gid: u32,
    pub(in crate::sandbox) groups: Vec<u32>,
    /// Owners of links, pipes and the like in the root's own trees.
    pub(in crate::sandbox) rooted: Vec<(TreePath, Owner)>,
    /// Owners of what is mounted.
    pub(in crate::sandbox) mounted: Vec<(TreePath, Owner)>,
}

impl Orders {
    pub(in crate::sandbox) fn new(user: &User, rooted: Vec<(TreePath, Owner)>, mounted: Vec<(TreePath, Owner)>) -> Self {
        Self { uid: user.uid, gid: user.gid, groups: user.groups.clone(), rooted, mounted }
    }
}

/// The supervisor as the engine holds it. Dropped, it is killed.
#[derive(Debug)]
pub(in crate::sandbox) struct Supervisor {
    child: sys::Child,
    result: OwnedFd,
}

/// How long it may take to say what it knows once nobody is left to be supervised.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

impl Supervisor {
    /// Two ends of a channel: the supervisor's, and that of the step, which passes the listener.
    pub(in crate::sandbox) fn channel() -> Result<(OwnedFd, OwnedFd), InitError> {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(InitError::new("prepare", "supervisor"))
    }

    /// Starts it, for the step whose pid 1 is `init` and whose root is `root`.
    pub(in crate::sandbox) fn start(
        program: BorrowedFd<'_>,
        orders: &Orders,
        channel: &OwnedFd,
        root: &OwnedFd,
        upper: &Path,
        init: Pid,
    ) -> Result<Self, InitError> {
        let written = |orders: &Orders| -> std::io::Result<OwnedFd> {
            let mut file = File::from(rustix::fs::memfd_create(c"orders", MemfdFlags::CLOEXEC)?);
            file.write_all(&serde_json::to_vec(orders)?)?;
            file.rewind()?;
            Ok(file.into())
        };
        let orders = written(orders).map_err(InitError::new("write", "orders"))?;
        let result = rustix::fs::memfd_create(c"owners", MemfdFlags::CLOEXEC).map_err(InitError::new("prepare", "supervisor"))?;
        let path = format!("/proc/{}/ns/user", init.as_raw_nonzero());
        let users = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(InitError::new("open", &path))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = rustix::fs::open(upper, flags, Mode::empty()).map_err(InitError::new("open", upper.display()))?;
        let fds: Vec<BorrowedFd<'_>> =
            [&orders, &orders, &orders, channel, &orders, root, &users, &result, &upper].into_iter().map(OwnedFd::as_fd).collect();
        let argv = [CString::from(c"lapstrake"), CString::new(SUPERVISOR).map_err(InitError::new("prepare", "supervisor"))?];
        let launch = sys::Launch { program, argv: &argv, env: &[], fds: &fds, namespaces: sys::Namespaces::Shared, gate: None };
        let child = launch.start().map_err(InitError::new("start", "supervisor"))?;
        let supervisor = Self { child, result };
        supervisor.child.started().map_err(InitError::new("start", "supervisor"))?;
        Ok(supervisor)
    }

    /// Readable when it has ended.
    pub(in crate::sandbox) fn pidfd(&self) -> &OwnedFd {
        &self.child.pidfd
    }

    /// Has it ended because nobody is left to be supervised?
    pub(in crate::sandbox) fn is_done(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let ended = rustix::process::waitid(WaitId::PidFd(self.child.pidfd.as_fd()), options);
        ended.ok().flatten().and_then(|status| status.exit_status()) == Some(0)
    }

    /// When the step has ended: what it knows of owners. An error if it ended in another way.
    pub(in crate::sandbox) fn finish(self) -> Result<OwnerTable, InitError> {
        let mut polled = [PollFd::new(&self.child.pidfd, PollFlags::IN)];
        // Killed when dropped if it has not ended by then.
        if rustix::event::poll(&mut polled, Some(&PATIENCE)) != Ok(1) {
            return Err(InitError::new("end", "supervisor")(Errno::TIMEDOUT));
        }
        let mut text = Vec::new();
        let read = self.result.try_clone().map(File::from).and_then(|mut file| {
            file.rewind()?;
            file.read_to_end(&mut text)
        });
        let _length: usize = read.map_err(InitError::new("read", "owners"))?;
        serde_json::from_slice(&text).map_err(InitError::new("read", "owners"))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Both fail only when it has been waited for.
        rustix::process::pidfd_send_signal(&self.child.pidfd, Signal::KILL).ok();
        rustix::process::waitid(WaitId::PidFd(self.child.pidfd.as_fd()), WaitIdOptions::EXITED).ok();
    }
}

/// The program as a supervisor: what `main` does when its only argument is [`SUPERVISOR`]. Started in any other way it fails.
pub fn supervisor_main() -> ExitCode {
    if supervise().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn supervise() -> std::io::Result<()> {
    let channel = sys::inherited_fd(fds::CHANNEL)?;
    let mut text = Vec::new();
    let _length: usize = File::from(sys::inherited_fd(fds::ORDERS)?).read_to_end(&mut text)?;
    let orders: Orders = serde_json::from_slice(&text)?;
    let (root, users, result) = (sys::inherited_fd(fds::ROOT)?, sys::inherited_fd(fds::USERS)?, sys::inherited_fd(fds::RESULT)?);
    // Root of the step, and no longer the engine's: what it could be led to do ends there.
    rustix::thread::move_into_link_name_space(users.as_fd(), Some(LinkNameSpaceType::User))?;
    // A change of rights has taken the first one away.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::umask(Mode::empty());
    let mut window = Window::open()?;
    let upper = sys::inherited_fd(fds::UPPER)?;
    let first = Credentials::of(orders.uid, orders.gid, orders.groups.clone());
    let mut state = State { registry: Registry::new(first), marks: Marks::new(upper), bound: Vec::new(), init: None };
    // A step whose program never came to be supervised has left nothing to tell.
    if let Some(listener) = listener(&channel)? {
        drop(channel);
        let mut begun = false;
        while let Some(asked) = listener.next()? {
            if !begun {
                begun = true;
                begin(&mut state, &mut window, &listener, &asked, &root, &orders)?;
            }
            state.answer(&window, &listener, &asked);
        }
    }
    let mut result = File::from(result);
    result.write_all(&serde_json::to_vec(&state.marks.into_table())?)
}

/// The listener, which the step's first program passes before it begins; `None`: it never will.
fn listener(channel: &OwnedFd) -> std::io::Result<Option<Listener>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(channel, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let rights = |message| if let RecvAncillaryMessage::ScmRights(fds) = message { Some(fds) } else { None };
    Ok(control.drain().filter_map(rights).flatten().next().map(Listener::new))
}

/// With the first call, the exec of the step's program: everything is mounted, and nothing of the step has run.
fn begin(
    state: &mut State,
    window: &mut Window,
    listener: &Listener,
    asked: &Asked,
    root: &OwnedFd,
    orders: &Orders,
) -> std::io::Result<()> {
    let task = super::Task::new(window, listener, asked);
    state.init = identity::parent(&task);
    let inside = task.root()?;
    window.settle(rustix::io::fcntl_dupfd_cloexec(&inside, 0)?)?;
    for (path, owner) in &orders.rooted {
        if let Some(fd) = in_tree(root, path)? {
            // To have an inode of its own now: touching, renaming or linking it would give it one that nobody knows.
            let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
            rustix::fs::chownat(&fd, c"", Some(user), Some(group), AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)?;
            give(&mut state.marks, &fd, *owner)?;
        }
    }
    for (path, owner) in &orders.mounted {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat2(&inside, path.as_os_path(), flags, Mode::empty(), resolve) {
            Ok(fd) => give(&mut state.marks, &fd, *owner)?,
            // Another mount is over it.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn give(marks: &mut Marks, fd: &OwnedFd, owner: Owner) -> Result<(), Errno> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    marks.give(fd, mode, owner)
}

/// What is at a path of the root's own trees; `None`: something is mounted over it.
fn in_tree(root: &OwnedFd, path: &TreePath) -> Result<Option<OwnedFd>, Errno> {
    let Some(parent) = path.parent() else { return Ok(None) };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let parent = if parent.is_root() { c".".into() } else { super::task::c_string(parent.as_bytes())? };
    let parent = match rustix::fs::openat2(root, parent, flags | OFlags::DIRECTORY, Mode::empty(), resolve) {
        Err(Errno::XDEV) => return Ok(None),
        other => other?,
    };
    let name = super::task::c_string(path.name())?;
    match rustix::fs::openat2(&parent, name, flags | OFlags::NOFOLLOW, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_XDEV) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::XDEV | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
