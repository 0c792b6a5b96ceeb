//! ADD of trees of git repositories.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::harness::{Image, Kind, Project, Sshd, Web, answer, free_port, need, output_of, wait_until};

/// Repositories, and who serves them.
pub(super) struct Served {
    dir: tempfile::TempDir,
    port: u16,
    daemon: Child,
}

impl Served {
    /// Nothing yet, on `git://`. `None`, and a message: there is no git.
    pub(super) fn new() -> Option<Self> {
        let git = need("git")?;
        let dir = tempfile::Builder::new().prefix("lapstrake-test-git-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        let mut command = Command::new(git);
        command.args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"]).arg(format!("--port={port}"));
        command.arg(format!("--base-path={}", dir.path().display())).arg(dir.path()).stdin(Stdio::null()).stderr(Stdio::null());
        let daemon = command.env("GIT_CONFIG_GLOBAL", "/dev/null").process_group(0).spawn().unwrap();
        wait_until("git daemon", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Some(Self { dir, port, daemon })
    }

    pub(super) fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new repository with these files in one commit on `main`.
    pub(super) fn repository(&self, name: &str, files: &[(&str, &str)]) -> Repository {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        let repository = Repository { path };
        let _made = repository.git(&["init", "-q", "-b", "main"]);
        repository.commit(files);
        repository
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // `git` starts another program for it.
        let _gone = rustix::process::kill_process_group(rustix::process::Pid::from_child(&self.daemon), rustix::process::Signal::KILL);
        drop(self.daemon.wait());
    }
}

/// A repository with files.
pub(super) struct Repository {
    pub(super) path: PathBuf,
}

impl Repository {
    /// Runs git in it; the result is its output.
    pub(super) fn git(&self, args: &[&str]) -> String {
        git_in(&self.path, args)
    }

    /// Writes files and commits all.
    pub(super) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, text) in files {
            let path = self.path.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let _added = self.git(&["add", "-A"]);
        let _made = self.git(&["commit", "-q", "--allow-empty", "-m", "x"]);
        self.head()
    }

    pub(super) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Puts a submodule into the index by its bare facts, whatever git thinks of them.
    pub(super) fn link(&self, path: &str, commit: &str, settings: &str) {
        fs::write(self.path.join(".gitmodules"), settings).unwrap();
        let _added = self.git(&["add", ".gitmodules"]);
        let _linked = self.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
        let _made = self.git(&["commit", "-q", "-m", "submodule"]);
    }
}

fn git_in(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new(need("git").unwrap());
    command.args(args).current_dir(dir).env_clear().env("PATH", "/usr/bin:/bin:/usr/local/bin").env("HOME", dir);
    for (name, value) in [("NAME", "a"), ("EMAIL", "a@example.org"), ("DATE", "@1234567890 +0000")] {
        command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
    }
    output_of(&mut command).good().out().trim().to_owned()
}

fn of(project: &Project, lines: &str) -> Image {
    let _written = project.dockerfile(&format!("FROM scratch\n{lines}"));
    project.image(&[])
}

fn names(image: &Image) -> Vec<String> {
    image.tree().into_keys().collect()
}

fn fails(project: &Project, line: &str, code: i32, says: &[&str]) {
    let _written = project.dockerfile(&format!("FROM scratch\n{line}\n"));
    let _failed = project.build(&[]).ends_with(code).says(says).says(&["Dockerfile:2"]);
}

#[test]
fn a_branch_a_tag_a_commit_and_a_directory_are_taken_with_the_modes_of_git() {
    let Some(served) = Served::new() else { return };
    let repository = served.repository("r", &[("old", "")]);
    let _configured = repository.git(&["config", "uploadpack.allowReachableSHA1InWant", "true"]);
    let _tagged = repository.git(&["tag", "-a", "-m", "v1", "v1"]);
    let old = repository.head();
    let _branched = repository.git(&["branch", "feature/x"]);
    fs::write(repository.path.join("run"), "").unwrap();
    fs::set_permissions(repository.path.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("run", repository.path.join("link")).unwrap();
    let _new = repository.commit(&[("d/e/deep", "")]);
    let project = Project::new();
    let url = served.url("r");
    let lines = format!(
        "ADD {url} /head\nADD {url}#v1 /tag/\nADD {url}?tag=v1 /tag2\nADD {url}#{old} /commit\nADD {url}#feature/x /branch\n\
         ADD --chown=1:2 {url}?branch=main#:d/e /sub\n"
    );
    let _written = project.dockerfile(&format!("FROM scratch\n{lines}"));
    let command = project.command(["build", "--progress", "plain", "-o", "type=oci,tar=false,dest=out", "ctx"]);
    // Whatever the umask is.
    let shell = "umask 077; exec \"$0\" \"$@\"";
    let mut narrow = Command::new("sh");
    narrow.args(["-c", shell]).arg(command.get_program()).args(command.get_args()).current_dir(project.path(".")).env_clear();
    narrow.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let _built = output_of(&mut narrow).good();
    let image = Image::of_layout(&project.path("out"));
    let expected = [
        "branch",
        "branch/old",
        "commit",
        "commit/old",
        "head",
        "head/d",
        "head/d/e",
        "head/d/e/deep",
        "head/link",
        "head/old",
        "head/run",
        "sub",
        "sub/deep",
        "tag",
        "tag/old",
        "tag2",
        "tag2/old",
    ];
    assert_eq!(names(&image), expected);
    let tree = image.tree();
    let modes = ["head/old", "head/run", "head/d", "sub/deep"].map(|path| tree[path].mode);
    assert_eq!(modes, [0o644, 0o755, 0o755, 0o644]);
    assert_eq!(tree["head/link"].kind, Kind::Symlink(b"run".to_vec()));
    assert_eq!((tree["sub/deep"].uid, tree["sub/deep"].gid, tree["head/old"].uid), (1, 2, 0));
}

#[test]
fn a_commit_that_has_no_name_is_found_in_the_history() {
    let Some(served) = Served::new() else { return };
    let repository = served.repository("r", &[("one", "")]);
    let old = repository.head();
    let _newer = repository.commit(&[("two", "")]);
    let project = Project::new();
    let image = of(&project, &format!("ADD {}#{old} /d\n", served.url("r")));
    assert_eq!(names(&image), ["d", "d/one"]);
    let absent = "0123456789".repeat(4);
    fails(&project, &format!("ADD {}#{absent} /d", served.url("r")), 1, &[&absent]);
}

#[test]
fn an_unchanged_repository_is_a_hit_and_a_new_commit_is_none() {
    let Some(served) = Served::new() else { return };
    let repository = served.repository("r", &[("d/f", "1")]);
    let project = Project::new();
    let url = served.url("r");
    let _first = of(&project, &format!("ADD {url}#main:d /f\nADD --keep-git-dir {url} /g\n"));
    let _hit = project.build(&[]).good().says(&["#1 CACHED", "#2 CACHED"]);
    // What is outside of the directory is no part of it.
    let _other = repository.commit(&[("other", "")]);
    let _partly = project.build(&[]).good().says(&["#1 CACHED", "#2 DONE"]);
    let _changed = repository.commit(&[("d/f", "2")]);
    let _miss = project.build(&[]).good().says(&["#1 DONE", "#2 DONE"]);
}

#[test]
fn what_is_kept_of_a_repository_is_disposable() {
    let Some(served) = Served::new() else { return };
    let repository = served.repository("r", &[("f", "1")]);
    let project = Project::new();
    let line = format!("ADD {} /\n", served.url("r"));
    let first = of(&project, &line);
    let kept = || fs::read_dir(project.store().join("git")).unwrap().next().unwrap().unwrap().path();
    let spoil: [&dyn Fn(&Path); 4] = [
        &|kept| fs::remove_dir_all(kept.join("objects")).unwrap(),
        &|kept| fs::write(kept.join("HEAD"), "nonsense").unwrap(),
        &|kept| fs::write(kept.join("config"), "[core").unwrap(),
        &|kept| {
            for entry in walkdir::WalkDir::new(kept.join("objects")).into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o644)).unwrap();
                fs::write(entry.path(), "garbage").unwrap();
            }
        },
    ];
    for spoil in spoil {
        spoil(&kept());
        assert_eq!(project.image(&["--no-cache"]).tree().keys().collect::<Vec<_>>(), first.tree().keys().collect::<Vec<_>>());
    }
    // A branch that was moved to another history, as a forced push leaves it.
    let _forced = repository.git(&["commit", "-q", "--amend", "-m", "other"]);
    let _moved = project.build(&["--no-cache"]).good();
}

#[test]
fn a_kept_git_dir_is_a_repository_without_anything_of_this_machine() {
    let Some(served) = Served::new() else { return };
    let repository = served.repository("r", &[("f", "1")]);
    let _tagged = repository.git(&["tag", "-a", "-m", "v1", "v1"]);
    let project = Project::new();
    let url = served.url("r");
    let _written = project.dockerfile(&format!("FROM scratch\nADD --keep-git-dir=true {url}#v1 /\n"));
    let out = project.path("out");
    let _built = project.build(&["-o", &format!("type=local,dest={}", out.display())]).good();
    assert_eq!(git_in(&out, &["-c", "safe.directory=*", "log", "--format=%H"]), repository.head());
    assert_eq!(git_in(&out, &["-c", "safe.directory=*", "status", "--porcelain"]), "");
    assert_eq!(git_in(&out, &["-c", "safe.directory=*", "describe"]), "v1");
    assert_eq!(git_in(&out, &["-c", "safe.directory=*", "config", "remote.origin.url"]), url);
    let store = project.store().display().to_string();
    for entry in walkdir::WalkDir::new(out.join(".git")).into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
        let bytes = fs::read(entry.path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(&store), "{}", entry.path().display());
    }
}

#[test]
fn a_checksum_is_that_of_the_commit_or_of_its_tag() {
    let Some(served) = Served::new() else { return };
    let repository = served.repository("r", &[("f", "1")]);
    let _tagged = repository.git(&["tag", "-a", "-m", "v1", "v1"]);
    let (commit, tag) = (repository.head(), repository.git(&["rev-parse", "v1"]));
    let short = commit.chars().take(8).collect::<String>();
    let project = Project::new();
    let url = served.url("r");
    for sum in [&commit, &short, &tag, &commit.to_uppercase()] {
        let _good = of(&project, &format!("ADD --checksum={sum} {url}#v1 /d\nADD {url}?tag=v1&checksum={sum} /e\n"));
    }
    let _pinned = of(&project, &format!("ADD {url}?checksum={commit}&fetch-by-commit=1 /d\n"));
    fails(&project, &format!("ADD --checksum=0123456 {url}#v1 /d"), 1, &["0123456", &commit, &tag]);
    fails(&project, &format!("ADD --checksum=0123456 {url}#{commit} /d"), 1, &["0123456", &commit]);
    fails(&project, &format!("ADD {url}?checksum=xyz#v1 /d"), 1, &["xyz"]);
    fails(&project, &format!("ADD {url}?checksum=abc&fetch-by-commit /d"), 1, &["fetch-by-commit"]);
}

#[test]
fn what_is_not_there_is_said_with_its_place() {
    let Some(served) = Served::new() else { return };
    let repository = served.repository("r", &[("f", "1")]);
    let project = Project::new();
    let url = served.url("r");
    fails(&project, &format!("ADD {url}#nope /d"), 1, &["no ref `nope`"]);
    fails(&project, &format!("ADD {url}#{} /d", repository.head().chars().take(10).collect::<String>()), 1, &["all of its 40 digits"]);
    fails(&project, &format!("ADD {url}#:nope /d"), 1, &["no directory `nope`"]);
    fails(&project, &format!("ADD {url}#:f /d"), 1, &["not a directory"]);
    fails(&project, &format!("ADD git://127.0.0.1:{}/r /d", free_port()), 5, &["cannot be fetched"]);
}

#[test]
fn submodules_are_fetched_with_their_own_unless_they_are_not_wanted() {
    let Some(served) = Served::new() else { return };
    let inner = served.repository("inner", &[("i", "")]);
    let middle = served.repository("middle", &[("m/x", "")]);
    middle.link("deep", &inner.head(), &format!("[submodule \"a\"]\n\tpath = deep\n\turl = {}\n", served.url("inner")));
    let outer = served.repository("outer", &[("o", "")]);
    outer.link("d/mid", &middle.head(), "[submodule \"b\"]\n\tpath = d/mid\n\turl = ../middle\n");
    // The commit of a submodule has a newer one above it, and the server gives only what has a name.
    let _newer = inner.commit(&[("newer", "")]);
    let project = Project::new();
    let url = served.url("outer");
    let all = [".gitmodules", "d", "d/mid", "d/mid/.gitmodules", "d/mid/deep", "d/mid/deep/i", "d/mid/m", "d/mid/m/x", "o"];
    assert_eq!(names(&of(&project, &format!("ADD {url} /\n"))), all);
    assert_eq!(names(&of(&project, &format!("ADD {url}#:d/mid/m /\n"))), ["x"]);
    assert_eq!(names(&of(&project, &format!("ADD {url}?submodules=false /\n"))), [".gitmodules", "d", "d/mid", "o"]);
    let kept = names(&of(&project, &format!("ADD --keep-git-dir {url} /\n")));
    assert!(kept.contains(&".git/HEAD".to_owned()) && kept.contains(&"d/mid/deep/.git/HEAD".to_owned()));
    let accident = served.repository("accident", &[]);
    accident.link("x", &inner.head(), "");
    fails(&project, &format!("ADD {} /", served.url("accident")), 1, &["no URL for the submodule `x`", "?submodules=false"]);
}

#[test]
fn files_have_the_time_of_the_commit_if_that_is_asked_for() {
    let Some(served) = Served::new() else { return };
    let _repository = served.repository("r", &[("d/f", "1")]);
    let project = Project::new();
    let image = of(&project, &format!("ADD {}?mtime=commit /x\nADD {} /y\n", served.url("r"), served.url("r")));
    let tree = image.tree();
    assert_eq!((tree["x/d/f"].mtime, tree["x/d"].mtime), (1_234_567_890, 1_234_567_890));
    assert!(tree["y/d/f"].mtime > 1_234_567_890);
}

/// A server without git: only files.
fn files(root: PathBuf) -> Web {
    Web::serving(move |asked| {
        let path = asked.path.split('?').next().unwrap_or_default();
        match fs::read(root.join(path.trim_start_matches('/'))) {
            Ok(bytes) => answer("200 OK", &[], &bytes),
            Err(_) => answer("404 Not Found", &[], b""),
        }
    })
}

#[test]
fn a_repository_is_fetched_over_plain_http_with_the_users_token() {
    let Some(served) = Served::new() else { return };
    let repository = served.repository("r", &[("f", "1")]);
    let _cloned = git_in(served.dir.path(), &["clone", "-q", "--bare", "r", "web.git"]);
    let _served = git_in(&served.path("web.git"), &["update-server-info"]);
    let web = files(served.dir.path().to_owned());
    let project = Project::new();
    let secret = project.file("../token", "hunter2\n");
    let flag = format!("id=GIT_AUTH_TOKEN,src={}", secret.display());
    let url = web.url("/web.git");
    let _written = project.dockerfile(&format!("FROM scratch\nADD --keep-git-dir {url}#{} /d\nADD {url} /e\n", repository.head()));
    let ran = project.build(&["--secret", &flag]).good();
    let asked = web.asked();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.header("authorization") == Some("basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMg==")));
    assert!(!ran.all().contains("hunter2"));
    for entry in walkdir::WalkDir::new(project.store()).into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
        let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
        assert!(!text.contains("hunter2") && !text.contains("eC1hY2Nlc3M"), "{}", entry.path().display());
    }
    // A password of the URL is told to the server only.
    let with = format!("http://me:hunter3@127.0.0.1:{}/none.git", web.port);
    let _written = project.dockerfile(&format!("FROM scratch\nARG PW\nADD {with} /d\n"));
    let failed = project.build(&[]).ends_with(1);
    let words: String = failed.stderr.lines().filter(|line| !line.contains("ADD ")).collect();
    assert!(!words.contains("hunter3"), "{}", failed.stderr);
}

#[test]
fn a_machine_without_git_is_told_which_package_it_lacks() {
    let mut project = Project::new();
    project.variable("PATH", "/nonexistent");
    fails(&project, "ADD git://127.0.0.1/r /d", 4, &["the program `git` is not installed", "install the package `git`"]);
}

#[test]
fn a_repository_is_fetched_over_ssh_from_a_known_host_with_the_agent_of_the_build() {
    let Some(served) = Served::new() else { return };
    let project = Project::new();
    let Some(sshd) = Sshd::start(&project.path("sshd")) else { return };
    let repository = served.repository("r", &[("f", "1")]);
    let user = output_of(Command::new("id").arg("-un")).good().out();
    let line = format!("ADD ssh://{}@127.0.0.1:{}{} /d", user.trim(), sshd.port, repository.path.display());
    let _written = project.dockerfile(&format!("FROM scratch\n{line}\n"));
    let flag = format!("default={}", sshd.keys[0].display());
    let _stranger = project.build(&["--ssh", &flag]).ends_with(5).says(&["the host's key is not known", "ssh-keyscan"]);
    fs::create_dir(project.path("home/.ssh")).unwrap();
    fs::write(project.path("home/.ssh/known_hosts"), &sshd.known).unwrap();
    assert_eq!(names(&project.image(&["--ssh", &flag])), ["d", "d/f"]);
    let _nobody = project.build(&[]).ends_with(5).says(&["refuses access", "ssh-add"]);
}
