//! Files below an open directory. No function here follows a symbolic link or leaves the directory it was given: a path
//! is opened with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`, everything else takes one component.
//!
//! Source: `openat2(2)`, `path_resolution(7)`, `xattr(7)`.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::PathError;

type Result<T> = std::result::Result<T, PathError>;

/// How many directories [`remove_tree`] holds open; deeper ones are moved up first.
const MAX_OPEN: usize = 64;
/// The kernel's own limits: `XATTR_LIST_MAX`, `XATTR_SIZE_MAX`.
const MAX_XATTR: usize = 64 * 1024;

/// What lstat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, 0o7777.
    pub mode: u32,
    /// Owner, as this process's user namespace sees it.
    pub uid: u32,
    /// Group, likewise.
    pub gid: u32,
    /// In bytes.
    pub size: u64,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Of the last change of the inode.
    pub ctime: (i64, u32),
    /// The file system.
    pub dev: u64,
    /// The inode on it.
    pub ino: u64,
    /// How many names the inode has.
    pub nlink: u64,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// The attributes of an open file: name → value.
pub type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

fn shown(name: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(name))
}

fn refused<T>(op: &'static str, name: &[u8], errno: Errno) -> Result<T> {
    Err(PathError { op, path: shown(name), source: errno.into() })
}

/// The name, if it is one component and so cannot lead anywhere else.
fn one<'a>(op: &'static str, name: &'a [u8]) -> Result<&'a OsStr> {
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        return refused(op, name, Errno::INVAL);
    }
    Ok(OsStr::from_bytes(name))
}

/// Makes a directory at a host path that is ours, and opens it.
pub fn make_root(path: &Path) -> Result<OwnedFd> {
    rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)).map_err(PathError::new("create", path))?;
    open_root(path)
}

/// Opens a directory by a host path that the user gave: links are followed.
pub fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(PathError::new("open", path))
}

/// Opens what is at a path below `dir`, through no link; `.` is `dir` itself. The last component may be a link only with `O_PATH`.
pub fn open_beneath(dir: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    for _attempt in 0..16 {
        match rustix::fs::openat2(&dir, path, flags, Mode::empty(), resolve) {
            // A rename elsewhere made the kernel unsure whether the walk left the directory.
            Err(Errno::AGAIN) => {}
            // A path whose last component is a link cannot be opened with NO_SYMLINKS, not even as O_PATH.
            Err(Errno::LOOP) if flags.contains(OFlags::PATH) => return open_last(dir, path, flags),
            Err(Errno::NOSYS) => return open_by_steps(dir, path, flags),
            Err(errno) => return Err(PathError { op: "open", path: path.to_owned(), source: errno.into() }),
            Ok(fd) => return Ok(fd),
        }
    }
    Err(PathError { op: "open", path: path.to_owned(), source: Errno::AGAIN.into() })
}

/// The parent beneath `dir`, then the last component by itself.
fn open_last(dir: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let fail = |errno: Errno| PathError { op: "open", path: path.to_owned(), source: errno.into() };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(fail(Errno::LOOP)) };
    if parent.as_os_str().is_empty() {
        return rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(fail);
    }
    let parent = open_beneath(dir, parent, OFlags::PATH | OFlags::DIRECTORY)?;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(fail)
}

/// Where a filter hides openat2: one component after the other.
fn open_by_steps(dir: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let fail = |errno: Errno| PathError { op: "open", path: path.to_owned(), source: errno.into() };
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(dir, ".", step, Mode::empty()).map_err(fail)?;
    let mut parts = path.components().filter(|part| *part != Component::CurDir).peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(fail(Errno::XDEV)) };
        if parts.peek().is_none() {
            return rustix::fs::openat(at, name, flags, Mode::empty()).map_err(fail);
        }
        at = rustix::fs::openat(at, name, step, Mode::empty()).map_err(fail)?;
    }
    rustix::fs::openat(at, ".", flags, Mode::empty()).map_err(fail)
}

/// Opens a directory below `dir` for reading.
pub fn open_dir(dir: impl AsFd, path: &Path) -> Result<OwnedFd> {
    open_beneath(dir, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens a regular file below `dir` for reading; anything else is refused (a pipe would block, a device would act).
pub fn open_file(dir: impl AsFd, path: &Path) -> Result<File> {
    open_file_stat(dir, path).map(|(file, _)| file)
}

/// The same, with what it was when it was opened.
pub fn open_file_stat(dir: impl AsFd, path: &Path) -> Result<(File, Stat)> {
    let fd = open_beneath(dir, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let stat = rustix::fs::fstat(&fd).map_err(PathError::new("stat", path))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(PathError { op: "open", path: path.to_owned(), source: io::Error::other("not a regular file") });
    }
    Ok((File::from(fd), Stat::from(&stat)))
}

/// Opens the regular file `name` in `dir` for reading.
pub fn open_name(dir: impl AsFd, name: &[u8]) -> Result<File> {
    open_file(dir, Path::new(one("open", name)?))
}

/// Opens the directory `name` in `dir` for reading.
pub fn open_dir_name(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    open_dir(dir, Path::new(one("open", name)?))
}

/// The names in an open directory, sorted by bytes.
pub fn names(dir: impl AsFd) -> Result<Vec<Vec<u8>>> {
    Ok(entries(dir)?.into_iter().map(|entry| entry.name).collect())
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name.
    pub name: Vec<u8>,
    /// Is it a directory, as far as the file system says so without a stat?
    pub is_dir: Option<bool>,
}

impl DirEntry {
    /// `None`: it is the directory itself or the one above.
    fn of(name: &[u8], kind: FileType) -> Option<Self> {
        let is_dir = (kind != FileType::Unknown).then_some(kind == FileType::Directory);
        (name != b"." && name != b"..").then(|| Self { name: name.to_vec(), is_dir })
    }
}

/// What is in an open directory, sorted by the bytes of the names.
pub fn entries(dir: impl AsFd) -> Result<Vec<DirEntry>> {
    let fail = |errno: Errno| PathError { op: "list", path: PathBuf::from("."), source: errno.into() };
    let mut all = Vec::new();
    for each in rustix::fs::Dir::read_from(dir).map_err(fail)? {
        let each = each.map_err(fail)?;
        all.extend(DirEntry::of(each.file_name().to_bytes(), each.file_type()));
    }
    all.sort_unstable();
    Ok(all)
}

/// The same of a directory that was just opened: it is read from where it stands.
pub fn entries_ahead(dir: impl AsFd) -> Result<Vec<DirEntry>> {
    let fail = |errno: Errno| PathError { op: "list", path: PathBuf::from("."), source: errno.into() };
    let mut all = Vec::new();
    let mut room = Vec::with_capacity(32 * 1024);
    let mut from = rustix::fs::RawDir::new(dir, room.spare_capacity_mut());
    while let Some(each) = from.next() {
        let each = each.map_err(fail)?;
        all.extend(DirEntry::of(each.file_name().to_bytes(), each.file_type()));
    }
    all.sort_unstable();
    Ok(all)
}

/// What `name` in `dir` is; no link is followed. `None`: nothing.
pub fn stat(dir: impl AsFd, name: &[u8]) -> Result<Option<Stat>> {
    match rustix::fs::statat(dir, one("stat", name)?, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Stat::from(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => refused("stat", name, errno),
    }
}

/// The number of the inode `name` in `dir` (a link's own), and when it was born: zeros if the file system does not say.
pub fn birth(dir: impl AsFd, name: &[u8]) -> Result<(u64, (i64, u32))> {
    use rustix::fs::StatxFlags;
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let found =
        rustix::fs::statx(dir, one("stat", name)?, AtFlags::SYMLINK_NOFOLLOW, wanted).map_err(PathError::new("stat", shown(name)))?;
    Ok((found.stx_ino, (found.stx_btime.tv_sec, found.stx_btime.tv_nsec)))
}

/// What an open file is.
pub fn stat_open(fd: impl AsFd) -> Result<Stat> {
    rustix::fs::fstat(fd).map(|stat| Stat::from(&stat)).map_err(PathError::new("stat", "."))
}

/// What is at a path below `dir`, its last component not followed. `None`: nothing, or a directory above it is none.
pub fn stat_beneath(dir: impl AsFd, path: &Path) -> Result<Option<Stat>> {
    match open_beneath(dir, path, OFlags::PATH) {
        Ok(fd) => stat_open(fd).map(Some),
        Err(error) if matches!(errno_of(&error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn errno_of(error: &PathError) -> Option<Errno> {
    error.source.raw_os_error().map(Errno::from_raw_os_error)
}

impl From<&rustix::fs::Stat> for Stat {
    fn from(stat: &rustix::fs::Stat) -> Self {
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let nanoseconds = |raw: u64| u32::try_from(raw).unwrap_or(0);
        Self {
            kind: match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => FileKind::Dir,
                FileType::Symlink => FileKind::Symlink,
                FileType::CharacterDevice => FileKind::Char { major, minor },
                FileType::BlockDevice => FileKind::Block { major, minor },
                FileType::Fifo => FileKind::Fifo,
                FileType::Socket => FileKind::Socket,
                FileType::RegularFile | FileType::Unknown => FileKind::File,
            },
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            ctime: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
            dev: stat.st_dev,
            ino: stat.st_ino,
            nlink: stat.st_nlink,
        }
    }
}

/// A symbolic link's target.
pub fn read_link(dir: impl AsFd, name: &[u8]) -> Result<Vec<u8>> {
    let target = rustix::fs::readlinkat(dir, one("read link", name)?, Vec::new()).map_err(PathError::new("read link", shown(name)))?;
    Ok(target.into_bytes())
}

/// Makes a directory with mode 0700.
pub fn make_dir(dir: impl AsFd, name: &[u8]) -> Result<()> {
    rustix::fs::mkdirat(dir, one("create", name)?, Mode::RWXU).map_err(PathError::new("create", shown(name)))
}

/// Makes a new file with mode 0600, open for writing; an existing name is refused.
pub fn create_file(dir: impl AsFd, name: &[u8]) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, one("create", name)?, flags, Mode::RUSR | Mode::WUSR);
    fd.map(File::from).map_err(PathError::new("create", shown(name)))
}

/// Waits until what changes from now on gets another ctime than what changed before: until the kernel's clock for files has
/// moved on, and the one of the file system, which may be slower. `dir` is a directory whose own ctime does not matter; `false`:
/// the clock stands still.
pub fn let_the_clock_move_on(dir: impl AsFd) -> Result<bool> {
    let stamp = || -> Result<(i64, u32)> {
        set_mode_open(&dir, stat_open(&dir)?.mode)?;
        Ok(stat_open(&dir)?.ctime)
    };
    let (began, first) = (super::coarse_now(), stamp()?);
    for _ in 0..MOST_TICKS {
        if super::coarse_now() > began && stamp()? != first {
            return Ok(true);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(false)
}

/// A file system that stamps whole seconds needs a second.
const MOST_TICKS: u32 = 3000;

/// Copies all of a file's bytes: shared with it where the file system can (`FICLONE`), else by the kernel where it can.
pub fn copy_bytes(from: &File, to: &File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    // It is `copy_file_range` between files.
    io::copy(&mut &*from, &mut &*to).map(drop)
}

/// Makes a symbolic link.
pub fn make_symlink(dir: impl AsFd, name: &[u8], target: &[u8]) -> Result<()> {
    rustix::fs::symlinkat(OsStr::from_bytes(target), dir, one("link", name)?).map_err(PathError::new("link", shown(name)))
}

/// Gives the inode at `old` (a link is not followed) a second name.
pub fn make_hard_link(old_dir: impl AsFd, old: &[u8], dir: impl AsFd, name: &[u8]) -> Result<()> {
    let old = one("link", old)?;
    rustix::fs::linkat(old_dir, old, dir, one("link", name)?, AtFlags::empty()).map_err(PathError::new("link", shown(name)))
}

/// Makes a device, a pipe or a socket with mode 0600. [`FileKind::Char`] 0:0 is an overlay's whiteout and needs no privilege.
pub fn make_node(dir: impl AsFd, name: &[u8], kind: FileKind) -> Result<()> {
    let (file_type, major, minor) = match kind {
        FileKind::Char { major, minor } => (FileType::CharacterDevice, major, minor),
        FileKind::Block { major, minor } => (FileType::BlockDevice, major, minor),
        FileKind::Fifo => (FileType::Fifo, 0, 0),
        FileKind::Socket => (FileType::Socket, 0, 0),
        FileKind::File | FileKind::Dir | FileKind::Symlink => return refused("create", name, Errno::INVAL),
    };
    let device = rustix::fs::makedev(major, minor);
    let made = rustix::fs::mknodat(dir, one("create", name)?, file_type, Mode::RUSR | Mode::WUSR, device);
    made.map_err(PathError::new("create", shown(name)))
}

/// Changes the owner of `name`, of a link itself.
pub fn set_owner(dir: impl AsFd, name: &[u8], uid: u32, gid: u32) -> Result<()> {
    let (owner, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let done = rustix::fs::chownat(dir, one("chown", name)?, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW);
    done.map_err(PathError::new("chown", shown(name)))
}

/// Changes the owner of an open file.
pub fn set_owner_open(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(PathError::new("chown", "."))
}

/// Changes the mode of `name`, which must be no link (`EOPNOTSUPP`); the caller owns the directory, so that it cannot become one.
pub fn set_mode(dir: impl AsFd, name: &[u8], mode: u32) -> Result<()> {
    let os = one("chmod", name)?;
    if stat(&dir, name)?.is_some_and(|stat| stat.kind == FileKind::Symlink) {
        return refused("chmod", name, Errno::OPNOTSUPP);
    }
    let mode = Mode::from_raw_mode(mode & 0o7777);
    rustix::fs::chmodat(dir, os, mode, AtFlags::empty()).map_err(PathError::new("chmod", shown(name)))
}

/// Changes the mode of an open file.
pub fn set_mode_open(fd: impl AsFd, mode: u32) -> Result<()> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777)).map_err(PathError::new("chmod", "."))
}

fn whole(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets both times of `name`, of a link itself, to a whole second.
pub fn set_times(dir: impl AsFd, name: &[u8], seconds: i64) -> Result<()> {
    let done = rustix::fs::utimensat(dir, one("set times of", name)?, &whole(seconds), AtFlags::SYMLINK_NOFOLLOW);
    done.map_err(PathError::new("set times of", shown(name)))
}

/// Sets both times of an open file to a whole second.
pub fn set_times_open(fd: impl AsFd, seconds: i64) -> Result<()> {
    rustix::fs::futimens(fd, &whole(seconds)).map_err(PathError::new("set times of", "."))
}

/// Renames; a file at the new name is replaced.
pub fn rename(old_dir: impl AsFd, old: &[u8], dir: impl AsFd, name: &[u8]) -> Result<()> {
    let old = one("rename", old)?;
    rustix::fs::renameat(old_dir, old, dir, one("rename", name)?).map_err(PathError::new("rename", shown(name)))
}

/// Removes a name that is no directory.
pub fn remove_file(dir: impl AsFd, name: &[u8]) -> Result<()> {
    rustix::fs::unlinkat(dir, one("remove", name)?, AtFlags::empty()).map_err(PathError::new("remove", shown(name)))
}

/// Removes an empty directory.
pub fn remove_dir(dir: impl AsFd, name: &[u8]) -> Result<()> {
    rustix::fs::unlinkat(dir, one("remove", name)?, AtFlags::REMOVEDIR).map_err(PathError::new("remove", shown(name)))
}

/// Removes `name` and all below it, whatever it is; nothing there is fine. Links are removed, not followed; directories
/// that may not be read are made readable; any depth is removed with a bounded number of open directories.
pub fn remove_tree(dir: impl AsFd, name: &[u8]) -> Result<()> {
    let dir = dir.as_fd();
    match rustix::fs::unlinkat(dir, one("remove", name)?, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return refused("remove", name, errno),
    }
    let mut stack = vec![Emptied::open(dir, name)?];
    let mut moved = 0_u64;
    loop {
        let depth = stack.len();
        let Some(top) = stack.last_mut() else { return Ok(()) };
        let Some(inner) = top.next_dir()? else {
            let Some(done) = stack.pop() else { return Ok(()) };
            match stack.last() {
                Some(parent) => remove_dir(&parent.fd, &done.name)?,
                None => remove_dir(dir, &done.name)?,
            }
            continue;
        };
        if depth < MAX_OPEN {
            let next = Emptied::open(&top.fd, &inner)?;
            stack.push(next);
        } else if let (Some(first), Some(top)) = (stack.first(), stack.last()) {
            // Too deep to hold all of its parents open: it becomes a child of the first, to be met again there.
            moved += 1;
            rename(&top.fd, &inner, &first.fd, format!(".removed-{moved}").as_bytes())?;
        }
    }
}

/// A directory that is being emptied.
struct Emptied {
    name: Vec<u8>,
    fd: OwnedFd,
    /// Directories in it that were seen and not yet entered.
    dirs: Vec<Vec<u8>>,
}

impl Emptied {
    fn open(dir: impl AsFd, name: &[u8]) -> Result<Self> {
        Ok(Self { name: name.to_vec(), fd: open_to_empty(dir, name)?, dirs: Vec::new() })
    }

    /// The next directory in it. When none is left of those seen, it is listed again, and all else in it removed.
    fn next_dir(&mut self) -> Result<Option<Vec<u8>>> {
        if self.dirs.is_empty() {
            for name in names(&self.fd)? {
                match rustix::fs::unlinkat(&self.fd, OsStr::from_bytes(&name), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::ISDIR | Errno::PERM) => self.dirs.push(name),
                    Err(errno) => return refused("remove", &name, errno),
                }
            }
        }
        Ok(self.dirs.pop())
    }
}

/// Opens a directory with the rights to empty it.
fn open_to_empty(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let os = one("open", name)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let locked = stat(&dir, name)?.is_some_and(|stat| stat.kind == FileKind::Dir && stat.mode & 0o700 != 0o700);
    if locked {
        // Of somebody else's directory this fails; then opening it will say so if it matters.
        drop(set_mode(&dir, name, 0o700));
    }
    rustix::fs::openat(dir, os, flags, Mode::empty()).map_err(PathError::new("open", shown(name)))
}

/// All attributes of an open file that this process may see. A file system without attributes has none.
pub fn attributes(fd: impl AsFd) -> Result<Attributes> {
    let fail = |errno: Errno| PathError { op: "read attributes of", path: PathBuf::from("."), source: errno.into() };
    let mut list = vec![0_u8; 1024];
    let length = loop {
        match rustix::fs::flistxattr(&fd, list.as_mut_slice()) {
            Ok(length) => break length,
            Err(Errno::RANGE) if list.len() < MAX_XATTR => list.resize(list.len() * 8, 0),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Attributes::new()),
            Err(errno) => return Err(fail(errno)),
        }
    };
    let mut all = Attributes::new();
    for name in list.get(..length).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if let Some(value) = attribute(&fd, name)? {
            drop(all.insert(name.to_vec(), value));
        }
    }
    Ok(all)
}

/// One attribute of an open file. `None`: it has none of that name, or may not be seen.
pub fn attribute(fd: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; 256];
    loop {
        match rustix::fs::fgetxattr(&fd, OsStr::from_bytes(name), value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < MAX_XATTR => value.resize(MAX_XATTR, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => return Ok(None),
            Err(errno) => return refused("read attribute", name, errno),
        }
    }
}

/// Sets an attribute of an open file.
pub fn set_attribute(fd: impl AsFd, name: &[u8], value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(fd, OsStr::from_bytes(name), value, XattrFlags::empty()).map_err(PathError::new("set attribute", shown(name)))
}

/// Removes an attribute of an open file; none of that name is fine.
pub fn remove_attribute(fd: impl AsFd, name: &[u8]) -> Result<()> {
    match rustix::fs::fremovexattr(fd, OsStr::from_bytes(name)) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(errno) => refused("remove attribute", name, errno),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn scratch() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = open_root(dir.path()).unwrap();
        (dir, fd)
    }

    #[test]
    fn nothing_is_opened_through_a_link_or_outside() {
        let (dir, fd) = scratch();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "x").unwrap();
        std::os::unix::fs::symlink("d", dir.path().join("l")).unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("d/lf")).unwrap();
        assert!(open_file(&fd, Path::new("d/f")).is_ok());
        for bad in ["l/f", "d/lf", "../x", "/etc/passwd", "d/../../x", "d"] {
            assert!(open_file(&fd, Path::new(bad)).is_err(), "{bad}");
            if bad != "d" {
                assert!(open_by_steps(&fd, Path::new(bad), OFlags::RDONLY | OFlags::NOFOLLOW).is_err(), "{bad}");
            }
        }
        assert!(open_by_steps(&fd, Path::new("d/f"), OFlags::RDONLY | OFlags::NOFOLLOW).is_ok());
        assert_eq!(stat_beneath(&fd, Path::new("d/lf")).unwrap().unwrap().kind, FileKind::Symlink);
        assert_eq!(stat_beneath(&fd, Path::new("l")).unwrap().unwrap().kind, FileKind::Symlink);
        assert_eq!(stat_beneath(&fd, Path::new("l/f")).unwrap(), None);
        assert_eq!(stat_beneath(&fd, Path::new("d/f/g")).unwrap(), None);
        for name in [&b".."[..], b".", b"", b"d/f", b"/"] {
            assert!(stat(&fd, name).is_err());
            assert!(remove_tree(&fd, name).is_err());
            assert!(make_dir(&fd, name).is_err());
        }
    }

    #[test]
    fn a_pipe_does_not_block_and_is_refused() {
        let (_dir, fd) = scratch();
        make_node(&fd, b"p", FileKind::Fifo).unwrap();
        assert!(open_file(&fd, Path::new("p")).is_err());
    }

    #[test]
    fn a_locked_and_very_deep_tree_is_removed_without_following_links() {
        let (dir, fd) = scratch();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("keep"), "x").unwrap();
        make_dir(&fd, b"t").unwrap();
        let mut at = open_dir(&fd, Path::new("t")).unwrap();
        for _ in 0..3000 {
            make_dir(&at, b"deep").unwrap();
            make_symlink(&at, b"out", outside.path().as_os_str().as_bytes()).unwrap();
            at = open_dir(&at, Path::new("deep")).unwrap();
        }
        make_dir(&at, b"locked").unwrap();
        drop(create_file(open_dir(&at, Path::new("locked")).unwrap(), b"f").unwrap());
        set_mode(&at, b"locked", 0).unwrap();
        remove_tree(&fd, b"t").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(outside.path().join("keep").exists());
    }

    #[test]
    fn modes_times_and_attributes_are_what_was_set() {
        let (dir, fd) = scratch();
        let file = create_file(&fd, b"f").unwrap();
        set_mode_open(&file, 0o4751).unwrap();
        set_attribute(&file, b"user.a", b"\0b").unwrap();
        set_times_open(&file, -7).unwrap();
        make_symlink(&fd, b"l", b"f").unwrap();
        set_times(&fd, b"l", 9).unwrap();
        assert!(set_mode(&fd, b"l", 0o777).is_err());
        let stat_of = |name: &[u8]| stat(&fd, name).unwrap().unwrap();
        assert_eq!((stat_of(b"f").mode, stat_of(b"f").mtime), (0o4751, (-7, 0)));
        assert_eq!(stat_of(b"l").mtime, (9, 0));
        assert_eq!(attributes(&file).unwrap().get(&b"user.a"[..]), Some(&b"\0b".to_vec()));
        remove_attribute(&file, b"user.a").unwrap();
        remove_attribute(&file, b"user.a").unwrap();
        assert_eq!(attribute(&file, b"user.a").unwrap(), None);
        assert_eq!(fs::metadata(dir.path().join("f")).unwrap().permissions().mode() & 0o7777, 0o4751);
        assert_eq!(names(&fd).unwrap(), [b"f".to_vec(), b"l".to_vec()]);
    }
}
