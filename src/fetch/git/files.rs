//! The files of a checkout: which directory of it is wanted, where a submodule goes, modes and times.
//!
//! A path that a repository or a user names is taken apart, and every part of it must be a directory, opened through no
//! link: CVE-2026-33747 of BuildKit, CVE-2024-32002 of git.

use std::{
    ffi::OsStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use super::super::Error;
use crate::{
    http::harmless,
    remote::GitAddress,
    sys::{
        PathError,
        dir::{self, FileKind},
    },
};

/// Makes a directory that is ours.
pub(super) fn make_dir(path: &Path) -> Result<(), Error> {
    drop(dir::make_root(path)?);
    Ok(())
}

/// Removes what is in a directory of ours.
pub(super) fn empty(path: &Path) -> Result<(), Error> {
    let root = dir::open_root(path)?;
    for name in dir::names(&root)? {
        dir::remove_tree(&root, &name)?;
    }
    Ok(())
}

/// The parts of a path below the top of a repository. `..` is refused, also where it would stay inside.
pub(super) fn plain(path: &[u8], address: &GitAddress) -> Result<Vec<Vec<u8>>, Error> {
    let parts: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).collect();
    match parts.iter().find(|part| *part == b".." || part.contains(&0)) {
        Some(_) => {
            let detail = format!("the path `{}` has a `..` in it", harmless(&String::from_utf8_lossy(path)));
            Err(Error::Refused { what: address.shown_url(), detail, help: None })
        }
        None => Ok(parts),
    }
}

/// The directory of a checkout that is wanted.
pub(super) fn subdirectory(tree: &Path, parts: &[Vec<u8>], address: &GitAddress) -> Result<PathBuf, Error> {
    let (fd, path) = descend(tree, parts, address)?;
    drop(fd);
    Ok(path)
}

/// Where the files of a submodule go: the directory that the checkout made for it, still empty.
pub(super) fn submodule_place(tree: &Path, path: &[u8], address: &GitAddress) -> Result<PathBuf, Error> {
    let parts = plain(path, address)?;
    let (fd, place) = descend(tree, &parts, address)?;
    if parts.is_empty() || parts.iter().any(|part| part.eq_ignore_ascii_case(b".git")) || !dir::names(&fd)?.is_empty() {
        let detail = format!("`{}` is no place for a submodule", harmless(&String::from_utf8_lossy(path)));
        return Err(Error::Refused { what: address.to_string(), detail, help: None });
    }
    Ok(place)
}

/// Down a path, one real directory after the other.
fn descend(tree: &Path, parts: &[Vec<u8>], address: &GitAddress) -> Result<(OwnedFd, PathBuf), Error> {
    let mut fd = dir::open_root(tree)?;
    let mut path = tree.to_owned();
    for part in parts {
        let name = OsStr::from_bytes(part);
        let shown = harmless(&name.to_string_lossy());
        let kind = dir::stat(&fd, part)?.map(|stat| stat.kind);
        let what = address.to_string();
        match kind {
            Some(FileKind::Dir) => {}
            Some(FileKind::Symlink) => {
                return Err(Error::Refused { what, detail: format!("`{shown}` in it is a symbolic link"), help: None });
            }
            Some(_) => return Err(Error::Refused { what, detail: format!("`{shown}` in it is not a directory"), help: None }),
            None => return Err(Error::Missing { what, detail: format!("the repository has no directory `{shown}`"), help: None }),
        }
        fd = dir::open_dir(&fd, Path::new(name))?;
        path.push(name);
    }
    Ok((fd, path))
}

/// Gives every file the mode that git means, whatever the umask, and a time if one is wanted. Links have a time only.
pub(super) fn normalise(root: &Path, time: Option<i64>) -> Result<(), Error> {
    let fd = dir::open_root(root)?;
    walk(&fd, time)?;
    dir::set_mode_open(&fd, 0o755)?;
    time.map_or(Ok(()), |time| dir::set_times_open(&fd, time)).map_err(Error::from)
}

/// All in a directory, and then the directory: a file that is written changes the time of what holds it.
fn walk(top: &OwnedFd, time: Option<i64>) -> Result<(), Error> {
    // What is open, with the names in it that are still to be seen.
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(PathError::new("open", "."));
    let mut stack: Vec<(OwnedFd, Vec<Vec<u8>>)> = vec![(copy(top)?, dir::names(top)?)];
    while let Some((fd, names)) = stack.last_mut() {
        let Some(name) = names.pop() else {
            if let Some(time) = time {
                dir::set_times_open(&*fd, time)?;
            }
            drop(stack.pop());
            continue;
        };
        let Some(stat) = dir::stat(&*fd, &name)? else { continue };
        match stat.kind {
            FileKind::Dir => {
                dir::set_mode(&*fd, &name, 0o755)?;
                let inner = dir::open_dir(&*fd, Path::new(OsStr::from_bytes(&name)))?;
                let below = dir::names(&inner)?;
                if stack.len() > 4096 {
                    return Err(PathError::new("list", "a checkout")(io::Error::from(io::ErrorKind::InvalidData)).into());
                }
                stack.push((inner, below));
            }
            FileKind::File => {
                let execute = if stat.mode & 0o100 == 0 { 0 } else { 0o111 };
                // Git writes its own objects read-only.
                let write = if stat.mode & 0o200 == 0 { 0o444 } else { 0o644 };
                dir::set_mode(&*fd, &name, write | execute)?;
                time.map_or(Ok(()), |time| dir::set_times(&*fd, &name, time))?;
            }
            FileKind::Symlink => time.map_or(Ok(()), |time| dir::set_times(&*fd, &name, time))?,
            FileKind::Char { .. } | FileKind::Block { .. } | FileKind::Fifo | FileKind::Socket => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn address() -> GitAddress {
        GitAddress::parse("https://h/r.git").unwrap().unwrap()
    }

    /// CVE-2026-33747.
    #[test]
    fn a_subdirectory_is_reached_through_directories_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/f"), "").unwrap();
        symlink("/etc", dir.path().join("out")).unwrap();
        symlink("a", dir.path().join("in")).unwrap();
        let to = |path: &str| plain(path.as_bytes(), &address()).and_then(|parts| subdirectory(dir.path(), &parts, &address()));
        assert_eq!(to("a//./b/").unwrap(), dir.path().join("a/b"));
        for bad in ["..", "a/../a", "a/../../x", "out", "in", "in/b", "a/f", "a/c"] {
            assert!(to(bad).is_err(), "{bad}");
        }
    }

    /// CVE-2024-32002: a submodule whose path is a link, or leads into `.git`.
    #[test]
    fn a_submodule_goes_to_its_empty_directory_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("empty")).unwrap();
        fs::create_dir_all(dir.path().join(".git/hooks")).unwrap();
        symlink(".git", dir.path().join("link")).unwrap();
        let to = |path: &str| submodule_place(dir.path(), path.as_bytes(), &address());
        assert!(to("empty").is_ok());
        for bad in ["link", "link/hooks", ".git/hooks", ".GIT", "", ".", "../x", "none"] {
            assert!(to(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_are_those_of_git_and_times_are_set_to_the_top() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        for (name, mode) in [("d/plain", 0o600), ("d/run", 0o700), ("d/object", 0o400)] {
            fs::write(dir.path().join(name), "").unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("nowhere", dir.path().join("d/link")).unwrap();
        normalise(dir.path(), Some(77)).unwrap();
        let modes: Vec<u32> = ["d", "d/plain", "d/run", "d/object"].iter().map(|name| mode(&dir.path().join(name))).collect();
        assert_eq!(modes, [0o755, 0o644, 0o755, 0o444]);
        let root = dir::open_root(dir.path()).unwrap();
        let inner = dir::open_dir(&root, Path::new("d")).unwrap();
        let times = [dir::stat(&root, b"d"), dir::stat(&inner, b"link"), dir::stat(&inner, b"run"), dir::stat_open(&root).map(Some)];
        assert!(times.into_iter().all(|stat| stat.unwrap().unwrap().mtime.0 == 77));
    }
}
