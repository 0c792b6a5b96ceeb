//! The task that asked: its memory, and where it stands in the file system. Everything is looked at anew for each request,
//! because a task may change its root between two, and everything that was opened of `/proc/PID` counts only if the task
//! still waits afterwards: then the number was its own all the time.

use std::{
    ffi::CString,
    io::Read as _,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
    process::Pid,
};

use crate::sys::{
    asking::{Asked, Listener},
    task,
};

/// `AT_FDCWD`.
pub(super) const CWD: i32 = -100;

/// What the supervisor sees tasks through.
#[derive(Debug)]
pub(super) struct Window {
    proc: OwnedFd,
    /// The supervisor's own fds, as names: its working directory.
    own: OwnedFd,
    /// The step's root directory: the supervisor's own as well.
    home: Option<OwnedFd>,
}

impl Window {
    /// Opens `/proc`, and makes the supervisor's `/proc/self/fd` its working directory.
    pub(super) fn open() -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open(c"/proc", flags, Mode::empty())?;
        let own = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty())?;
        rustix::process::fchdir(&own)?;
        Ok(Self { proc, own, home: None })
    }

    /// Makes the step's root the supervisor's own, from now on.
    pub(super) fn settle(&mut self, home: OwnedFd) -> Result<(), Errno> {
        self.stand_in(&home)?;
        self.home = Some(home);
        Ok(())
    }

    /// Does something with `root` as the supervisor's own root.
    pub(super) fn within<T>(&self, root: &OwnedFd, look: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        self.stand_in(root)?;
        let found = look();
        if let Some(home) = &self.home {
            self.stand_in(home)?;
        }
        found
    }

    /// Its working directory stays.
    fn stand_in(&self, root: &OwnedFd) -> Result<(), Errno> {
        rustix::process::fchdir(root)?;
        let changed = rustix::process::chroot(c".");
        rustix::process::fchdir(&self.own)?;
        changed
    }

    fn text(&self, process: Pid, file: &str) -> Result<String, Errno> {
        let path = format!("{}/{file}", process.as_raw_nonzero());
        let fd = rustix::fs::openat(&self.proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = Vec::new();
        std::fs::File::from(fd).take(1 << 16).read_to_end(&mut text).map_err(|_gone| Errno::SRCH)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Is the /proc that a process sees that of its own pid namespace? It may be the outer one, whose numbers are others.
    pub(super) fn has_own_proc(&self, process: Pid) -> bool {
        let path = format!("{}/root/proc", process.as_raw_nonzero());
        let device = |found: Result<rustix::fs::Stat, Errno>| found.ok().map(|stat| stat.st_dev);
        let (inner, outer) = (device(rustix::fs::statat(&self.proc, path, AtFlags::empty())), device(rustix::fs::fstat(&self.proc)));
        inner.is_some() && inner != outer
    }

    /// The number of the credentials of a process that is called `inside` in the pid namespace of `init`; `None`: it has none.
    pub(super) fn number_inside(&self, init: Pid, inside: i32) -> Result<Option<u64>, Errno> {
        let limits = self.text(init, &format!("root/proc/{inside}/limits"))?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max file locks")).ok_or(Errno::SRCH)?;
        Ok(line.split_whitespace().next().and_then(|soft| soft.parse().ok()))
    }

    /// A line of `/proc/PID/status`, its name with the colon.
    pub(super) fn status(&self, process: Pid, name: &str) -> Result<String, Errno> {
        let text = self.text(process, "status")?;
        text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned()).ok_or(Errno::SRCH)
    }
}

/// A task that waits for an answer.
#[derive(Debug)]
pub(super) struct Task<'a> {
    window: &'a Window,
    listener: &'a Listener,
    asked: &'a Asked,
}

impl<'a> Task<'a> {
    pub(super) fn new(window: &'a Window, listener: &'a Listener, asked: &'a Asked) -> Self {
        Self { window, listener, asked }
    }

    pub(super) fn window(&self) -> &Window {
        self.window
    }

    /// Of the thread that called.
    pub(super) fn thread(&self) -> Pid {
        self.asked.thread
    }

    /// An argument as it is.
    pub(super) fn word(&self, number: usize) -> u64 {
        self.asked.arguments.get(number).copied().unwrap_or_default()
    }

    /// The lower half of an argument.
    pub(super) fn number(&self, number: usize) -> u32 {
        let [a, b, c, d, ..] = self.word(number).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// An argument that is an fd, or [`CWD`].
    pub(super) fn fd(&self, number: usize) -> i32 {
        self.number(number).cast_signed()
    }

    /// An error if it waits no longer: what was read or opened of it may be another's.
    pub(super) fn waits(&self) -> Result<(), Errno> {
        if self.listener.waits(self.asked) { Ok(()) } else { Err(Errno::SRCH) }
    }

    /// A text that an argument points to, without its end.
    pub(super) fn text(&self, number: usize) -> Result<Vec<u8>, Errno> {
        const PAGE: u64 = 4096;
        const LONGEST: usize = 4096;
        let mut text = Vec::with_capacity(256);
        let mut at = self.word(number);
        while text.len() < LONGEST {
            let left = usize::try_from(PAGE - at % PAGE).unwrap_or(LONGEST).min(LONGEST - text.len());
            // Most paths are short: not the whole page at once.
            let part = left.min(256);
            let from = text.len();
            text.resize(from + part, 0);
            task::read_memory(self.thread(), at, text.get_mut(from..).unwrap_or_default())?;
            if let Some(end) = text.iter().skip(from).position(|byte| *byte == 0) {
                text.truncate(from + end);
                return Ok(text);
            }
            at = at.wrapping_add(part as u64);
        }
        Err(Errno::NAMETOOLONG)
    }

    /// Bytes that an address leads to.
    pub(super) fn bytes(&self, at: u64, length: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length];
        task::read_memory(self.thread(), at, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes where an address leads.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.waits()?;
        task::write_memory(self.thread(), at, bytes)
    }

    /// Its root directory.
    pub(super) fn root(&self) -> Result<OwnedFd, Errno> {
        self.open("root")
    }

    /// What one of its fds is about, or its working directory.
    pub(super) fn base(&self, fd: i32) -> Result<OwnedFd, Errno> {
        if fd == CWD {
            return self.open("cwd");
        }
        if fd < 0 {
            return Err(Errno::BADF);
        }
        self.open(&format!("fd/{fd}")).map_err(|errno| if errno == Errno::NOENT { Errno::BADF } else { errno })
    }

    fn open(&self, what: &str) -> Result<OwnedFd, Errno> {
        let path = format!("{}/{what}", self.thread().as_raw_nonzero());
        let fd = rustix::fs::openat(&self.window.proc, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        self.waits()?;
        Ok(fd)
    }

    /// A copy of one of its fds: the open file itself, as for sockets.
    pub(super) fn copy(&self, fd: i32) -> Result<OwnedFd, Errno> {
        // A thread that is no leader can be named since 6.9; before, its process shares its fds nearly always.
        const THREAD: rustix::process::PidfdFlags = rustix::process::PidfdFlags::from_bits_retain(0o200);
        let pidfd = match rustix::process::pidfd_open(self.thread(), THREAD) {
            Err(Errno::INVAL) => {
                let leader = self.window.status(self.thread(), "Tgid:")?.parse().ok().and_then(Pid::from_raw);
                rustix::process::pidfd_open(leader.ok_or(Errno::SRCH)?, rustix::process::PidfdFlags::empty())?
            }
            other => other?,
        };
        self.waits()?;
        rustix::process::pidfd_getfd(pidfd.as_fd(), fd, rustix::process::PidfdGetfdFlags::empty())
    }

    /// Answers its call with a file that was opened for it.
    pub(super) fn give(&self, fd: &OwnedFd, close_on_exec: bool) -> Result<(), Errno> {
        self.listener.reply_with(self.asked, fd.as_fd(), close_on_exec)
    }

    /// Its umask.
    pub(super) fn umask(&self) -> Result<Mode, Errno> {
        let text = self.window.status(self.thread(), "Umask:")?;
        self.waits()?;
        u32::from_str_radix(&text, 8).map(Mode::from_raw_mode).map_err(|_no_number| Errno::SRCH)
    }

    /// Do setuid programs do nothing for it?
    pub(super) fn gains_nothing(&self) -> Result<bool, Errno> {
        Ok(self.window.status(self.thread(), "NoNewPrivs:")? == "1")
    }
}

/// A path as the kernel takes it.
pub(super) fn c_string(path: &[u8]) -> Result<CString, Errno> {
    CString::new(path).map_err(|_nul| Errno::INVAL)
}
