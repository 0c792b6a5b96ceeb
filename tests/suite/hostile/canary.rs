//! What no attack may touch: files that tell when they are opened, sockets that count who comes, a value in the
//! caller's environment and in a secret, the settings of the kernel.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    fs,
    hash::{BuildHasher as _, Hasher as _},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::fs::inotify;

use crate::harness::{Needle, Project, found};

/// A value that nothing else has.
pub(super) fn value() -> String {
    format!("Canary{:016x}", RandomState::new().build_hasher().finish())
}

/// They stand from [`Canaries::stand`] on.
pub(super) struct Canaries {
    /// In each file, in the environment, and in the secret `canary`.
    value: String,
    /// A directory outside of the context, with an `etc/passwd` and a `file` that anybody may write.
    pub(super) outside: PathBuf,
    files: Vec<PathBuf>,
    /// Tells every opening of a file.
    watch: OwnedFd,
    /// What is in the directories around.
    around: BTreeSet<PathBuf>,
    pub(super) tcp: u16,
    /// The name of the abstract socket.
    pub(super) name: String,
    /// The path of the socket in a directory.
    pub(super) path: PathBuf,
    tcp_visits: Arc<AtomicUsize>,
    abstract_visits: Arc<AtomicUsize>,
    path_visits: Arc<AtomicUsize>,
    machine: Vec<(PathBuf, Option<Vec<u8>>)>,
}

/// Of the machine itself: what an attack as root could change.
const MACHINE: [&str; 6] = [
    "/etc/passwd",
    "/etc/hosts",
    "/etc/ld.so.preload",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/fs/binfmt_misc/status",
];

impl Canaries {
    /// Puts them around a project.
    pub(super) fn stand(project: &mut Project) -> Self {
        let value = value();
        let outside = project.path("outside");
        fs::create_dir_all(outside.join("etc")).unwrap();
        for dir in ["", "etc"] {
            fs::set_permissions(outside.join(dir), fs::Permissions::from_mode(0o777)).unwrap();
        }
        let files = [project.path("home/canary"), outside.join("etc/passwd"), outside.join("file"), project.path("tmp/canary")];
        for file in &files {
            fs::write(file, &value).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
        }
        // Not the value itself: the store is searched for it.
        let own = project.store().join("canary");
        fs::write(&own, "of the store").unwrap();
        project.variable("CANARY", &value);
        let name = format!("lapstrake-{}", self::value());
        let path = outside.join("socket");
        let (tcp, tcp_visits) = tcp_server();
        let (path_visits, abstract_visits) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        count(UnixListener::bind(&path).unwrap(), &path_visits);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        count(UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(), &abstract_visits);
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        for file in &files {
            let all = inotify::WatchFlags::ALL_EVENTS;
            let _number = inotify::add_watch(&watch, file, all).unwrap();
        }
        let files = files.into_iter().chain([own]).collect();
        let around = around(project, &outside);
        let machine = MACHINE.map(|path| (PathBuf::from(path), fs::read(path).ok())).into();
        Self { value, outside, files, watch, around, tcp, name, path, tcp_visits, abstract_visits, path_visits, machine }
    }

    /// Is their value in there?
    pub(super) fn in_text(&self, text: &str) -> bool {
        text.contains(&self.value)
    }

    /// How many came to the TCP server and to the abstract socket since this was asked last. A step on the host's
    /// network may.
    pub(super) fn visits(&self) -> (usize, usize) {
        (self.tcp_visits.swap(0, Ordering::SeqCst), self.abstract_visits.swap(0, Ordering::SeqCst))
    }

    /// A file outside, as an attack names it.
    pub(super) fn file(&self) -> &str {
        self.outside.to_str().unwrap()
    }

    /// Fails the test if anything was opened, changed, made, reached or told.
    pub(super) fn are_untouched(&self, project: &Project) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.watch, &mut buffer);
        if let Ok(event) = events.next() {
            panic!("a canary was touched: {:?} of {:?}", event.events(), self.files);
        }
        for file in &self.files {
            let is = fs::read_to_string(file).unwrap();
            assert!(is == self.value || is == "of the store", "{} is changed: {is}", file.display());
        }
        let now = around(project, &self.outside);
        assert_eq!(now, self.around, "something appeared or went away");
        assert_eq!(self.path_visits.load(Ordering::SeqCst), 0, "somebody came to the socket in a directory of the host");
        assert_eq!(self.visits(), (0, 0), "somebody came to the server or the abstract socket of the host");
        for (path, was) in &self.machine {
            assert_eq!(fs::read(path).ok(), *was, "{} is changed", path.display());
        }
        let none: Vec<String> = Vec::new();
        assert_eq!(found(project, &["store"], &Needle::of(self.value.as_bytes())), none, "a canary's value is in the store");
    }
}

/// The names in the directories where an attack would leave something. The scratch directories are empty between runs.
fn around(project: &Project, outside: &Path) -> BTreeSet<PathBuf> {
    let mut names = BTreeSet::new();
    for dir in [outside.to_owned(), outside.join("etc"), project.path("home"), project.path("tmp"), project.store().join("tmp")] {
        names.extend(fs::read_dir(&dir).into_iter().flatten().map(|entry| entry.unwrap().path()));
    }
    // What a path from a root that is the machine's would name.
    names.extend(["/pwned", "/tmp/pwned", "/etc/pwned", "/root/pwned"].map(PathBuf::from).into_iter().filter(|path| path.exists()));
    names
}

fn tcp_server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let visits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&visits);
    drop(std::thread::spawn(move || {
        for _visit in listener.incoming() {
            let _before = counter.fetch_add(1, Ordering::SeqCst);
        }
    }));
    (port, visits)
}

fn count(listener: UnixListener, visits: &Arc<AtomicUsize>) {
    let counter = Arc::clone(visits);
    drop(std::thread::spawn(move || {
        for _visit in listener.incoming() {
            let _before = counter.fetch_add(1, Ordering::SeqCst);
        }
    }));
}
