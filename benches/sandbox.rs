//! What a step costs, and what a thousand of them leave.
//!
//! ```sh
//! cargo bench --bench sandbox                     # 200 steps beside 200 bare starts, then 1,000 steps, twice
//! cargo bench --bench sandbox -- cost 200
//! cargo bench --bench sandbox -- leak 1000
//! ```
//!
//! `cost`: a bare `fork` and `exec` of a static program and the full sandbox around the same program, in turn; the medians and
//! their ratio, with the network of the host and without one. As root, and as any user with subordinate ids, the map is a
//! full one.
//!
//! `leak`: the steps one after another, then eight at a time, in one engine: its resident memory along the way, and what is
//! left in the end of processes, mounts, namespaces, fds and files.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use lapstrake::{
    sandbox::{
        self, Driver, Limits, Network, Overlay, Root, Security, Spec, Status, User,
        driver::{Ids, Snapshots},
        enter,
    },
    tree::TreePath,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).filter(|arg| *arg != "--bench").collect();
    let result = match words.as_slice() {
        [sandbox::STEP_INIT] => return sandbox::init_main(),
        ["engine", what, count, dir] => engine(what, count, Path::new(dir)),
        [] => front("cost", "200").and_then(|()| front("leak", "1000")),
        [what @ ("cost" | "leak")] => front(what, if *what == "cost" { "200" } else { "1000" }),
        [what @ ("cost" | "leak"), count] => front(what, count),
        other => Err(format!("not understood: {}", other.join(" ")).into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    let _lost = writeln!(std::io::stdout(), "{text}");
}

/// Starts an engine, and looks at what it leaves.
fn front(what: &str, count: &str) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("lapstrake-bench-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let before = Machine::seen(&dir)?;
    let args = ["engine", what, count].map(OsString::from).into_iter().chain([dir.clone().into_os_string()]);
    let engine = enter::spawn_engine(Ids::Full, &args.collect::<Vec<_>>(), &[], &[])?;
    let code = engine.wait()?;
    let after = Machine::seen(&dir)?;
    if what == "leak" {
        say(&format!("processes before and after: {} and {}", before.processes, after.processes));
        say(&format!("namespaces that are new: {}", after.namespaces.difference(&before.namespaces).count()));
        say(&format!("mounts below the directory: {}, files in it: {}", after.mounts, after.files.saturating_sub(before.files)));
    }
    fs::remove_dir_all(&dir)?;
    if code == 0 { Ok(()) } else { Err(format!("the engine ended with {code}").into()) }
}

/// What can be counted from outside.
struct Machine {
    processes: usize,
    namespaces: BTreeSet<PathBuf>,
    mounts: usize,
    files: usize,
}

impl Machine {
    fn seen(dir: &Path) -> Result<Self> {
        let (mut processes, mut namespaces, mut mounts) = (0, BTreeSet::new(), 0);
        for entry in fs::read_dir("/proc")?.flatten() {
            if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let ours = fs::read_link(entry.path().join("exe")).is_ok_and(|exe| std::env::current_exe().is_ok_and(|own| own == exe));
            processes += usize::from(ours);
            for name in ["user", "mnt", "pid", "ipc", "uts", "net"] {
                namespaces.extend(fs::read_link(entry.path().join("ns").join(name)));
            }
            let text = fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
            mounts += text.lines().filter(|line| line.contains(&*dir.to_string_lossy())).count();
        }
        Ok(Self { processes, namespaces, mounts, files: fs::read_dir(dir)?.count() })
    }
}

/// Inside: the directory has a base with the program, and gets one more for each step.
fn engine(what: &str, count: &str, dir: &Path) -> Result<()> {
    drop(enter::become_engine()?);
    let world = World::new(dir)?;
    let count: usize = count.parse()?;
    match what {
        "cost" => world.cost(count),
        _ => world.leak(count),
    }?;
    fs::remove_dir_all(&world.dir)?;
    Ok(())
}

struct World {
    dir: PathBuf,
    number: AtomicUsize,
}

impl World {
    fn new(dir: &Path) -> Result<Self> {
        let dir = dir.join("world");
        // As most bases have them.
        for name in ["base/bin", "base/dev", "base/proc", "base/sys", "base/etc"] {
            fs::create_dir_all(dir.join(name))?;
        }
        for name in ["hosts", "resolv.conf"] {
            fs::write(dir.join("base/etc").join(name), "")?;
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let _size =
            fs::copy(busybox.ok_or("this needs busybox, a static one (Debian's package busybox-static)")?, dir.join("base/bin/true"))?;
        Ok(Self { dir, number: AtomicUsize::new(0) })
    }

    fn step(&self, network: Network) -> Result<Duration> {
        let own = self.dir.join(self.number.fetch_add(1, Ordering::Relaxed).to_string());
        let (upper, work) = (own.join("upper"), own.join("work"));
        for path in [&upper, &work] {
            fs::create_dir_all(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        let spec = Spec {
            argv: vec!["true".into()],
            env: vec!["PATH=/bin".into()],
            cwd: TreePath::root(),
            user: User::default(),
            root: Root::Overlay(Overlay { lowers: vec![self.dir.join("base")], upper, work }),
            network,
            hostname: "step".to_owned(),
            mounts: Vec::new(),
            hosts: b"127.0.0.1 localhost\n".to_vec(),
            resolv_conf: Vec::new(),
            foreign: lapstrake::sandbox::Foreign::default(),
            limits: Limits::default(),
            groups: None,
            security: Security::Sandbox,
            driver: Driver::of(Ids::Full, Snapshots::Overlay),
        };
        let (cancel, _kept) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let begun = Instant::now();
        let finished = sandbox::run(spec, &cancel, &mut |_, _| {})?;
        let taken = begun.elapsed();
        fs::remove_dir_all(&own)?;
        if finished.status == Status::Exited(0) { Ok(taken) } else { Err(format!("the step ended with {:?}", finished.status).into()) }
    }

    #[expect(clippy::disallowed_methods, reason = "the bare start that a step is measured beside")]
    fn bare(&self) -> Result<Duration> {
        let begun = Instant::now();
        let status = Command::new(self.dir.join("base/bin/true")).env_clear().stdin(Stdio::null()).status()?;
        if status.success() { Ok(begun.elapsed()) } else { Err(format!("the program ended with {status}").into()) }
    }

    fn cost(&self, count: usize) -> Result<()> {
        say("| network | bare, median | sandbox, least | sandbox, median | ratio of medians |\n|---|---|---|---|---|");
        for network in [Network::Host, Network::None] {
            let (mut bare, mut full) = (Vec::new(), Vec::new());
            for _ in 0..count {
                bare.push(self.bare()?);
                full.push(self.step(network)?);
            }
            bare.sort();
            full.sort();
            let middle = |all: &[Duration]| all.get(all.len() / 2).copied().unwrap_or_default();
            let ratio = middle(&full).as_secs_f64() / middle(&bare).as_secs_f64();
            let least = full.first().copied().unwrap_or_default();
            say(&format!("| {network:?} | {:?} | {least:?} | {:?} | {ratio:.1} |", middle(&bare), middle(&full)));
        }
        Ok(())
    }

    fn leak(&self, count: usize) -> Result<()> {
        // The first opens what all of them use.
        let _first = self.step(Network::Host)?;
        let before = Own::seen()?;
        say(&format!("| steps | at once | resident | open files | mounts |\n|---|---|---|---|---|\n| 0 | | {before}"));
        for threads in [1, 8] {
            let left = AtomicUsize::new(count);
            // Each step's own pid 1 dies with the thread that started it: the threads stay until all is done.
            for tenth in 1..=10 {
                let goal = count - count * tenth / 10;
                std::thread::scope(|scope| -> Result<()> {
                    let work = || -> std::result::Result<(), String> {
                        while left
                            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1).filter(|left| *left >= goal))
                            .is_ok()
                        {
                            let _time = self.step(Network::Host).map_err(|error| error.to_string())?;
                        }
                        Ok(())
                    };
                    let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                    all.into_iter().try_for_each(|one| one.join().map_err(|_panic| "a thread panicked".to_owned())?)?;
                    Ok(())
                })?;
                say(&format!("| {} | {threads} | {}", count - goal, Own::seen()?));
            }
        }
        let after = Own::seen()?;
        let same = (before.fds, before.mounts, before.children) == (after.fds, after.mounts, after.children);
        if same { Ok(()) } else { Err("something is left".into()) }
    }
}

/// What the engine sees of itself.
struct Own {
    resident_kib: u64,
    fds: usize,
    mounts: usize,
    children: usize,
}

impl Own {
    fn seen() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).and_then(|rest| rest.split_whitespace().next());
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        Ok(Self {
            resident_kib: resident.ok_or("no VmRSS")?.parse()?,
            fds: fs::read_dir("/proc/self/fd")?.count(),
            mounts: fs::read_to_string("/proc/self/mountinfo")?.lines().count(),
            children: children.split_whitespace().count(),
        })
    }
}

impl std::fmt::Display for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} KiB | {} | {} |", self.resident_kib, self.fds, self.mounts)
    }
}
