//! Control groups, where they are delegated: one for each step, with its limits, gone with it.
//!
//! Groups of version 2 only. A step's group is made in the group of the engine, or in the one that the user names. A
//! group with processes cannot share its controllers out to groups inside it; if the processes in ours are the engine
//! and the front alone, as in a scope of systemd, they move to a group inside it first.
//!
//! ```text
//! PARENT/lapstrake-main-PID    front and engine, if they had to move
//! PARENT/lapstrake-PID-N       a step; PID is the engine's
//! ```
//!
//! Source: the kernel's cgroup-v2.rst ("No Internal Process Constraint", "Delegation"), cgroups(7).

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// A value in a file of a step's group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The file: `memory.max`. Its controller is the word before the dot.
    pub file: String,
    /// What is written to it.
    pub value: String,
    /// What asks for it: `--memory`.
    pub flag: String,
}

impl Setting {
    fn controller(&self) -> &str {
        self.file.split('.').next().unwrap_or_default()
    }
}

/// Why a step can have no group with its limits.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// There are no groups of version 2.
    #[error("no control groups of version 2 are mounted at /sys/fs/cgroup")]
    NoVersion2,
    /// The parent has not got a controller.
    #[error("the control group `{}` has no controller `{controller}`{}", parent.display(), Hybrid(*.hybrid))]
    NoController {
        /// Which.
        controller: String,
        /// Where.
        parent: PathBuf,
        /// A hierarchy of version 1 has it.
        hybrid: bool,
    },
    /// The parent has processes that are not ours.
    #[error("the control group `{}` has other processes in it, and so can have no groups with limits inside", .0.display())]
    Busy(PathBuf),
    /// The kernel refused.
    #[error("cannot {what} `{}`", path.display())]
    Refused {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl GroupError {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoVersion2 | Self::NoController { hybrid: true, .. } => {
                "boot with `systemd.unified_cgroup_hierarchy=1`, so that all controllers are of version 2, or leave the limit out"
            }
            Self::NoController { .. } | Self::Busy(_) | Self::Refused { .. } => {
                "give the build a group of its own: `systemd-run --user --scope -p Delegate=yes lapstrake build …`"
            }
        }
    }
}

struct Hybrid(bool);

impl fmt::Display for Hybrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 { f.write_str(": it is used by control groups of version 1") } else { Ok(()) }
    }
}

fn refused(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GroupError {
    move |source| GroupError::Refused { what, path: path.to_owned(), source }
}

/// A group in which steps have groups of their own.
#[derive(Debug)]
pub struct Groups {
    parent: PathBuf,
    count: AtomicU32,
}

impl Groups {
    /// Finds the parent, and has it share out what the settings need. `parent` is a path below the root of all groups.
    /// What engines that are gone have left there is removed.
    pub fn prepare(parent: Option<&str>, settings: &[Setting]) -> Result<Self, GroupError> {
        let read = |path: &str| fs::read_to_string(path).map_err(refused("read", Path::new(path)));
        let root = mount_point(&read("/proc/self/mountinfo")?).ok_or(GroupError::NoVersion2)?;
        let own = below(&root, own_group(&read("/proc/self/cgroup")?).ok_or(GroupError::NoVersion2)?);
        let parent = parent.map_or_else(|| own.clone(), |parent| below(&root, parent));
        let ours = [Some(rustix::process::getpid()), rustix::process::getppid()];
        let ours: Vec<i32> = ours.into_iter().flatten().map(|pid| pid.as_raw_nonzero().get()).collect();
        let hybrid = read("/proc/self/cgroup")?.lines().filter_map(|line| line.split(':').nth(1)).any(|names| !names.is_empty());
        Self::within(parent, settings, &ours, hybrid)
    }

    /// The same, where the parent is known, and which processes may be moved.
    fn within(parent: PathBuf, settings: &[Setting], ours: &[i32], hybrid: bool) -> Result<Self, GroupError> {
        sweep(&parent);
        let read = |name: &str| fs::read_to_string(parent.join(name)).map_err(refused("read", &parent.join(name)));
        let has = |list: &str, controller: &str| list.split_ascii_whitespace().any(|name| name == controller);
        let (available, shared) = (read("cgroup.controllers")?, read("cgroup.subtree_control")?);
        let mut wanted: Vec<&str> = settings.iter().map(Setting::controller).collect();
        wanted.sort_unstable();
        wanted.dedup();
        if let Some(missing) = wanted.iter().find(|controller| !has(&available, controller)) {
            return Err(GroupError::NoController { controller: (*missing).to_owned(), parent, hybrid });
        }
        wanted.retain(|controller| !has(&shared, controller));
        let control = parent.join("cgroup.subtree_control");
        let share = || wanted.iter().try_for_each(|controller| fs::write(&control, format!("+{controller}")));
        match share() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                move_inside(&parent, ours)?;
                share().map_err(refused("write", &control))?;
            }
            Err(error) => return Err(refused("write", &control)(error)),
        }
        Ok(Self { parent, count: AtomicU32::new(0) })
    }

    /// A group for a step, with nothing in it.
    pub(super) fn make(&self, settings: &[Setting]) -> Result<Group, GroupError> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let dir = self.parent.join(format!("{PREFIX}{}-{number}", rustix::process::getpid().as_raw_nonzero()));
        fs::create_dir(&dir).map_err(refused("make", &dir))?;
        let group = Group { dir };
        for setting in settings {
            let path = group.dir.join(&setting.file);
            fs::write(&path, &setting.value).map_err(refused("write", &path))?;
        }
        Ok(group)
    }
}

/// A step's group. Gone when dropped, if its processes are.
#[derive(Debug)]
pub(super) struct Group {
    dir: PathBuf,
}

impl Group {
    /// Puts a process into it.
    pub(super) fn admit(&self, pid: Pid) -> Result<(), GroupError> {
        let path = self.dir.join("cgroup.procs");
        fs::write(&path, pid.as_raw_nonzero().to_string()).map_err(refused("write", &path))
    }

    /// Has the kernel killed a process of it because of `memory.max`?
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.dir.join("memory.events")).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that was just killed is in its group until it is reaped.
        for _ in 0..50 {
            match fs::remove_dir(&self.dir) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(Duration::from_millis(10)),
                // If it stays, the next build removes it.
                Ok(()) | Err(_) => return,
            }
        }
    }
}

const PREFIX: &str = "lapstrake-";
const MAIN: &str = "main-";

/// Removes groups of processes that are no more. Only empty ones can be removed.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let number = rest.strip_prefix(MAIN).unwrap_or(rest).split('-').next().unwrap_or_default();
        let Some(pid) = number.parse().ok().and_then(Pid::from_raw) else { continue };
        if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
            fs::remove_dir(entry.path()).ok();
        }
    }
}

/// Makes a group without processes of the parent, if they are all ours.
fn move_inside(parent: &Path, ours: &[i32]) -> Result<(), GroupError> {
    let procs = parent.join("cgroup.procs");
    let inside = fs::read_to_string(&procs).map_err(refused("read", &procs))?;
    let inside: Vec<i32> = inside.lines().filter_map(|line| line.parse().ok()).collect();
    if !inside.iter().all(|pid| ours.contains(pid)) {
        return Err(GroupError::Busy(parent.to_owned()));
    }
    let main = parent.join(format!("{PREFIX}{MAIN}{}", rustix::process::getpid().as_raw_nonzero()));
    fs::create_dir(&main).map_err(refused("make", &main))?;
    let procs = main.join("cgroup.procs");
    // One process with each write.
    inside.iter().try_for_each(|pid| fs::write(&procs, pid.to_string())).map_err(refused("write", &procs))
}

/// Where the tree of version 2 is, of the text of /proc/self/mountinfo.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let path = fields.split(' ').nth(4)?;
        rest.starts_with("cgroup2 ").then(|| PathBuf::from(path))
    })
}

/// Our own group, of the text of /proc/self/cgroup.
fn own_group(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// A path that begins with a slash is below the root all the same; `..` stays where it is.
fn below(root: &Path, path: &str) -> PathBuf {
    path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).fold(root.to_owned(), |path, part| path.join(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(file: &str, value: &str) -> Setting {
        Setting { file: file.to_owned(), value: value.to_owned(), flag: String::new() }
    }

    #[test]
    fn the_tree_and_our_place_in_it_are_found() {
        let mounts = "35 24 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n36 24 0:31 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("35 24 0:30 / /sys rw - sysfs sysfs rw\n"), None);
        assert_eq!(own_group("4:memory:/x\n0::/user.slice/a\n"), Some("/user.slice/a"));
        assert_eq!(below("/c".as_ref(), "/../x//./y"), PathBuf::from("/c/x/y"));
    }

    /// A directory that has the files of a group, as far as they are read here.
    fn plain(controllers: &str, shared: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("cgroup.controllers", controllers), ("cgroup.subtree_control", shared)] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn a_step_gets_a_group_with_its_settings() {
        let dir = plain("cpu memory", "memory");
        let settings = [setting("memory.max", "1048576"), setting("cpu.max", "50000 100000")];
        let groups = Groups::within(dir.path().to_owned(), &settings, &[], false).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap(), "+cpu");
        let group = groups.make(&settings).unwrap();
        assert_eq!(fs::read_to_string(group.dir.join("memory.max")).unwrap(), "1048576");
        assert_eq!(fs::read_to_string(group.dir.join("cpu.max")).unwrap(), "50000 100000");
        assert!(!group.ran_out_of_memory());
        fs::write(group.dir.join("memory.events"), "low 0\noom 1\noom_kill 2\n").unwrap();
        assert!(group.ran_out_of_memory());
    }

    #[test]
    fn a_controller_that_is_missing_is_named() {
        let dir = plain("hugetlb", "");
        let error = Groups::within(dir.path().to_owned(), &[setting("memory.max", "1")], &[], true).unwrap_err();
        assert!(error.to_string().ends_with("has no controller `memory`: it is used by control groups of version 1"), "{error}");
        assert!(error.help().contains("unified_cgroup_hierarchy"));
    }

    /// With a group of the kernel's, wherever this user may make one and some controller is left to version 2.
    #[test]
    fn a_real_group_takes_a_process_and_goes_with_it() {
        let Some(root) = fs::read_to_string("/proc/self/mountinfo").ok().and_then(|text| mount_point(&text)) else { return };
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let Some(controller) = controllers.split_ascii_whitespace().next() else { return };
        let parent = root.join(format!("lapstrake-test-{}", rustix::process::getpid().as_raw_nonzero()));
        // The root may be shared out already, or not be ours.
        let shared = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
        if shared.and_then(|()| fs::create_dir(&parent)).is_err() {
            return;
        }
        let settings = [setting(&format!("{controller}.x"), "")];
        let groups = Groups::within(parent.clone(), &settings, &[], false).unwrap();
        let shared = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap();
        let group = groups.make(&[]).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a process of the test's own")]
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let admitted = group.admit(Pid::from_child(&sleeper));
        let line = fs::read_to_string(format!("/proc/{}/cgroup", sleeper.id())).unwrap();
        sleeper.kill().unwrap();
        let _status = sleeper.wait().unwrap();
        let dir = group.dir.clone();
        drop(group);
        let left = dir.exists();
        fs::remove_dir(&parent).unwrap();
        admitted.unwrap();
        assert!(shared.contains(controller) && !left);
        let own = own_group(&line).unwrap().to_owned();
        assert!(own.ends_with(dir.file_name().unwrap().to_str().unwrap()), "{own}");
    }
}
