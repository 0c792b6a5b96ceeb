//! A root of busybox, and steps in it.

use std::{
    ffi::OsString,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use lapstrake::{
    sandbox::{
        self, Driver, Finished, InitError, Mount, Network, Overlay, Root, Spec, Status, Stream, User,
        driver::{Ids, Snapshots},
    },
    tree::TreePath,
};

/// A directory of the engine's with one lower: busybox, `/etc/passwd`, `/tmp`.
pub(crate) struct World {
    dir: tempfile::TempDir,
    count: std::cell::Cell<u32>,
}

/// What a step said and left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) result: Result<Finished, InitError>,
    pub(crate) upper: PathBuf,
}

impl Ran {
    pub(crate) fn status(&self) -> Status {
        match &self.result {
            Ok(finished) => finished.status,
            Err(error) => unreachable!("the step did not run: {error} ({self:?})"),
        }
    }

    /// Every path below the upper, sorted.
    pub(crate) fn written(&self) -> Vec<String> {
        let all = walkdir::WalkDir::new(&self.upper).min_depth(1).sort_by_file_name();
        let name = |entry: walkdir::DirEntry| entry.path().strip_prefix(&self.upper).map(|path| path.display().to_string());
        all.into_iter().map(|entry| name(entry.expect("a walk")).expect("below the upper")).collect()
    }
}

const APPLETS: &[&str] = &[
    "sh", "cat", "ls", "id", "true", "false", "echo", "sleep", "stat", "mkdir", "rm", "touch", "chown", "chmod", "ps", "mount", "umount",
    "setsid", "yes", "head", "env", "hostname", "ip", "wc", "grep", "ln", "kill", "mknod", "dd", "test", "pwd", "readlink", "su",
    "unshare", "tr", "find", "mv", "chroot", "nc", "df", "sort", "umask", "seq", "sync", "rmdir", "tty",
];

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("lapstrake-sandbox").tempdir().expect("a directory for the test");
        let base = dir.path().join("base");
        for name in ["bin", "etc", "tmp", "root"] {
            std::fs::create_dir_all(base.join(name)).expect("the base");
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).expect("busybox (static)");
        std::fs::copy(busybox, base.join("bin/busybox")).expect("busybox");
        for name in APPLETS {
            std::os::unix::fs::symlink("busybox", base.join("bin").join(name)).expect("an applet");
        }
        std::fs::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nann:x:33:33::/:/bin/sh\n").expect("passwd");
        std::fs::write(base.join("etc/group"), "root:x:0:\nann:x:33:\n").expect("group");
        Self { dir, count: std::cell::Cell::new(0) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new directory.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }

    pub(crate) fn fresh_overlay(&self, lowers: Vec<PathBuf>) -> Overlay {
        let number = self.count.replace(self.count.get() + 1);
        Overlay { lowers, upper: self.dir(&format!("{number}/upper")), work: self.dir(&format!("{number}/work")) }
    }

    pub(crate) fn spec(&self, argv: &[&str]) -> Spec {
        Spec {
            foreign: sandbox::Foreign::default(),
            driver: Driver::of(Ids::Full, Snapshots::Overlay),
            argv: argv.iter().map(OsString::from).collect(),
            env: vec!["PATH=/bin".into()],
            cwd: TreePath::root(),
            user: User::default(),
            root: Root::Overlay(self.fresh_overlay(vec![self.path("base")])),
            network: Network::Host,
            hostname: "step".to_owned(),
            mounts: Vec::<Mount>::new(),
            hosts: b"127.0.0.1 localhost\n".to_vec(),
            resolv_conf: b"nameserver 192.0.2.1\n".to_vec(),
            limits: sandbox::Limits::default(),
            groups: None,
            security: sandbox::Security::Sandbox,
        }
    }

    pub(crate) fn shell(&self, script: &str) -> Ran {
        run(self.spec(&["sh", "-c", script]))
    }
}

pub(crate) fn run(spec: Spec) -> Ran {
    let (cancel, _kept) = rustix::pipe::pipe().expect("a pipe");
    run_until(spec, &cancel)
}

pub(crate) fn run_until(spec: Spec, cancel: &OwnedFd) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let Root::Overlay(Overlay { upper, .. }) = &spec.root else { unreachable!("a step of these tests runs in an overlay") };
    let upper = upper.clone();
    let result = sandbox::run(spec, cancel, &mut |stream, bytes| match stream {
        Stream::Out => out.extend_from_slice(bytes),
        Stream::Err => err.extend_from_slice(bytes),
    });
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { out: text(out), err: text(err), result, upper }
}

/// A path in a tree.
pub(crate) fn at(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).expect("a path in a tree")
}

/// Somebody who is not root and has a range in /etc/subuid and /etc/subgid.
pub(crate) fn ordinary_user() -> Option<(u32, u32)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (users, groups, passwd) = (read("/etc/subuid"), read("/etc/subgid"), read("/etc/passwd"));
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, ..] = fields.as_slice() else { return None };
        let has = |file: &str| file.lines().any(|line| line.split(':').next() == Some(name));
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (uid != 0 && has(&users) && has(&groups)).then_some((uid, gid))
    })
}

/// How many processes on the machine have this word in their arguments.
pub(crate) fn alive(word: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    processes
        .filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word)))
        .count()
}
