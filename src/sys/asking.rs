//! Calls that a filter hands to another process to answer, and how that one answers.
//!
//! A [`Filter`] is a list of [`Rule`]s compiled to classic BPF. The process that is to be filtered installs it (see
//! `spawn`) and passes the fd that it gets to the process that answers, which owns it as a [`Listener`].
//!
//! Source: seccomp(2), `seccomp_unotify(2)`, the kernel's `uapi/linux/seccomp.h`, `filter.h` and `audit.h`.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
    ptr,
};

use rustix::io::Errno;

pub use super::calls::Call;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel does it.
    Allow,
    /// The listener answers.
    Ask,
    /// It fails with this errno, or with none: then it returns 0.
    Refuse(Option<Errno>),
    /// The process is killed, by SIGSYS.
    Kill,
}

/// Which calls of a number a rule is about; the kernel does the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// All.
    Always,
    /// Those whose argument has one of these bits in its lower half.
    AnyBit(u8, u32),
    /// Those whose argument's lower half is this.
    Equals(u8, u32),
    /// Those with these two arguments, the second one of two.
    Both((u8, u32), (u8, [u32; 2])),
}

/// A rule. One for each number.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The call.
    pub call: Call,
    /// Which of them.
    pub when: When,
    /// What becomes of those.
    pub verdict: Verdict,
}

/// A compiled filter for calls of this machine's own interface.
#[derive(Debug)]
pub struct Filter(Vec<libc::sock_filter>);

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// The bit that x32 calls have in their number.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Where `struct seccomp_data` has the number, the architecture, and the lower half of the first argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

impl Filter {
    /// Compiles. `foreign` is the verdict on calls of another architecture's interface (32-bit programs); x32 calls fail as
    /// on a kernel without them. What no rule is about is allowed.
    pub fn compile(rules: &[Rule], foreign: Verdict) -> Self {
        let mut code = vec![step(LOAD, ARCHITECTURE, 0, 0), step(EQUAL, ARCH, 1, 0), step(RETURN, word(foreign), 0, 0)];
        code.push(step(LOAD, NUMBER, 0, 0));
        #[cfg(target_arch = "x86_64")]
        code.extend([
            step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32, 0, 1),
            step(RETURN, word(Verdict::Refuse(Some(Errno::NOSYS))), 0, 0),
        ]);
        for rule in rules {
            // What this machine does not have cannot be called.
            let Some(number) = rule.call.number() else { continue };
            let body = body(rule);
            let over = u8::try_from(body.len()).unwrap_or(u8::MAX);
            code.push(step(EQUAL, u32::try_from(number).unwrap_or(u32::MAX), 0, over));
            code.extend(body);
        }
        code.push(step(RETURN, word(Verdict::Allow), 0, 0));
        Self(code)
    }

    /// Installs it for this thread and all that it starts from now on. The listener's fd, closed on exec. Only raw calls: the
    /// caller may be a fresh child of a process with threads.
    pub(super) fn install(&self) -> Result<RawFd, i32> {
        const LISTENER: libc::c_ulong = 1 << 3;
        const KILLABLE: libc::c_ulong = 1 << 5;
        let program = libc::sock_fprog { len: libc::c_ushort::try_from(self.0.len()).unwrap_or(0), filter: self.0.as_ptr().cast_mut() };
        // Kernels before 5.19 do not know that a call may be left uninterrupted once the listener has it.
        for flags in [LISTENER | KILLABLE, LISTENER] {
            // SAFETY: the program and its code live in `self`; the kernel copies both.
            let fd = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, ptr::from_ref(&program)) };
            match RawFd::try_from(fd) {
                Ok(fd) if fd >= 0 => return Ok(fd),
                _ if super::spawn::errno() == libc::EINVAL && flags != LISTENER => {}
                _ => return Err(super::spawn::errno()),
            }
        }
        Err(libc::EINVAL)
    }
}

/// What is done once the number is right; every way through it ends.
fn body(rule: &Rule) -> Vec<libc::sock_filter> {
    let argument = |number: u8| step(LOAD, ARGUMENTS + 8 * u32::from(number), 0, 0);
    let (verdict, allow) = (step(RETURN, word(rule.verdict), 0, 0), step(RETURN, word(Verdict::Allow), 0, 0));
    match rule.when {
        When::Always => vec![verdict],
        When::AnyBit(number, bits) => {
            vec![argument(number), step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, bits, 0, 1), verdict, allow]
        }
        When::Equals(number, value) => vec![argument(number), step(EQUAL, value, 0, 1), verdict, allow],
        When::Both((first, value), (second, [one, other])) => vec![
            argument(first),
            step(EQUAL, value, 0, 4),
            argument(second),
            step(EQUAL, one, 1, 0),
            step(EQUAL, other, 0, 1),
            verdict,
            allow,
        ],
    }
}

fn step(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}

fn word(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Ask => libc::SECCOMP_RET_USER_NOTIF,
        Verdict::Refuse(errno) => libc::SECCOMP_RET_ERRNO | errno.map_or(0, |errno| errno.raw_os_error().unsigned_abs()),
        Verdict::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    }
}

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    id: u64,
    /// The thread that called, in the pid namespace of who reads this.
    pub thread: rustix::process::Pid,
    /// The call; `None`: one that no rule is about.
    pub call: Option<Call>,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// How a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It returns this.
    Value(i64),
    /// It fails.
    Error(Errno),
    /// The kernel does it after all. What the call's pointers lead to may have changed since it was looked at.
    Continue,
}

/// The end of a filter that answers.
#[derive(Debug)]
pub struct Listener(OwnedFd);

const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const IS_VALID: libc::c_ulong = 0x4008_2102;
const ADD_FD: libc::c_ulong = 0x4018_2103;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;

impl Listener {
    /// Of an fd that a filter gave. Who called is woken on the processor that answered, where the kernel (6.6) can do it:
    /// it halves the cost.
    pub fn new(fd: OwnedFd) -> Self {
        const SYNC_WAKE_UP: u64 = 1;
        // SAFETY: an ioctl with a plain number; an older kernel refuses it.
        unsafe { libc::ioctl(fd.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) };
        Self(fd)
    }

    /// The next call; `None` when nobody is left who could call.
    pub fn next(&self) -> io::Result<Option<Asked>> {
        loop {
            let mut polled = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::IN)];
            match rustix::event::poll(&mut polled, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let [ready] = polled.map(|fd| fd.revents());
            if !ready.contains(rustix::event::PollFlags::IN) {
                return Ok(None);
            }
            // SAFETY: all zeros is a value of this plain structure, and the one that the kernel wants.
            let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: the structure is the one that this ioctl writes.
            if unsafe { libc::ioctl(self.0.as_raw_fd(), RECEIVE as _, &raw mut asked) } == 0 {
                let thread = i32::try_from(asked.pid).ok().and_then(rustix::process::Pid::from_raw);
                let Some(thread) = thread else { continue };
                return Ok(Some(Asked { id: asked.id, thread, call: Call::of(asked.data.nr.into()), arguments: asked.data.args }));
            }
            match io::Error::last_os_error() {
                // Who called was killed before it was heard.
                error if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOENT)) => {}
                error => return Err(error),
            }
        }
    }

    /// Does the caller still wait? If so, what was opened of `/proc/PID` before was the caller's.
    pub fn waits(&self, asked: &Asked) -> bool {
        // SAFETY: the number is the structure that this ioctl reads.
        unsafe { libc::ioctl(self.0.as_raw_fd(), IS_VALID as _, &raw const asked.id) == 0 }
    }

    /// Answers. A caller that is gone does not mind.
    pub fn reply(&self, asked: &Asked, reply: Reply) {
        let mut answer = libc::seccomp_notif_resp { id: asked.id, val: 0, error: 0, flags: 0 };
        match reply {
            Reply::Value(value) => answer.val = value,
            Reply::Error(errno) => answer.error = -errno.raw_os_error(),
            Reply::Continue => answer.flags = 1,
        }
        // SAFETY: the structure is the one that this ioctl reads.
        unsafe { libc::ioctl(self.0.as_raw_fd(), SEND as _, &raw mut answer) };
    }

    /// Answers with a new fd of the caller's for what `fd` is about, all at once.
    pub fn reply_with(&self, asked: &Asked, fd: BorrowedFd<'_>, close_on_exec: bool) -> Result<(), Errno> {
        const AND_SEND: u32 = 1 << 1;
        let added = libc::seccomp_notif_addfd {
            id: asked.id,
            flags: AND_SEND,
            srcfd: fd.as_raw_fd().unsigned_abs(),
            newfd: 0,
            newfd_flags: if close_on_exec { libc::O_CLOEXEC.unsigned_abs() } else { 0 },
        };
        // SAFETY: the structure is the one that this ioctl reads.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), ADD_FD as _, &raw const added) } {
            -1 => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
            _ => Ok(()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
