//! The engine's side of a step: mounts the root, starts pid 1, writes its id maps, and passes on what it prints.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags},
    fs::{Mode, OFlags},
    io::Errno,
    mount::{MountAttrFlags, OpenTreeFlags},
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType},
    pipe::PipeFlags,
    process::{Signal, WaitId, WaitIdOptions},
};

use super::{
    Finished, Foreign, InitError, MountSource, Network, Root, STEP_INIT, Security, Spec, Status, Stream, Tree,
    cgroup::{Group, GroupError},
    driver::{Ids, Isolation},
    enter,
    family::Family,
    init::KEPT,
    overlay::{self, Writable},
    scene::{CHANGED, Scene},
    seccomp,
    single::{self, Supervisor},
    stubs::{self, Stub},
    watchdog::Watchdog,
    wire::{Blobs, Order, Orders, Report, Source},
};
use crate::{
    sys::{self, Usage},
    tree::{Owner, OwnerTable},
};

/// Runs it to its end. `output` gets what it prints as it comes; a byte on `cancel`, or its end, kills it.
///
/// The caller is the engine: root in a user namespace, with a mount namespace of its own. When this returns no process
/// of the step is left, and mountpoints that were made for it are gone again, unless the step put something there.
/// The step ends when the calling thread does, or the engine.
pub fn run(spec: Spec, cancel: &OwnedFd, output: &mut dyn FnMut(Stream, &[u8])) -> Result<Finished, InitError> {
    match spec.driver.isolation {
        Isolation::Namespaces => in_namespaces(spec, cancel, output),
        Isolation::Chroot => in_chroot(spec, cancel, output),
    }
}

/// Where nothing can be mounted and no namespace made: in the tree itself.
fn in_chroot(mut spec: Spec, cancel: &OwnedFd, output: &mut dyn FnMut(Stream, &[u8])) -> Result<Finished, InitError> {
    let Root::Tree(Tree { dir, work }) = &spec.root else {
        return Err(InitError::new("change the root to", "an overlay")(Errno::OPNOTSUPP));
    };
    let tree = Tree { dir: dir.clone(), work: work.clone() };
    let scene = Scene::set(&tree, &mut spec)?;
    let family = Family::adopt()?;
    let root = open(&tree.dir)?;
    let group = group(&spec)?;
    let watchdog = Watchdog::new(&spec.limits, &tree.dir).map_err(InitError::new("open", tree.dir.display()))?;
    let (orders, blobs, _, _) = orders(spec)?;
    let step = Step::start(&orders, &blobs, &root, Vec::new(), None, group.as_ref())?;
    let watched = step.watch(watchdog, cancel, output);
    let (status, usage) = step.reap(&watched);
    // The step's first process has ended everybody, unless the step killed it.
    family.end();
    let (status, out_of_memory) = (status?, group.as_ref().is_some_and(Group::ran_out_of_memory));
    let stubs = match scene.strike() {
        Ok(stubs) => stubs,
        // Its own failure comes first.
        Err(error) if error.step == CHANGED && status != Status::Exited(0) => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(Finished { status, stubs, outer_proc: false, out_of_memory, owners: OwnerTable::default(), usage })
}

fn open(dir: &Path) -> Result<OwnedFd, InitError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).map_err(InitError::new("open", dir.display()))
}

fn in_namespaces(spec: Spec, cancel: &OwnedFd, output: &mut dyn FnMut(Stream, &[u8])) -> Result<Finished, InitError> {
    let view = View::mount(&spec.root)?;
    let group = group(&spec)?;
    let dir = match &spec.root {
        Root::Overlay(trees) => &trees.upper,
        Root::Tree(tree) => &tree.dir,
    };
    let watchdog = Watchdog::new(&spec.limits, dir).map_err(InitError::new("open", dir.display()))?;
    let (orders, blobs, mounts, foreign) = orders(spec)?;
    let mut step = Step::start(&orders, &blobs, &view.root, mounts, foreign, group.as_ref())?;
    let watched = step.watch(watchdog, cancel, output);
    let (status, usage) = step.reap(&watched);
    let owners = step.supervisor.take().map(Supervisor::finish);
    let made = watched.stubs.as_deref().unwrap_or_default();
    let stubs = match &status {
        Ok(Status::Exited(0)) => stubs::remove(&view.root, made, stubs::PATIENCE).map_err(InitError::new("take away", "mountpoints"))?,
        Ok(_) | Err(_) => stubs::remove(&view.root, made, Duration::ZERO).unwrap_or_default(),
    };
    let out_of_memory = group.as_ref().is_some_and(Group::ran_out_of_memory);
    let (status, owners) = match (status?, owners) {
        (status @ Status::Exited(0), Some(owners)) => (status, owners?),
        // Nobody asks what a step that failed has left.
        (status, _) => (status, OwnerTable::default()),
    };
    Ok(Finished { status, stubs, outer_proc: watched.outer_proc, out_of_memory, owners, usage })
}

/// The merged view that the step sees as `/`.
struct View {
    root: OwnedFd,
    /// An empty layer, for a root without any. Gone when dropped.
    empty: Option<PathBuf>,
}

impl View {
    fn mount(root: &Root) -> Result<Self, InitError> {
        let trees = match root {
            Root::Overlay(trees) => trees,
            Root::Tree(tree) => return Ok(Self { root: overlay::as_mount(&tree.dir)?, empty: None }),
        };
        let mut lowers = trees.lowers.clone();
        let mut empty = None;
        if lowers.is_empty() {
            // An overlay needs a lower.
            let mut name = trees.work.clone().into_os_string();
            name.push(".none");
            let path = PathBuf::from(name);
            std::fs::create_dir(&path).map_err(InitError::new("create", path.display()))?;
            lowers.push(path.clone());
            empty = Some(path);
        }
        let view = overlay::merge(&lowers, Some(&Writable { upper: &trees.upper, work: &trees.work }));
        match (view, &empty) {
            (Ok(root), _) => Ok(Self { root, empty }),
            (Err(error), Some(path)) => {
                std::fs::remove_dir(path).ok();
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(path) = &self.empty {
            // If it stays it is an empty directory beside the work directory, swept with it.
            std::fs::remove_dir(path).ok();
        }
    }
}

/// The spec as pid 1 gets it, the mounts that are passed as fds, and what the supervisor gets, if there is to be one.
fn orders(spec: Spec) -> Result<(Orders, Blobs, Vec<OwnedFd>, Option<single::Orders>), InitError> {
    let mut blobs = Blobs::default();
    let mut fds = Vec::new();
    let mut mounts = Vec::new();
    let supervised = spec.driver.ids == Ids::Single;
    let Foreign { rooted, mut mounted } = spec.foreign;
    for mount in spec.mounts {
        let what = match mount.what {
            MountSource::Tmpfs(size) => Source::Tmpfs(size),
            MountSource::File { bytes, mode, uid, gid } if supervised => {
                mounted.push((mount.target.clone(), Owner { uid, gid }));
                Source::File { bytes: blobs.add(&bytes), mode, uid: 0, gid: 0 }
            }
            MountSource::File { bytes, mode, uid, gid } => Source::File { bytes: blobs.add(&bytes), mode, uid, gid },
            MountSource::Host(fd) => {
                fds.push(take(&fd, mount.readonly).map_err(InitError::new("bind", &mount.target))?);
                Source::Host
            }
            MountSource::Moved(_) | MountSource::Lent(_) => return Err(InitError::new("mount", &mount.target)(Errno::OPNOTSUPP)),
            MountSource::Overlay(trees, path) => Source::Overlay { lowers: trees.lowers, upper: trees.upper, work: trees.work, path },
        };
        mounts.push(Order { target: mount.target, what, readonly: mount.readonly });
    }
    let (users, _) = enter::one_to_one().map_err(InitError::new("read", "/proc/self/uid_map"))?;
    let (place, work) = match spec.root {
        Root::Overlay(trees) => (trees.upper, trees.work),
        Root::Tree(tree) => (tree.dir, tree.work),
    };
    let foreign = supervised.then(|| single::Orders::new(&spec.user, rooted, mounted));
    let orders = Orders {
        isolation: spec.driver.isolation,
        supervised,
        host_root: users == "0 0 4294967295\n",
        argv: spec.argv,
        env: spec.env,
        cwd: spec.cwd,
        uid: spec.user.uid,
        gid: spec.user.gid,
        groups: spec.user.groups,
        network: spec.network,
        hostname: spec.hostname,
        mounts,
        hosts: blobs.add(&spec.hosts),
        resolv_conf: blobs.add(&spec.resolv_conf),
        limits: spec.limits.processes,
        shared_memory: spec.limits.shared_memory.unwrap_or(SHARED_MEMORY),
        filter: (spec.security == Security::Sandbox).then(|| blobs.add(filter())),
        security: spec.security,
        place,
        work,
    };
    Ok((orders, blobs, fds, foreign))
}

/// A mount of its own for what `fd` is about: the namespace of the step could not make one of our mount.
fn take(fd: &OwnedFd, readonly: bool) -> std::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    let mount = rustix::mount::open_tree(fd, c"", flags)?;
    let readonly = if readonly { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    // As real root a device in a directory of the host would be one.
    sys::set_mount_attributes(&mount, readonly | MountAttrFlags::MOUNT_ATTR_NODEV)?;
    Ok(mount)
}

/// A step whose pid 1 runs.
struct Step {
    child: sys::Child,
    isolation: Isolation,
    socket: OwnedFd,
    out: OwnedFd,
    err: OwnedFd,
    supervisor: Option<Supervisor>,
}

/// What was seen of a step.
#[derive(Default)]
struct Watched {
    outer_proc: bool,
    /// The mountpoints that were made; `None`: the sandbox was never complete.
    stubs: Option<Vec<Stub>>,
    end: Option<Report>,
    /// It was killed, and why.
    stopped: Option<Status>,
    /// When it had ended, more was written than may be.
    is_full: bool,
}

impl Step {
    fn start(
        orders: &Orders,
        blobs: &Blobs,
        root: &OwnedFd,
        mut passed: Vec<OwnedFd>,
        foreign: Option<single::Orders>,
        group: Option<&Group>,
    ) -> Result<Self, InitError> {
        let prepared = |errno: Errno| InitError::new("prepare", "step")(errno);
        let orders_file = orders.write(blobs).map_err(InitError::new("write", "orders"))?;
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(prepared)?;
        let (out, their_out) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(prepared)?;
        let (err, their_err) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(prepared)?;
        for ours in [&out, &err] {
            rustix::fs::fcntl_setfl(ours, OFlags::NONBLOCK).map_err(prepared)?;
        }
        let program = program().map_err(InitError::new("open", "/proc/self/exe"))?;
        let mut supervised = None;
        if let Some(foreign) = foreign {
            let (channel, theirs) = Supervisor::channel()?;
            passed.push(theirs);
            supervised = Some((foreign, channel));
        }
        let fds: Vec<BorrowedFd<'_>> =
            [&orders_file, &their_out, &their_err, &theirs, &orders_file, root].into_iter().chain(&passed).map(AsFd::as_fd).collect();
        let argv = [CString::from(c"lapstrake"), CString::new(STEP_INIT).map_err(InitError::new("prepare", "step"))?];
        let namespaces = match (orders.isolation, orders.network) {
            (Isolation::Chroot, _) => sys::Namespaces::Shared,
            (Isolation::Namespaces, Network::Host) => sys::Namespaces::Isolated,
            (Isolation::Namespaces, Network::None) => sys::Namespaces::IsolatedNet,
        };
        let launch = sys::Launch { program, argv: &argv, env: &[], fds: &fds, namespaces, gate: Some(3) };
        let child = launch.start().map_err(InitError::new("make namespaces", "step"))?;
        drop(passed);
        let mut step = Self { child, isolation: orders.isolation, socket, out, err, supervisor: None };
        step.admit(group).inspect_err(|_| step.kill())?;
        if let Some((foreign, channel)) = supervised {
            let supervisor =
                Supervisor::start(program, &foreign, &channel, root, &orders.place, step.child.pid).inspect_err(|_| step.kill())?;
            step.supervisor = Some(supervisor);
        }
        Ok(step)
    }

    /// Writes the id maps and puts it into its group when the child is there, and lets it go on.
    fn admit(&self, group: Option<&Group>) -> Result<(), InitError> {
        let mut byte = [0; 1];
        let there = rustix::net::recv(&self.socket, &mut byte[..], RecvFlags::empty()).map(|(read, _)| read);
        if there != Ok(1) {
            return Err(InitError::new("start", "step")(there.err().unwrap_or(Errno::PIPE)));
        }
        let maps = match self.isolation {
            Isolation::Namespaces => Some(enter::one_to_one().map_err(InitError::new("read", "/proc/self/uid_map"))?),
            Isolation::Chroot => None,
        };
        for (name, map) in maps.into_iter().flat_map(|(users, groups)| [("uid_map", users), ("gid_map", groups)]) {
            let path = format!("/proc/{}/{name}", self.child.pid.as_raw_nonzero());
            std::fs::write(&path, map).map_err(InitError::new("map ids", &path))?;
        }
        group.map_or(Ok(()), |group| group.admit(self.child.pid)).map_err(no_group)?;
        rustix::net::send(&self.socket, &byte, SendFlags::NOSIGNAL).map_err(InitError::new("start", "step"))?;
        self.child.started().map_err(InitError::new("start", "pid 1 of the step"))
    }

    /// Ends every process of it.
    fn stop(&self) {
        match self.isolation {
            Isolation::Namespaces => rustix::process::pidfd_send_signal(&self.child.pidfd, Signal::KILL).ok(),
            // It ends the others first, as it does when we are gone.
            Isolation::Chroot => rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both).ok(),
        };
    }

    fn kill(&self) {
        // Refused only when it is gone.
        rustix::process::pidfd_send_signal(&self.child.pidfd, Signal::KILL).ok();
        rustix::process::waitid(WaitId::PidFd(self.child.pidfd.as_fd()), WaitIdOptions::EXITED).ok();
    }

    /// Until pid 1 has ended: with it ends every process of the step, so nobody holds the pipes longer.
    fn watch(&self, mut watchdog: Watchdog, cancel: &OwnedFd, output: &mut dyn FnMut(Stream, &[u8])) -> Watched {
        let mut watched = Watched::default();
        let mut buffer = vec![0; 1 << 16];
        let (mut out_open, mut err_open, mut socket_open) = (true, true, true);
        let mut supervisor = self.supervisor.as_ref().map(Supervisor::pidfd);
        loop {
            // What has ended is always ready: the pidfd, which is ready once, takes its place.
            let pidfd = &self.child.pidfd;
            let mut fds = [
                PollFd::new(pidfd, PollFlags::IN),
                PollFd::new(if socket_open { &self.socket } else { pidfd }, PollFlags::IN),
                PollFd::new(if out_open { &self.out } else { pidfd }, PollFlags::IN),
                PollFd::new(if err_open { &self.err } else { pidfd }, PollFlags::IN),
                PollFd::new(if watched.stopped.is_some() { pidfd } else { cancel }, PollFlags::IN),
                PollFd::new(supervisor.unwrap_or(pidfd), PollFlags::IN),
            ];
            let patience = if watched.stopped.is_some() { None } else { watchdog.patience() };
            let patience = patience.and_then(|patience| rustix::time::Timespec::try_from(patience).ok());
            if !matches!(rustix::event::poll(&mut fds, patience.as_ref()), Ok(_) | Err(Errno::INTR)) {
                // Out of memory: nothing more can be watched.
                watched.stopped = Some(Status::Cancelled);
                rustix::process::pidfd_send_signal(&self.child.pidfd, Signal::KILL).ok();
                return watched;
            }
            let ready = fds.map(|fd| !fd.revents().is_empty());
            let [ended, said, out, err, stop, alone] = ready;
            if out && out_open {
                out_open = pass_on(&self.out, &mut buffer, 1, &mut |bytes| output(Stream::Out, bytes));
            }
            if err && err_open {
                err_open = pass_on(&self.err, &mut buffer, 1, &mut |bytes| output(Stream::Err, bytes));
            }
            if said && socket_open {
                socket_open = watched.hear(&self.socket);
            }
            if ended {
                watched.hear(&self.socket);
                // What is in the pipes now is all there will ever be: at most their size.
                pass_on(&self.out, &mut buffer, MOST_READS, &mut |bytes| output(Stream::Out, bytes));
                pass_on(&self.err, &mut buffer, MOST_READS, &mut |bytes| output(Stream::Err, bytes));
                watched.is_full = watchdog.ended_full();
                return watched;
            }
            if alone && !ended && supervisor.take().is_some() && !self.supervisor.as_ref().is_some_and(Supervisor::is_done) {
                watched.end = Some(Report::Failed(InitError::new("go on with", "supervisor")(Errno::PIPE)));
                rustix::process::pidfd_send_signal(&self.child.pidfd, Signal::KILL).ok();
            }
            if watched.stopped.is_none() {
                let why = if stop { Some(Status::Cancelled) } else { watchdog.passed() };
                if let Some(why) = why {
                    watched.stopped = Some(why);
                    self.stop();
                }
            }
        }
    }

    fn reap(&self, watched: &Watched) -> (Result<Status, InitError>, Usage) {
        let ended = sys::reap(self.child.pid).ok();
        let usage = ended.as_ref().map(|(_, usage)| *usage).unwrap_or_default();
        (Self::status(watched, ended.map(|(status, _)| status)), usage)
    }

    fn status(watched: &Watched, ended: Option<ExitStatus>) -> Result<Status, InitError> {
        if let Some(why) = watched.stopped {
            return Ok(why);
        }
        match &watched.end {
            Some(Report::Exited(0)) if watched.is_full => Ok(Status::OutOfDisk),
            Some(Report::Failed(error)) => Err(error.clone()),
            Some(Report::Exited(code)) => Ok(Status::Exited(*code)),
            Some(Report::Signalled(signal)) => Ok(Status::Signalled(*signal)),
            // pid 1 was killed from outside, by the kernel's memory killer for one.
            None | Some(Report::Mounted(_) | Report::OuterProc) => {
                match ended.and_then(|status| status.signal()) {
                    Some(signal) => Ok(Status::Signalled(signal)),
                    // A step may take files and memory from pid 1, whose user it is. All of it was killed with it.
                    None if watched.stubs.is_some() => Ok(Status::Signalled(Signal::KILL.as_raw())),
                    None => Err(InitError::new("start", "pid 1 of the step")(Errno::PIPE)),
                }
            }
        }
    }
}

/// A full pipe, of the largest size that an ordinary user may give it, is 1 MiB.
const MOST_READS: usize = 64;

/// Reads at most `times`; says whether more may come.
fn pass_on(pipe: &OwnedFd, buffer: &mut [u8], times: usize, output: &mut dyn FnMut(&[u8])) -> bool {
    for _ in 0..times {
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => return false,
            Ok(read) => output(buffer.get(..read).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        }
    }
    true
}

impl Watched {
    /// Takes what pid 1 has said; says whether it may say more.
    fn hear(&mut self, socket: &OwnedFd) -> bool {
        while self.end.is_none() {
            match Report::receive(socket) {
                Ok(Report::Mounted(stubs)) => self.stubs = Some(stubs),
                Ok(Report::OuterProc) => self.outer_proc = true,
                Ok(end) => self.end = Some(end),
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
        false
    }
}

/// The size of /dev/shm that Docker gives.
const SHARED_MEMORY: u64 = 64 << 20;

/// The control group that it gets.
fn group(spec: &Spec) -> Result<Option<Group>, InitError> {
    spec.groups.as_ref().map(|groups| groups.make(&spec.limits.group)).transpose().map_err(no_group)
}

fn no_group(error: GroupError) -> InitError {
    match error {
        GroupError::Refused { what, path, source } => InitError::new(what, path.display())(source),
        other @ (GroupError::NoVersion2 | GroupError::NoController { .. } | GroupError::Busy(_)) => {
            InitError::new("use", other)(Errno::NOTSUP)
        }
    }
}

/// The filter of system calls, made once.
fn filter() -> &'static [u8] {
    static FILTER: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    FILTER.get_or_init(|| seccomp::docker(KEPT).to_bytes())
}

/// This program, opened once.
fn program() -> std::io::Result<BorrowedFd<'static>> {
    static PROGRAM: std::sync::OnceLock<OwnedFd> = std::sync::OnceLock::new();
    if let Some(fd) = PROGRAM.get() {
        return Ok(fd.as_fd());
    }
    let fd = sys::own_program()?;
    Ok(PROGRAM.get_or_init(|| fd).as_fd())
}
