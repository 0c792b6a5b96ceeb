//! What ends a step that goes too far: its time, and the bytes it has written.
//!
//! No quota is to be had for a directory without rights on its file system, so what the step has written is counted, again and
//! again. A count costs a `stat` for each file, and is repeated after twenty times as long as it took: a step is at
//! most a twentieth slower, and what it writes between two counts is not seen until the second. It is counted once more when
//! the step has ended.

use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use super::{Limits, Status};

/// How soon after the beginning, and at the earliest after another count, it is counted.
const SHORTEST: Duration = Duration::from_millis(100);

/// Directories below one another. A step that has more hides what it writes.
const DEEPEST: usize = 256;

/// The limits of a step that runs.
pub(super) struct Watchdog {
    deadline: Option<Instant>,
    meter: Option<Meter>,
}

impl Watchdog {
    /// From now on; `dir` is where the step writes.
    pub(super) fn new(limits: &Limits, dir: &Path) -> Result<Self, Errno> {
        let meter = match limits.disk {
            None => None,
            Some(limit) => {
                let dir = open(CWD, dir.as_os_str())?;
                let before = used(&dir, u64::MAX);
                Some(Meter { dir, most: before.saturating_add(limit), next: Instant::now() + SHORTEST })
            }
        };
        Ok(Self { deadline: limits.time.and_then(|time| Instant::now().checked_add(time)), meter })
    }

    /// How long nobody needs to ask; `None`: for ever.
    pub(super) fn patience(&self) -> Option<Duration> {
        let next = self.meter.as_ref().map(|meter| meter.next);
        let soonest = [self.deadline, next].into_iter().flatten().min()?;
        Some(soonest.saturating_duration_since(Instant::now()))
    }

    /// Is a limit passed?
    pub(super) fn passed(&mut self) -> Option<Status> {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Some(Status::OutOfTime);
        }
        let meter = self.meter.as_mut().filter(|meter| now >= meter.next)?;
        let full = meter.is_full();
        let ended = Instant::now();
        meter.next = ended + SHORTEST.max((ended - now) * 20);
        full.then_some(Status::OutOfDisk)
    }

    /// Is more written than may be, now that the step has ended?
    pub(super) fn ended_full(&self) -> bool {
        self.meter.as_ref().is_some_and(Meter::is_full)
    }
}

struct Meter {
    dir: OwnedFd,
    most: u64,
    next: Instant,
}

impl Meter {
    fn is_full(&self) -> bool {
        used(&self.dir, self.most) > self.most
    }
}

/// The bytes on the disk of all that is below a directory, or, once it is more than `most`, some number above it. What cannot be
/// looked at, because it has just gone, counts nothing.
fn used(dir: &OwnedFd, most: u64) -> u64 {
    let mut sum: u64 = 0;
    let mut open_dirs: Vec<(Dir, OwnedFd)> = Vec::new();
    let enter = |dir: OwnedFd| Dir::read_from(&dir).ok().map(|entries| (entries, dir));
    open_dirs.extend(open(dir, ".").ok().and_then(enter));
    loop {
        let depth = open_dirs.len();
        let Some((entries, at)) = open_dirs.last_mut() else { return sum };
        let Some(Ok(entry)) = entries.read() else {
            drop(open_dirs.pop());
            continue;
        };
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(&*at, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        // All links of a file are below the directory: each counts its part.
        let links = if directory { 1 } else { number(stat.st_nlink).max(1) };
        sum = sum.saturating_add(u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512) / links);
        if sum > most {
            return sum;
        }
        if directory {
            if depth == DEEPEST {
                return u64::MAX;
            }
            let inner = open(&*at, entry.file_name()).ok().and_then(enter);
            open_dirs.extend(inner);
        }
    }
}

/// Its width is another one on each kind of processor.
fn number(links: impl Into<u64>) -> u64 {
    links.into()
}

fn open(dir: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(dir: &Path) -> u64 {
        used(&open(CWD, dir).unwrap(), u64::MAX)
    }

    #[test]
    fn what_is_written_counts_once_whatever_its_names_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        let before = measured(dir.path());
        std::fs::write(inner.join("one"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(inner.join("one"), dir.path().join("two")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        std::fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
        let written = measured(dir.path()) - before;
        assert!(((1 << 20)..(1 << 20) + 65536).contains(&written), "{written}");
    }

    #[test]
    fn a_tree_too_deep_to_be_looked_at_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 300).collect();
        std::fs::create_dir_all(dir.path().join(deep)).unwrap();
        assert_eq!(measured(dir.path()), u64::MAX);
    }
}
