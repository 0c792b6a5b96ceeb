//! A directory with a context, a store and a home of its own, and the program run in it.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use super::{am_root, busybox_layout};

/// How long a program may take: installing packages on a busy machine is the longest.
const LONGEST: Duration = Duration::from_mins(5);

/// A fresh directory: `ctx` is the context, `store` the store, `home` the home. Nothing of the machine's or the
/// user's environment reaches the program.
pub(crate) struct Project {
    dir: PathBuf,
    program: PathBuf,
    store: PathBuf,
    /// Whom the program runs as, if not as we do.
    user: Option<(String, u32)>,
    variables: Vec<(String, String)>,
    /// How many were read.
    images: AtomicUsize,
    _temp: tempfile::TempDir,
}

/// What a run of a program did.
pub(crate) struct Ran {
    pub(crate) line: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Project {
    /// Empty but for a store with nothing in it.
    pub(crate) fn new() -> Self {
        let temp = tempfile::Builder::new().prefix("lapstrake-test-").tempdir().unwrap();
        let dir = temp.path().to_owned();
        for name in ["ctx", "home", "tmp"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        let store = dir.join("store");
        let program = PathBuf::from(env!("CARGO_BIN_EXE_lapstrake"));
        let program = std::env::var_os("LAPSTRAKE_TEST_PROGRAM").map_or(program, PathBuf::from);
        Self { dir, program, store, user: None, variables: Vec::new(), images: AtomicUsize::new(0), _temp: temp }
    }

    /// With the image `busybox` in the store.
    pub(crate) fn with_busybox() -> Self {
        let project = Self::new();
        project.load_busybox();
        project
    }

    /// The same, where the program runs as another user. Only root can.
    pub(crate) fn as_user(name: &str, id: u32) -> Self {
        let mut project = Self::new();
        let program = project.dir.join("lapstrake");
        copy_program(&project.program, &program);
        fs::set_permissions(&project.dir, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["ctx", "home", "tmp", "."] {
            chown(project.dir.join(name), Some(id), Some(id)).unwrap();
        }
        project.program = program;
        project.user = Some((name.to_owned(), id));
        project
    }

    /// With a store that others use too.
    pub(crate) fn on_store(store: &Path) -> Self {
        let mut project = Self::new();
        store.clone_into(&mut project.store);
        project
    }

    /// Puts `busybox` into the store.
    pub(crate) fn load_busybox(&self) {
        let layout = self.dir.join("busybox-layout");
        if let Some(base) = busybox_layout(&layout) {
            let _loaded = self.run(["load", "-i", base.to_str().unwrap(), "-t", "busybox"]).good();
        }
    }

    /// One more variable in the program's environment.
    pub(crate) fn variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// A path in the project.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The context.
    pub(crate) fn context(&self) -> PathBuf {
        self.dir.join("ctx")
    }

    /// Whom the program runs as, if not as we do.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_ref().map(|(name, _)| name.as_str())
    }

    /// The same, where the program is started by who is that user already.
    pub(crate) fn started_by_its_user(mut self) -> Self {
        self.user = None;
        self
    }

    /// Adds what a program said to the file that `LAPSTRAKE_TEST_RECORD` names, for reports.
    pub(crate) fn record(&self, said: &str) {
        if let Some(path) = std::env::var_os("LAPSTRAKE_TEST_RECORD") {
            let name = std::thread::current().name().unwrap_or("a test").to_owned();
            let text = format!("== {name}\n{}\n", said.replace(&self.dir.display().to_string(), "PROJECT"));
            let file = fs::OpenOptions::new().create(true).append(true).open(path);
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }
    }

    /// The program under test.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The store.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// Writes a file of the context.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.context().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes the Dockerfile.
    pub(crate) fn dockerfile(&self, text: &str) -> &Self {
        let _path = self.file("Dockerfile", text);
        self
    }

    /// The program with its arguments, not yet started.
    pub(crate) fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = if let Some((name, _)) = &self.user {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", name, "--regid", name, "--init-groups", "--"]).arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        };
        command.args(args).env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.path("home")).env("TMPDIR", self.path("tmp")).env("LAPSTRAKE_ROOT", &self.store);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// Runs the program.
    pub(crate) fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Ran {
        output_of(&mut self.command(args))
    }

    /// `lapstrake build --progress plain ARGS ctx`
    pub(crate) fn build(&self, args: &[&str]) -> Ran {
        self.run(Self::build_line(args))
    }

    /// The same, started and left to run.
    pub(crate) fn start_build(&self, args: &[&str]) -> Child {
        let mut command = self.command(Self::build_line(args));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn build_line<'a>(args: &[&'a str]) -> Vec<&'a str> {
        [&["build", "--progress", "plain"], args, &["ctx"]].concat()
    }

    /// Builds to an OCI layout directory and reads it.
    pub(crate) fn image(&self, args: &[&str]) -> super::Image {
        let name = format!("image-{}", self.images.fetch_add(1, Ordering::Relaxed));
        let spec = format!("type=oci,tar=false,dest={name}");
        let _built = self.build(&[&["-o", &spec], args].concat()).good();
        super::Image::of_layout(&self.path(&name))
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // Files of subordinate ids are only root's of a user namespace that maps them.
        if !am_root() && fs::remove_dir_all(&self.dir).is_err() {
            let line = ["--map-root-user", "--map-auto", "--setuid", "0", "--setgid", "0", "rm", "-rf"];
            let _removed = Command::new("unshare").args(line).arg(&self.dir).stderr(Stdio::null()).status();
        }
    }
}

/// A copy of a program, for anybody to run. Another process writes it: what this one has open for writing the children of
/// other tests have as well until they are started, and the kernel runs no program that is open so.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let _copied = output_of(Command::new("install").args(["-m", "755"]).arg(from).arg(to)).good();
}

/// Runs a program to its end.
pub(crate) fn output_of(command: &mut Command) -> Ran {
    let line = format!("{command:?}");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    Ran::of_child(line.clone(), child.unwrap_or_else(|error| panic!("{line}: {error}")))
}

impl Ran {
    /// Waits for a started program; one that does not end is killed and fails the test.
    pub(crate) fn of_child(line: String, child: Child) -> Self {
        let pid = rustix::process::Pid::from_child(&child);
        let (send, receive) = mpsc::channel();
        drop(std::thread::spawn(move || send.send(child.wait_with_output())));
        let Ok(output) = receive.recv_timeout(LONGEST) else {
            let _killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let output = receive.recv_timeout(Duration::from_secs(5)).ok().and_then(Result::ok);
            let said = output.map(|output| Self::of(line.clone(), output).all());
            panic!("{line}\ndoes not end; so far it said:\n{}", said.unwrap_or_default());
        };
        Self::of(line, output.unwrap())
    }

    /// From what std collected.
    fn of(line: String, output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { line, code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// Fails the test unless it ended well.
    pub(crate) fn good(self) -> Self {
        self.ends_with(0)
    }

    /// Fails the test unless it ended with that code.
    pub(crate) fn ends_with(self, code: i32) -> Self {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let end = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n");
        // What it said last comes first: a log that is cut still has the cause.
        assert!(
            self.code == Some(code),
            "ended with {:?}, not {code}:\n{end}\n--- {}\n--- out\n{}\n--- err\n{}",
            self.code,
            self.line,
            self.out(),
            self.stderr
        );
        self
    }

    /// Fails the test unless standard error has all of these.
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{}\n`{text}` is not in\n{}", self.line, self.stderr);
        }
        self
    }

    /// Standard output as text.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Both streams.
    pub(crate) fn all(&self) -> String {
        self.out() + &self.stderr
    }
}
