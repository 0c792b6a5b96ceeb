//! Starting a program: `clone3`, then nothing but raw syscalls, then `exec`. No code of ours runs in a copy of a
//! process that may have had other threads, and nothing is allocated there.
//!
//! [`Launch`] starts a program from an fd, in new namespaces if wanted; [`Program`] is what the first process of a
//! sandbox starts for a step.
//!
//! Source: clone(2), execveat(2), signal-safety(7).

use std::{
    ffi::{CStr, CString},
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use rustix::process::Pid;

use super::{Filter, landlock};

/// New namespaces for a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    /// None: it shares ours.
    Shared,
    /// User, mount, pid, ipc, uts.
    Isolated,
    /// These, and net.
    IsolatedNet,
}

impl Namespaces {
    fn flags(self) -> u64 {
        let isolated = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        let flags = match self {
            Self::Shared => 0,
            Self::Isolated => isolated,
            Self::IsolatedNet => isolated | libc::CLONE_NEWNET,
        };
        u64::from(flags.cast_unsigned())
    }
}

/// A program to start from an fd.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The executable file.
    pub program: BorrowedFd<'a>,
    /// Its arguments, its name first.
    pub argv: &'a [CString],
    /// `K=V`.
    pub env: &'a [CString],
    /// What it has open, as 0, 1, 2, …; nothing else.
    pub fds: &'a [BorrowedFd<'a>],
    /// Where it lives.
    pub namespaces: Namespaces,
    /// The place in `fds` of a socket: the child writes a byte to it and waits for one before it starts the program.
    pub gate: Option<usize>,
}

/// A child of ours.
#[derive(Debug)]
pub struct Child {
    /// Its number, in our pid namespace.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Gets an errno if the program could not be started, and ends when it was.
    failure: OwnedFd,
}

impl Child {
    /// Waits until the program runs, or says why it does not.
    pub fn started(&self) -> io::Result<()> {
        let mut errno = [0; 4];
        let mut from = std::fs::File::from(self.failure.try_clone()?);
        match from.read(&mut errno)? {
            4 => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
            _ => Ok(()),
        }
    }
}

impl Launch<'_> {
    /// Starts it. It dies with the thread that called this, at the latest.
    pub fn start(&self) -> io::Result<Child> {
        let (failure, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let argv = pointers(self.argv);
        let env = pointers(self.env);
        let mut fds: Vec<RawFd> = self.fds.iter().map(AsRawFd::as_raw_fd).collect();
        let gate = self.gate.and_then(|at| RawFd::try_from(at).ok());
        let (program, told_fd) = (self.program.as_raw_fd(), told.as_raw_fd());
        match clone(self.namespaces.flags())? {
            Cloned::Parent { pid, pidfd } => Ok(Child { pid, pidfd, failure }),
            Cloned::Child => {
                let told = arrange(&mut fds, program, told_fd);
                pass(gate);
                restore_signals();
                execveat(told - 1, &argv, &env);
                fail(told, &errno().to_ne_bytes())
            }
        }
    }
}

/// What the first process of a sandbox starts: the program of a step.
#[derive(Debug)]
pub struct Program<'a> {
    /// Where the program may be, tried in order.
    pub candidates: &'a [CString],
    /// Its arguments, its name first.
    pub argv: &'a [CString],
    /// `K=V`.
    pub env: &'a [CString],
    /// Where it starts.
    pub cwd: BorrowedFd<'a>,
    /// Who.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: &'a [u32],
    /// What judges its system calls, each one more. Installed while there is still a right to.
    pub filters: &'a [Filter],
    /// Rules of [`super::own_abstract_sockets`].
    pub scope: Option<BorrowedFd<'a>>,
    /// What its processes may use.
    pub limits: &'a [ResourceLimit],
    /// Another process is to answer its calls; then its ids are that one's affair too, and stay as they are.
    pub supervised: Option<Supervised<'a>>,
}

/// A limit of the kernel's, as setrlimit(2) has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimit {
    /// The kernel's number of the resource.
    pub resource: u32,
    /// What applies.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

/// How a [`Program`] comes under a supervisor.
#[derive(Debug, Clone, Copy)]
pub struct Supervised<'a> {
    /// Which calls are answered. Installed last, so that it holds from the program's own start on.
    pub filter: &'a super::asking::Filter,
    /// A socket to the supervisor, which is passed the listener.
    pub channel: BorrowedFd<'a>,
    /// The number that the program begins with: see [`super::task::number_of`].
    pub number: u64,
}

/// Which part of starting a [`Program`] failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Entering the working directory.
    Cwd,
    /// Becoming the user.
    User,
    /// Setting limits.
    Limits,
    /// Installing a filter of system calls, or rules about sockets.
    Filter,
    /// None of the candidates can be executed.
    Exec,
    /// Coming under the supervisor.
    Supervise,
}

impl Program<'_> {
    /// Starts it in a session of its own, with fds 0 to 2 and no others, and waits until it runs.
    pub fn start(&self) -> Result<Pid, (Stage, io::Error)> {
        let fence = |error: io::Error| (Stage::Exec, error);
        let (failure, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| fence(errno.into()))?;
        let argv = pointers(self.argv);
        let env = pointers(self.env);
        let candidates = pointers(self.candidates);
        match clone(0).map_err(fence)? {
            Cloned::Child => {
                let (stage, errno) = self.become_program(&candidates, &argv, &env);
                let [a, b, c, d] = errno.to_ne_bytes();
                fail(told.as_raw_fd(), &[stage as u8, a, b, c, d])
            }
            Cloned::Parent { pid, .. } => {
                drop(told);
                let mut said = [0; 5];
                let read = std::fs::File::from(failure).read(&mut said).map_err(fence)?;
                let [stage, a, b, c, d] = said;
                let error = io::Error::from_raw_os_error(i32::from_ne_bytes([a, b, c, d]));
                match (read, stage) {
                    (0, _) => Ok(pid),
                    (_, at) if at == Stage::Cwd as u8 => Err((Stage::Cwd, error)),
                    (_, at) if at == Stage::User as u8 => Err((Stage::User, error)),
                    (_, at) if at == Stage::Limits as u8 => Err((Stage::Limits, error)),
                    (_, at) if at == Stage::Filter as u8 => Err((Stage::Filter, error)),
                    (_, at) if at == Stage::Supervise as u8 => Err((Stage::Supervise, error)),
                    _ => Err((Stage::Exec, error)),
                }
            }
        }
    }

    /// In the child: returns only if it could not.
    fn become_program(
        &self,
        candidates: &[*const libc::c_char],
        argv: &[*const libc::c_char],
        env: &[*const libc::c_char],
    ) -> (Stage, i32) {
        // SAFETY: no arguments.
        unsafe { libc::setsid() };
        // SAFETY: an fd that this process has.
        if unsafe { libc::fchdir(self.cwd.as_raw_fd()) } != 0 {
            return (Stage::Cwd, errno());
        }
        // Before the user: without `CAP_SYS_ADMIN` it would take `no_new_privs`, with which sudo does not work.
        let scoped = self.scope.map_or(Ok(()), landlock::restrict);
        for installed in std::iter::once(scoped).chain(self.filters.iter().map(Filter::install)) {
            if let Err(errno) = installed {
                return (Stage::Filter, errno);
            }
        }
        if self.supervised.is_none()
            && let Err(failed) = self.become_user()
        {
            return failed;
        }
        for limit in self.limits {
            let new = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
            // SAFETY: reads one structure that lives here; the old limit is not wanted.
            if unsafe { libc::syscall(libc::SYS_prlimit64, 0, limit.resource, &raw const new, ptr::null_mut::<libc::rlimit64>()) } != 0 {
                return (Stage::Limits, errno());
            }
        }
        if let Some(Err(failed)) = self.supervised.as_ref().map(Supervised::be_numbered) {
            return failed;
        }
        close_from(3, libc::CLOSE_RANGE_CLOEXEC);
        restore_signals();
        if let Some(Err(errno)) = self.supervised.as_ref().map(Supervised::submit) {
            return (Stage::Supervise, errno);
        }
        let mut found = libc::ENOENT;
        for candidate in candidates.iter().filter(|candidate| !candidate.is_null()) {
            // SAFETY: all three are NUL-terminated strings or null-terminated tables of such, alive in `self`'s owner.
            unsafe { libc::execve(*candidate, argv.as_ptr(), env.as_ptr()) };
            match errno() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => found = libc::EACCES,
                other => return (Stage::Exec, other),
            }
        }
        (Stage::Exec, found)
    }

    /// In the child.
    fn become_user(&self) -> Result<(), (Stage, i32)> {
        // Raw: glibc's own would signal threads that do not exist here.
        // SAFETY: the pointer and the length are those of one slice.
        let groups = unsafe { libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()) };
        // SAFETY: plain numbers.
        if groups != 0 || unsafe { libc::syscall(libc::SYS_setresgid, self.gid, self.gid, self.gid) } != 0 {
            return Err((Stage::User, errno()));
        }
        // SAFETY: plain numbers.
        if unsafe { libc::syscall(libc::SYS_setresuid, self.uid, self.uid, self.uid) } != 0 {
            return Err((Stage::User, errno()));
        }
        Ok(())
    }
}

impl Supervised<'_> {
    /// In the child.
    fn be_numbered(&self) -> Result<(), (Stage, i32)> {
        let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: libc::RLIM64_INFINITY };
        // SAFETY: writes the structure; a null new limit changes nothing.
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_LOCKS, ptr::null::<u8>(), &raw mut limit) };
        limit.rlim_cur = self.number;
        // SAFETY: reads the structure; the old limit is not asked for.
        match unsafe { libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_LOCKS, &raw const limit, ptr::null_mut::<u8>()) } {
            0 => Ok(()),
            _ => Err((Stage::Supervise, errno())),
        }
    }

    /// In the child: installs the filter and passes its listener.
    fn submit(&self) -> Result<(), i32> {
        let listener = self.filter.install()?;
        let mut byte = 0_u8;
        let mut part = libc::iovec { iov_base: ptr::from_mut(&mut byte).cast(), iov_len: 1 };
        // A `struct cmsghdr` and one fd: its length (16 + 4), SOL_SOCKET, SCM_RIGHTS.
        let mut control = Control { length: 20, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS, fd: listener, _padding: 0 };
        // SAFETY: all zeros is a value of this plain structure.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = ptr::from_mut(&mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
        // SAFETY: the message and its parts live here.
        match unsafe { libc::syscall(libc::SYS_sendmsg, self.channel.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } {
            1 => Ok(()),
            _ => Err(errno()),
        }
    }
}

/// One message of control that carries an fd, as the kernel lays it out.
#[repr(C)]
struct Control {
    length: usize,
    level: libc::c_int,
    kind: libc::c_int,
    fd: libc::c_int,
    _padding: libc::c_int,
}

/// Takes over an fd that the program was started with. Each number may be taken once.
pub fn inherited_fd(number: u16) -> io::Result<OwnedFd> {
    // SAFETY: only asks whether the number is open.
    if unsafe { libc::fcntl(i32::from(number), libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, came by exec, and by the contract above nobody else in this program owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(i32::from(number)) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Makes `fd` also the number `number` (0, 1 or 2), not closed on exec.
pub fn as_standard(fd: impl AsFd, number: u8) -> io::Result<()> {
    // SAFETY: replaces one of the three standard streams, which no owned fd of the program stands for.
    match unsafe { libc::dup2(fd.as_fd().as_raw_fd(), i32::from(number.min(2))) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

enum Cloned {
    Parent { pid: Pid, pidfd: OwnedFd },
    Child,
}

/// The kernel's `struct clone_args`, the part that has been there from the start.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

fn clone(flags: u64) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let args = CloneArgs {
        flags: flags | u64::from(libc::CLONE_PIDFD.cast_unsigned()),
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArgs::default()
    };
    // SAFETY: no CLONE_VM: the child has its own copy of memory and stack, and both callers run only raw syscalls in it,
    // on memory prepared before, until exec or _exit. `args` is valid and as large as said.
    let mut pid = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_ref(&args), size_of::<CloneArgs>()) };
    if pid == -1 && errno() == libc::ENOSYS {
        pid = clone_before_clone3(&args);
    }
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // -1 is no number of a process, and nothing that `Pid` takes.
    match i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw) {
        Some(pid) => {
            // SAFETY: the kernel has just stored a new fd there that nobody else knows.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
        None => Err(io::Error::last_os_error()),
    }
}

/// By the call that every kernel has: containers hide clone3, because a filter cannot see its flags. It stores the pidfd where
/// the thread's number would go, takes the signal in its flags, and what follows is not used and zero in whatever order.
fn clone_before_clone3(args: &CloneArgs) -> libc::c_long {
    // SAFETY: as clone3 above; a null stack is the caller's own, copied on writing as all memory is.
    unsafe { libc::syscall(libc::SYS_clone, args.flags | args.exit_signal, 0_u64, args.pidfd, 0_u64, 0_u64) }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

pub(super) fn errno() -> i32 {
    // Reads a thread-local, allocates nothing.
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn fail(to: RawFd, what: &[u8]) -> ! {
    // SAFETY: the pointer and the length are those of one slice.
    unsafe { libc::write(to, what.as_ptr().cast(), what.len()) };
    // SAFETY: ends the child without running anything that belongs to the parent.
    unsafe { libc::_exit(127) }
}

/// In the child: `fds` become 0, 1, 2, …, then the program and the failure pipe, and all else is closed. Returns the
/// number of the failure pipe; the program is the one before.
fn arrange(fds: &mut [RawFd], program: RawFd, told: RawFd) -> RawFd {
    // SAFETY: plain numbers. The second belt: the first is a socket or pipe that ends with the parent.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let count = RawFd::try_from(fds.len()).unwrap_or(RawFd::MAX);
    // First all of them out of the way of the numbers they are to get.
    for fd in fds.iter_mut() {
        *fd = above(*fd, count);
    }
    let (program, told) = (above(program, count), above(told, count));
    for (number, fd) in (0..).zip(fds.iter()) {
        place(*fd, number, 0);
    }
    place(program, count, libc::O_CLOEXEC);
    place(told, count + 1, libc::O_CLOEXEC);
    close_from(count + 2, 0);
    count + 1
}

fn above(fd: RawFd, count: RawFd) -> RawFd {
    // SAFETY: plain numbers; a bad fd is an error that exec or the gate will show.
    unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, count + 2) }
}

fn place(fd: RawFd, number: RawFd, flags: libc::c_int) {
    // SAFETY: plain numbers, in the child's own table of fds.
    unsafe { libc::dup3(fd, number, flags) };
}

fn close_from(first: RawFd, flags: libc::c_uint) {
    // SAFETY: in the child's own table of fds, which is about to be another program's.
    if unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) } == 0 {
        return;
    }
    // An old container hides it. No number above is in use: nothing here opens so many.
    for fd in first..MOST_FDS {
        if flags & libc::CLOSE_RANGE_CLOEXEC == 0 {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        } else {
            // SAFETY: as above.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Where fds are closed one by one.
const MOST_FDS: RawFd = 1 << 16;

/// In the child: tells the parent that it is there, and waits for its word. The parent writes our id maps meanwhile,
/// through files in /proc that belong to us only if we are dumpable.
fn pass(gate: Option<RawFd>) {
    let Some(gate) = gate else { return };
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
    let mut byte = 0_u8;
    // SAFETY: one byte that lives here.
    unsafe { libc::write(gate, ptr::from_ref(&byte).cast(), 1) };
    // SAFETY: one byte that lives here.
    if unsafe { libc::read(gate, ptr::from_mut(&mut byte).cast(), 1) } != 1 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(127) };
    }
}

/// No signal blocked or ignored: Rust's own runtime ignores SIGPIPE, and a program would inherit that.
fn restore_signals() {
    // The kernel's `struct sigaction` is at most this large; all zeros is the default action with no flag. Not by the C
    // library, which keeps two signals to itself.
    let default = [0_u64; 8];
    let none = 0_u64;
    for signal in 1..=64 {
        // SAFETY: reads the zeros; the default action needs no handler. Refused for SIGKILL and SIGSTOP.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), size_of_val(&none)) };
    }
    // SAFETY: the kernel's set of signals is these eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, ptr::from_ref(&none), ptr::null_mut::<u64>(), 8) };
}

fn execveat(program: RawFd, argv: &[*const libc::c_char], env: &[*const libc::c_char]) {
    let empty: &CStr = c"";
    // SAFETY: tables that end in null, of strings that the caller of `start` keeps; returns only on failure.
    unsafe { libc::syscall(libc::SYS_execveat, program, empty.as_ptr(), argv.as_ptr(), env.as_ptr(), libc::AT_EMPTY_PATH) };
}
