//! What a path of a task leads to, as an `O_PATH` fd: what was found is what is then acted on, whatever happens to the path
//! meanwhile.
//!
//! An absolute path is resolved in the task's root, a relative one beneath its directory. One that climbs out of the
//! directory, or meets an absolute link, is resolved with the task's root as the supervisor's own. Links that are no text
//! (`/proc/PID/root`, `/proc/1/fd`) are followed for nobody: with the supervisor's rights they would lead elsewhere than
//! with the task's. Only a task's own fds by their usual names are understood.
//!
//! Source: openat2(2), `path_resolution(7)`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::task::{Task, c_string};

/// Follow a link that the path ends with?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Follow,
    Keep,
}

impl Last {
    /// From flags that may hold `AT_SYMLINK_NOFOLLOW`.
    pub(super) fn of(flags: u32) -> Self {
        if flags & 0x100 == 0 { Self::Follow } else { Self::Keep }
    }
}

/// `AT_EMPTY_PATH`.
const EMPTY_PATH: u32 = 0x1000;

/// Where a path begins and how it goes on.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// A directory of the task's.
    pub(super) from: i32,
    pub(super) path: Vec<u8>,
}

/// The kernel's answer to a walk that a rename disturbed.
const ATTEMPTS: usize = 16;

/// What a call of the `at` family names: a path, or with `AT_EMPTY_PATH` and no path the fd itself.
pub(super) fn named(task: &Task<'_>, from: i32, path: usize, flags: u32) -> Result<OwnedFd, Errno> {
    let path = if task.word(path) == 0 && flags & EMPTY_PATH != 0 { Vec::new() } else { task.text(path)? };
    if path.is_empty() {
        return if flags & EMPTY_PATH == 0 { Err(Errno::NOENT) } else { task.base(from) };
    }
    find(task, &Route { from, path }, Last::of(flags), OFlags::empty())
}

/// What a path leads to.
pub(super) fn find(task: &Task<'_>, route: &Route, last: Last, flags: OFlags) -> Result<OwnedFd, Errno> {
    if last == Last::Follow
        && let Some(fd) = own_fd(&route.path)
    {
        return task.base(fd);
    }
    if route.path.starts_with(b"/") {
        return open(&task.root()?, &route.path, last, flags, ResolveFlags::IN_ROOT);
    }
    let base = task.base(route.from)?;
    beneath(task, &base, &route.path, last, flags)
}

/// What a relative path leads to from an open directory.
fn beneath(task: &Task<'_>, base: &OwnedFd, path: &[u8], last: Last, flags: OFlags) -> Result<OwnedFd, Errno> {
    match open(base, path, last, flags, ResolveFlags::BENEATH) {
        Err(Errno::XDEV) => {
            let root = task.root()?;
            task.window().within(&root, || open(base, path, last, flags, ResolveFlags::empty()))
        }
        result => result,
    }
}

fn open(base: impl AsFd, path: &[u8], last: Last, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = c_string(path)?;
    let last = if last == Last::Keep { OFlags::NOFOLLOW } else { OFlags::empty() };
    let (flags, resolve) = (flags | last | OFlags::PATH | OFlags::CLOEXEC, resolve | ResolveFlags::NO_MAGICLINKS);
    for _attempt in 0..ATTEMPTS {
        match rustix::fs::openat2(&base, path.as_c_str(), flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// The number in `/proc/self/fd/N` and its other names.
fn own_fd(path: &[u8]) -> Option<i32> {
    let number = match path {
        b"/dev/stdin" => return Some(0),
        b"/dev/stdout" => return Some(1),
        b"/dev/stderr" => return Some(2),
        _ => [&b"/proc/self/fd/"[..], b"/dev/fd/", b"/proc/thread-self/fd/"].iter().find_map(|prefix| path.strip_prefix(*prefix))?,
    };
    std::str::from_utf8(number).ok()?.parse().ok().filter(|fd| *fd >= 0)
}

/// A name in a directory: where something is to be made.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) parent: OwnedFd,
    pub(super) name: Vec<u8>,
    /// The path ended with a slash.
    pub(super) slash: bool,
}

/// The directory that holds what a path names. A path that ends with `.`, `..` or nothing names no such thing.
pub(super) fn spot(task: &Task<'_>, route: &Route) -> Result<Spot, Errno> {
    let (dir, name, slash) = split(&route.path).ok_or(Errno::INVAL)?;
    let parent = if dir.is_empty() {
        task.base(route.from)?
    } else {
        find(task, &Route { from: route.from, path: dir.to_vec() }, Last::Follow, OFlags::DIRECTORY)?
    };
    Ok(Spot { parent, name: name.to_vec(), slash })
}

/// The same for a link's target: it begins in the directory that the link is in.
pub(super) fn spot_from(task: &Task<'_>, base: &OwnedFd, path: &[u8]) -> Result<Spot, Errno> {
    if path.starts_with(b"/") {
        return spot(task, &Route { from: super::task::CWD, path: path.to_vec() });
    }
    let (dir, name, slash) = split(path).ok_or(Errno::INVAL)?;
    let parent =
        if dir.is_empty() { rustix::io::fcntl_dupfd_cloexec(base, 0)? } else { beneath(task, base, dir, Last::Follow, OFlags::DIRECTORY)? };
    Ok(Spot { parent, name: name.to_vec(), slash })
}

/// Directory, name, and whether slashes followed.
fn split(path: &[u8]) -> Option<(&[u8], &[u8], bool)> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let whole = path.get(..end)?;
    let from = whole.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (dir, name) = whole.split_at_checked(from)?;
    (name != b"." && name != b"..").then_some((dir, name, end != path.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_directory_and_a_name() {
        assert_eq!(split(b"a"), Some((&b""[..], &b"a"[..], false)));
        assert_eq!(split(b"/a//"), Some((&b"/"[..], &b"a"[..], true)));
        assert_eq!(split(b"../a/b"), Some((&b"../a/"[..], &b"b"[..], false)));
        for none in [&b""[..], b"/", b"a/..", b".", b"x/./"] {
            assert_eq!(split(none), None);
        }
    }

    #[test]
    fn only_the_usual_names_of_fds_are_understood() {
        assert_eq!(own_fd(b"/proc/self/fd/12"), Some(12));
        assert_eq!(own_fd(b"/dev/fd/0"), Some(0));
        for none in [&b"/proc/self/fd/"[..], b"/proc/self/fd/1/x", b"/proc/1/fd/2", b"/dev/fd/-1"] {
            assert_eq!(own_fd(none), None);
        }
    }
}
