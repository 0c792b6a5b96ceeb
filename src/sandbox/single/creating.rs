//! Making files: what root makes is root's, and the kernel's to make; what others make is made here, gets its mark, and is
//! then handed over, so that nobody sees it without. In a directory with the setgid bit and another group than root's, that
//! holds for root too.
//!
//! What the supervisor is not sure of it leaves to the kernel: then a file is made as root's, and nothing else happens.
//!
//! Source: open(2), mkdir(2), symlink(2), mknod(2), inode(7) on the setgid bit.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

use super::{
    Answer, State,
    credentials::Credentials,
    paths::{self, Last, Route, Spot},
    rights::{READ, Subject, WRITE, may_write_in},
    task::{CWD, Task, c_string},
};
use crate::{sys::asking::Call, tree::Owner};

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;
const SET_GROUP: u32 = 0o2000;
/// `O_TMPFILE`'s own bit.
const UNNAMED: u32 = 0o20_000_000;

/// How a file is to be opened.
struct Opening {
    route: Route,
    flags: OFlags,
    mode: u32,
}

impl State {
    /// open, openat, openat2, creat, where they may make something.
    pub(super) fn open(&mut self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        let Some(opening) = opening(task, call)? else { return Ok(Answer::Continue) };
        if opening.flags.intersects(OFlags::PATH) || opening.route.path.is_empty() {
            return Ok(Answer::Continue);
        }
        let who = self.registry.of(task.thread())?;
        if opening.flags.bits() & UNNAMED != 0 {
            return self.unnamed(task, &who, &opening);
        }
        if opening.flags.contains(OFlags::DIRECTORY) {
            return Ok(Answer::Continue);
        }
        let Some((spot, owner)) = self.free_spot(task, &who, &opening)? else { return Ok(Answer::Continue) };
        may_write_in(&self.marks, &who, &spot.parent)?;
        let name = c_string(&spot.name)?;
        let umask = task.umask()?;
        let mut permissions = opening.mode & 0o7777;
        if permissions & 0o2010 == 0o2010 && !who.overrides() && !who.is_in(owner.gid) {
            permissions &= !SET_GROUP;
        }
        let flags = (opening.flags - OFlags::NOFOLLOW) | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::process::umask(umask);
        let made = rustix::fs::openat(&spot.parent, name.as_c_str(), flags, Mode::from_raw_mode(permissions));
        rustix::process::umask(Mode::empty());
        let file = match made {
            // Somebody was faster.
            Err(Errno::EXIST) => return Ok(Answer::Continue),
            other => other?,
        };
        let done = self.marks.give(&file, FileType::RegularFile.as_raw_mode(), owner).and_then(|()| hand_over(task, &file, &opening));
        if done.is_err() {
            rustix::fs::unlinkat(&spot.parent, name.as_c_str(), AtFlags::empty()).ok();
        }
        done
    }

    fn unnamed(&mut self, task: &Task<'_>, who: &Credentials, opening: &Opening) -> Result<Answer, Errno> {
        let Ok(parent) = paths::find(task, &opening.route, Last::Follow, OFlags::DIRECTORY) else { return Ok(Answer::Continue) };
        let Some(owner) = self.owner_in(who, &parent)? else { return Ok(Answer::Continue) };
        may_write_in(&self.marks, who, &parent)?;
        let umask = task.umask()?;
        rustix::process::umask(umask);
        let made = rustix::fs::openat(&parent, c".", opening.flags | OFlags::CLOEXEC, Mode::from_raw_mode(opening.mode & 0o7777));
        rustix::process::umask(Mode::empty());
        let made = made?;
        self.marks.give(&made, FileType::RegularFile.as_raw_mode(), owner)?;
        hand_over(task, &made, opening)
    }

    /// Where the file is to be made, and whose it will be; `None`: it is there, or the kernel is to make it.
    fn free_spot(&self, task: &Task<'_>, who: &Credentials, opening: &Opening) -> Result<Option<(Spot, Owner)>, Errno> {
        let Ok(mut spot) = paths::spot(task, &opening.route) else { return Ok(None) };
        let follows = !opening.flags.intersects(OFlags::EXCL | OFlags::NOFOLLOW);
        for _link in 0..MOST_LINKS {
            if spot.slash {
                return Ok(None);
            }
            let name = c_string(&spot.name)?;
            match rustix::fs::statat(&spot.parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {
                    let owner = self.owner_in(who, &spot.parent)?;
                    return Ok(owner.map(|owner| (spot, owner)));
                }
                Ok(stat) if follows && FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&spot.parent, name.as_c_str(), Vec::new())?.into_bytes();
                    match paths::spot_from(task, &spot.parent, &target) {
                        Ok(next) => spot = next,
                        Err(_) => return Ok(None),
                    }
                }
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && !opening.flags.contains(OFlags::EXCL) => {
                    self.may_open(who, &spot, opening.flags)?;
                    return Ok(None);
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// May somebody open a file that is there? The kernel would let root.
    fn may_open(&self, who: &Credentials, spot: &Spot, flags: OFlags) -> Result<(), Errno> {
        if who.overrides() {
            return Ok(());
        }
        let wanted = match flags & OFlags::ACCMODE {
            OFlags::WRONLY => WRITE,
            OFlags::RDWR => READ | WRITE,
            _ => READ,
        };
        let wanted = if flags.contains(OFlags::TRUNC) { wanted | WRITE } else { wanted };
        let kept = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // If it is gone by now the kernel makes one.
        let Ok(found) = rustix::fs::openat(&spot.parent, c_string(&spot.name)?, kept, Mode::empty()) else { return Ok(()) };
        if Subject::of(&self.marks, &found)?.allows(who, wanted) { Ok(()) } else { Err(Errno::ACCESS) }
    }

    /// Whose a new file in a directory is; `None`: root's, or the directory is of a kind where files have no makers.
    pub(super) fn owner_in(&self, who: &Credentials, parent: &OwnedFd) -> Result<Option<Owner>, Errno> {
        let mode = rustix::fs::fstat(parent)?.st_mode;
        let inherits = mode & SET_GROUP != 0;
        if who.makes_roots() && !inherits {
            return Ok(None);
        }
        let gid = if inherits { self.marks.owner(parent, mode).gid } else { who.groups.files };
        let owner = Owner { uid: who.users.files, gid };
        if owner == Owner::ROOT || is_the_kernels(parent)? { Ok(None) } else { Ok(Some(owner)) }
    }

    /// mkdir, symlink, mknod and their `at` forms.
    pub(super) fn make(&mut self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        let (from, path) = match call {
            Call::Mkdir | Call::Mknod => (CWD, 0),
            Call::Symlink => (CWD, 1),
            Call::Symlinkat => (task.fd(1), 2),
            _ => (task.fd(0), 1),
        };
        let node = match call {
            Call::Mkdir | Call::Mkdirat => Node::Dir(task.number(path + 1)),
            Call::Symlink | Call::Symlinkat => Node::Link(task.text(0)?),
            _ => match node(task.number(path + 1)) {
                Some(node) => node,
                // A device: in a user namespace the kernel makes none.
                None => return Ok(Answer::Continue),
            },
        };
        let who = self.registry.of(task.thread())?;
        let Ok(spot) = paths::spot(task, &Route { from, path: task.text(path)? }) else { return Ok(Answer::Continue) };
        if spot.slash && !matches!(node, Node::Dir(_)) {
            return Ok(Answer::Continue);
        }
        let Some(owner) = self.owner_in(&who, &spot.parent)? else { return Ok(Answer::Continue) };
        let name = c_string(&spot.name)?;
        if rustix::fs::statat(&spot.parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(Errno::EXIST);
        }
        may_write_in(&self.marks, &who, &spot.parent)?;
        let umask = if matches!(node, Node::Link(_)) { Mode::empty() } else { task.umask()? };
        task.waits()?;
        rustix::process::umask(umask);
        let made = node.make(&spot.parent, &name);
        rustix::process::umask(Mode::empty());
        made?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&spot.parent, name.as_c_str(), flags, Mode::empty())?;
        self.marks.give(&fd, node.kind().as_raw_mode(), owner)?;
        Ok(Answer::Value(0))
    }
}

fn hand_over(task: &Task<'_>, made: &OwnedFd, opening: &Opening) -> Result<Answer, Errno> {
    task.give(made, opening.flags.contains(OFlags::CLOEXEC))?;
    Ok(Answer::Given)
}

/// What is made without being opened.
enum Node {
    Dir(u32),
    Link(Vec<u8>),
    Special(FileType, u32),
}

impl Node {
    fn kind(&self) -> FileType {
        match self {
            Self::Dir(_) => FileType::Directory,
            Self::Link(_) => FileType::Symlink,
            Self::Special(kind, _) => *kind,
        }
    }

    fn make(&self, parent: &OwnedFd, name: &std::ffi::CStr) -> Result<(), Errno> {
        match self {
            Self::Dir(mode) => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode & 0o7777)),
            Self::Link(target) => rustix::fs::symlinkat(c_string(target)?, parent, name),
            Self::Special(kind, mode) => rustix::fs::mknodat(parent, name, *kind, Mode::from_raw_mode(mode & 0o7777), 0),
        }
    }
}

/// What mknod is to make, if it is no device.
fn node(mode: u32) -> Option<Node> {
    match FileType::from_raw_mode(mode) {
        FileType::Fifo => Some(Node::Special(FileType::Fifo, mode)),
        FileType::Socket => Some(Node::Special(FileType::Socket, mode)),
        FileType::RegularFile => Some(Node::Special(FileType::RegularFile, mode)),
        FileType::Unknown if mode & 0o170_000 == 0 => Some(Node::Special(FileType::RegularFile, mode)),
        _ => None,
    }
}

/// What the four calls say; `None`: one with wishes that only the kernel understands.
fn opening(task: &Task<'_>, call: Call) -> Result<Option<Opening>, Errno> {
    let route = |from: i32, path: usize| -> Result<Route, Errno> { Ok(Route { from, path: task.text(path)? }) };
    let opening = match call {
        Call::Open => Opening { route: route(CWD, 0)?, flags: OFlags::from_bits_retain(task.number(1)), mode: task.number(2) },
        Call::Creat => Opening { route: route(CWD, 0)?, flags: OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC, mode: task.number(1) },
        Call::Openat => Opening { route: route(task.fd(0), 1)?, flags: OFlags::from_bits_retain(task.number(2)), mode: task.number(3) },
        _ => {
            // `struct open_how`: flags, mode, resolve.
            if task.word(3) < 24 {
                return Ok(None);
            }
            let how = task.bytes(task.word(2), 24)?;
            let mut numbers = how.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
            let (flags, mode, resolve) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            let flags = OFlags::from_bits_retain(u32::try_from(flags).map_err(|_unknown| Errno::INVAL)?);
            if resolve != 0 || flags.bits() & (OFlags::CREATE.bits() | UNNAMED) == 0 {
                return Ok(None);
            }
            Opening { route: route(task.fd(0), 1)?, flags, mode: u32::try_from(mode).map_err(|_unknown| Errno::INVAL)? }
        }
    };
    Ok(Some(opening))
}

/// proc, sysfs, devpts and the cgroups: files there are not made by who opens them.
fn is_the_kernels(parent: &OwnedFd) -> Result<bool, Errno> {
    const KINDS: [u64; 5] = [0x9fa0, 0x6265_6572, 0x1cd1, 0x0027_e0eb, 0x6367_7270];
    let kind = rustix::fs::fstatfs(parent)?.f_type;
    Ok(KINDS.contains(&kind.cast_unsigned()))
}
