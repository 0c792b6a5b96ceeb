//! What a step without mounts finds in its root besides its layers: put there as files and directories before it, and taken
//! away after it, with what was there before put back. All by fds: no path is walked again, so nothing that the step did can
//! lead the cleaning elsewhere.
//!
//! /dev has the devices that every container has, made anew; /proc and /sys are empty. The links in /dev lead to /proc, as
//! everywhere, and so to nothing: a program that needs them says so.
//!
//! Source: the runtime specification, "Default Devices"; renameat(2).

use std::{collections::BTreeMap, io::Write as _, os::fd::OwnedFd, path::PathBuf, time::Duration};

use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid},
    io::Errno,
};

use super::{
    InitError, Mount, MountSource, Spec, Tree,
    init::{DEVICES, LINKS},
    stubs::{self, Links, Missing, Place, Shape, Stub},
};
use crate::{
    sys::{
        PathError,
        dir::{self, FileKind, Stat},
    },
    tree::TreePath,
};

/// A root made ready. Dropped, it is as it was.
#[derive(Debug)]
pub(super) struct Scene {
    root: OwnedFd,
    /// Where what was there before waits.
    wings: OwnedFd,
    placed: Vec<Placed>,
    stubs: Vec<Stub>,
    /// What must not change, as it looks.
    unchanged: Vec<Unchanged>,
}

/// Something that the step may only read, which nobody can hold root to.
#[derive(Debug)]
struct Unchanged {
    target: TreePath,
    parent: OwnedFd,
    name: Vec<u8>,
    seen: BTreeMap<TreePath, Stat>,
}

/// Something that was put somewhere.
#[derive(Debug)]
struct Placed {
    parent: OwnedFd,
    name: Vec<u8>,
    /// The name in the wings of what was there.
    held: String,
    /// Where it goes back to, and itself: open, so that no other inode gets its number.
    lent: Option<(PathBuf, OwnedFd)>,
    /// The time of the parent, before and after.
    before: (i64, i64),
    after: (i64, i64),
}

impl Scene {
    /// Puts everything in place that the spec names.
    pub(super) fn set(tree: &Tree, spec: &mut Spec) -> Result<Self, InitError> {
        let open = |path: &PathBuf| dir::open_root(path).map_err(of_path);
        let mut scene =
            Self { root: open(&tree.dir)?, wings: open(&tree.work)?, placed: Vec::new(), stubs: Vec::new(), unchanged: Vec::new() };
        for (path, bytes) in [("etc/hosts", &spec.hosts), ("etc/resolv.conf", &spec.resolv_conf)] {
            let file = MountSource::File { bytes: bytes.clone(), mode: 0o644, uid: 0, gid: 0 };
            scene.put(&fixed(path)?, file, Links::Follow)?;
        }
        for name in ["proc", "dev", "sys"] {
            let path = fixed(name)?;
            scene.place(&path, Links::Refuse, Shape::Directory, None, |parent, name| {
                dir::make_dir(parent, name).map_err(of_path)?;
                let made = dir::open_dir_name(parent, name).map_err(of_path)?;
                if name == b"dev" {
                    devices(&made)?;
                }
                dir::set_mode_open(&made, if name == b"dev" { 0o755 } else { 0o555 }).map_err(of_path)
            })?;
        }
        for Mount { target, what, readonly } in std::mem::take(&mut spec.mounts) {
            let moved = matches!(what, MountSource::Moved(_));
            scene.put(&target, what, Links::Follow)?;
            if let Some(placed) = scene.placed.last().filter(|_| readonly && moved) {
                let parent = placed.parent.try_clone().map_err(InitError::new("open", &target))?;
                scene.unchanged.push(Unchanged { target, parent, name: placed.name.clone(), seen: BTreeMap::new() });
            }
        }
        scene.remember()?;
        Ok(scene)
    }

    /// How everything looks that must not change.
    fn remember(&mut self) -> Result<(), InitError> {
        if self.unchanged.is_empty() {
            return Ok(());
        }
        for each in &mut self.unchanged {
            each.seen = looks(&self.placed, &each.parent, &each.name)?;
        }
        dir::let_the_clock_move_on(&self.wings).map(drop).map_err(of_path)
    }

    fn put(&mut self, target: &TreePath, what: MountSource, links: Links) -> Result<(), InitError> {
        match what {
            MountSource::File { bytes, mode, uid, gid } => {
                if uid == u32::MAX || gid == u32::MAX {
                    // The kernel takes it for "as it is".
                    return Err(InitError::new("create", target)(Errno::INVAL));
                }
                self.place(target, links, Shape::File, None, |parent, name| {
                    let mut file = dir::create_file(parent, name).map_err(of_path)?;
                    file.write_all(&bytes).map_err(InitError::new("write", target))?;
                    rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                        .map_err(InitError::new("chown", target))?;
                    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).map_err(InitError::new("chmod", target))
                })
            }
            MountSource::Moved(from) => self.move_in(target, links, &from, None),
            MountSource::Lent(from) => self.move_in(target, links, &from, Some(from.clone())),
            // Nothing is mounted here: the engine offers none of these.
            MountSource::Tmpfs(_) | MountSource::Host(_) | MountSource::Overlay(..) => {
                Err(InitError::new("mount", target)(Errno::OPNOTSUPP))
            }
        }
    }

    fn move_in(&mut self, target: &TreePath, links: Links, from: &PathBuf, back: Option<PathBuf>) -> Result<(), InitError> {
        let stat = rustix::fs::statat(CWD, from, AtFlags::SYMLINK_NOFOLLOW).map_err(InitError::new("move", target))?;
        let shape = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory { Shape::Directory } else { Shape::File };
        let lent = match back {
            Some(back) => Some((back, dir::open_root(from).map_err(of_path)?)),
            None => None,
        };
        self.place(target, links, shape, lent, |parent, name| {
            rustix::fs::renameat(CWD, from, parent, name).map_err(InitError::new("move", target))
        })
    }

    /// Moves what is at `target` out of the way, or the stub that is made for it, and has `make` put something there.
    fn place(
        &mut self,
        target: &TreePath,
        links: Links,
        shape: Shape,
        lent: Option<(PathBuf, OwnedFd)>,
        make: impl FnOnce(&OwnedFd, &[u8]) -> Result<(), InitError>,
    ) -> Result<(), InitError> {
        let failed = |step: &'static str| InitError::new::<Errno>(step, target);
        let found = Place::find(&self.root, target, links, Missing::Make(shape, &mut self.stubs))?;
        let above = found.path.parent().ok_or(Errno::BUSY).map_err(failed("cover"))?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat2(&self.root, above.as_os_path(), flags, Mode::empty(), resolve).map_err(failed("open"))?;
        let (name, held) = (found.path.name().to_vec(), self.placed.len().to_string());
        let before = modified(&parent).map_err(failed("look at"))?;
        rustix::fs::renameat(&parent, name.as_slice(), &self.wings, held.as_str()).map_err(failed("set aside"))?;
        let result = make(&parent, &name);
        let after = modified(&parent).map_err(failed("look at"))?;
        self.placed.push(Placed { parent, name, held, lent, before, after });
        result
    }

    /// Takes everything away again, and says which stubs are gone with it; and whether the step changed what it must not,
    /// which is an error of its own ([`CHANGED`]).
    pub(super) fn strike(mut self) -> Result<Vec<TreePath>, InitError> {
        for Unchanged { target, parent, name, seen } in &self.unchanged {
            if looks(&self.placed, parent, name)? != *seen {
                return Err(InitError::new(CHANGED, target)(Errno::ROFS));
            }
        }
        self.clear()?;
        // Nothing was mounted.
        stubs::remove(&self.root, &std::mem::take(&mut self.stubs), Duration::ZERO).map_err(InitError::new("take away", "mountpoints"))
    }

    /// The last put goes first: it may be in another. On an error the rest is done all the same.
    fn clear(&mut self) -> Result<(), InitError> {
        let mut result = Ok(());
        while let Some(placed) = self.placed.pop() {
            result = result.and(placed.clear(&self.wings));
        }
        result
    }
}

/// The `step` of the error.
pub(super) const CHANGED: &str = "keep unchanged";

/// What lstat says of something and of all in it, but for what is put into it and has its own rules.
fn looks(placed: &[Placed], parent: &OwnedFd, name: &[u8]) -> Result<BTreeMap<TreePath, Stat>, InitError> {
    let other = |dir: &OwnedFd, name: &[u8]| {
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        placed.iter().any(|other| other.name == name && inode(&other.parent) == inode(dir))
    };
    let mut all = BTreeMap::new();
    let Some(top) = dir::stat(parent, name).map_err(of_path)? else { return Ok(all) };
    let mut ahead = Vec::new();
    if top.kind == FileKind::Dir {
        ahead.push((TreePath::root(), dir::open_dir_name(parent, name).map_err(of_path)?));
    }
    let _none: Option<Stat> = all.insert(TreePath::root(), top);
    while let Some((at, fd)) = ahead.pop() {
        for name in dir::names(&fd).map_err(of_path)? {
            let (Ok(path), false) = (at.join(&name), other(&fd, &name)) else { continue };
            let Some(stat) = dir::stat(&fd, &name).map_err(of_path)? else { continue };
            if stat.kind == FileKind::Dir {
                ahead.push((path.clone(), dir::open_dir_name(&fd, &name).map_err(of_path)?));
            }
            let _none: Option<Stat> = all.insert(path, stat);
        }
    }
    Ok(all)
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Only after another error, which is the one to tell. What cannot be put back is in a directory that is given up.
        self.clear().ok();
        stubs::remove(&self.root, &self.stubs, Duration::ZERO).ok();
    }
}

impl Placed {
    fn clear(self, wings: &OwnedFd) -> Result<(), InitError> {
        let Self { parent, name, held, lent, before, after } = self;
        let shown = String::from_utf8_lossy(&name).escape_debug().to_string();
        let touched = modified(&parent).ok() != Some(after);
        if let Some((back, itself)) = lent {
            let (found, itself) = (dir::stat(&parent, &name).map_err(of_path)?, dir::stat_open(&itself).map_err(of_path)?);
            if found.is_some_and(|found| (found.dev, found.ino) == (itself.dev, itself.ino)) {
                rustix::fs::renameat(&parent, name.as_slice(), CWD, &back).map_err(InitError::new("move back", &shown))?;
            }
        }
        dir::remove_tree(&parent, &name).map_err(of_path)?;
        match rustix::fs::renameat(wings, held.as_str(), &parent, name.as_slice()) {
            // The step removed the directory that it was in, and so would have removed it.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(InitError::new("put back", &shown)(errno)),
        }
        if !touched {
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
                last_modification: Timespec { tv_sec: before.0, tv_nsec: before.1 },
            };
            rustix::fs::utimensat(&parent, c".", &times, AtFlags::empty()).ok();
        }
        Ok(())
    }
}

fn devices(dev: &OwnedFd) -> Result<(), InitError> {
    let failed = |name: &str| InitError::new::<Errno>("create", format!("/dev/{name}"));
    for (name, major, minor) in DEVICES {
        let number = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), number).map_err(failed(name))?;
        rustix::fs::chmodat(dev, name, Mode::from_raw_mode(0o666), AtFlags::empty()).map_err(failed(name))?;
    }
    for (name, target) in LINKS.iter().filter(|(_, target)| target.starts_with("/proc/")) {
        rustix::fs::symlinkat(*target, dev, *name).map_err(failed(name))?;
    }
    rustix::fs::mkdirat(dev, "shm", Mode::from_raw_mode(0o777)).map_err(failed("shm"))?;
    rustix::fs::chmodat(dev, "shm", Mode::from_raw_mode(0o1777), AtFlags::empty()).map_err(failed("shm"))
}

fn fixed(path: &str) -> Result<TreePath, InitError> {
    TreePath::parse(path.as_bytes()).map_err(|_bad| InitError::new("find", path)(Errno::INVAL))
}

fn modified(dir: &OwnedFd) -> Result<(i64, i64), Errno> {
    rustix::fs::fstat(dir).map(|stat| (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or_default()))
}

fn of_path(error: PathError) -> InitError {
    InitError::new(error.op, error.path.display())(error.source)
}
