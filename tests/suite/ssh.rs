//! `--ssh` and `RUN --mount=type=ssh`: a step logs in with a key that it never sees.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::harness::{Project, SshAgent, Sshd, copy_programs, need, output_of, processes_with, wait_until};

/// A project whose steps have `ssh`, `ssh-add` and `git`.
fn with_programs() -> Option<Project> {
    let project = Project::with_busybox();
    copy_programs(&["git", "ssh", "ssh-add"], &project.context().join("programs"))?;
    Some(project)
}

/// A project with a client, a server, and a repository on it; the words that clone it.
fn with_repository() -> Option<(Project, Sshd, String)> {
    let (project, git) = (with_programs()?, need("git")?);
    let server = Sshd::start(&project.path("sshd"))?;
    let repository = project.path("repository");
    let run = |args: &[&str]| {
        let mut command = Command::new(&git);
        command.args(args).env("HOME", project.path("home")).env("GIT_CONFIG_NOSYSTEM", "1");
        drop(output_of(&mut command).good());
    };
    let at = repository.to_str().unwrap();
    run(&["init", "-q", at]);
    fs::write(repository.join("file"), "cloned\n").unwrap();
    run(&["-C", at, "add", "file"]);
    run(&["-C", at, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "one"]);
    let _known = project.file("known", &server.known);
    let user = output_of(Command::new("id").arg("-un")).good().out();
    let clone = format!("git clone -q ssh://{}@127.0.0.1:{}{at} /src", user.trim(), server.port);
    Some((project, server, clone))
}

fn cloning(clone: &str) -> String {
    format!(
        "FROM busybox AS build\nCOPY programs /\nCOPY known /etc/known\nRUN echo $RANDOM > /dev/null\nRUN --mount=type=ssh,required GIT_SSH_COMMAND='ssh -o BatchMode=yes -o UserKnownHostsFile=/etc/known' {clone}\nFROM busybox\nCOPY --from=build /src/file /file\n"
    )
}

#[test]
fn an_ssh_mount_clones_over_a_real_sshd_with_each_kind_of_key() {
    let Some((project, server, clone)) = with_repository() else { return };
    project.dockerfile(&cloning(&clone));
    for key in &server.keys {
        let image = project.image(&["--no-cache-filter", "build", "--ssh", &format!("default={}", key.display())]);
        let cloned = crate::harness::Kind::File { size: 7, sha256: crate::harness::sha256(b"cloned\n") };
        assert_eq!(image.tree()["file"].kind, cloned, "{}", key.display());
    }
    // Without the key the server refuses: it was the mount that did it.
    let other = project.path("other");
    let _made = output_of(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other)).good();
    let refused = project.build(&["--no-cache-filter", "build", "--ssh", &format!("default={}", other.display())]);
    let _refused = refused.ends_with(3).says(&["Permission denied"]);
}

#[test]
fn the_users_own_agent_signs_and_stays_as_it_is() {
    let Some((mut project, server, clone)) = with_repository() else { return };
    let Some(agent) = SshAgent::start(&project.path("sshd"), &server.keys) else { return };
    project.variable("SSH_AUTH_SOCK", agent.socket.to_str().unwrap());
    let refused = "RUN --mount=type=ssh ssh-add -l && ! ssh-add -D && ! ssh-add -x </dev/null && test $(ssh-add -l | wc -l) = 3\n";
    project.dockerfile(&cloning(&clone).replace("FROM busybox\nCOPY --from", &format!("{refused}FROM busybox\nCOPY --from")));
    let _built = project.build(&["--ssh", "default"]).good();
    assert_eq!(agent.count(), 3, "a step changed the user's agent");
}

#[test]
fn nothing_of_an_ssh_mount_stays() {
    let Some(project) = with_programs() else { return };
    let Some(key) = key(&project, "key") else { return };
    project.dockerfile(
        "FROM busybox\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && test $SSH_AUTH_SOCK = /run/buildkit/ssh_agent.0 && echo x > /only\n",
    );
    let spec = format!("default={}", key.display());
    let image = project.image(&["--ssh", &spec]);
    assert_eq!(image.paths(0), ["only"]);
    assert!(!image.config["config"]["Env"].to_string().contains("SSH_AUTH_SOCK"));
    // Neither the agent nor its keys are in the step's key.
    let again = project.build(&["--ssh", &spec]).good();
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    let Some(other) = key_of(&project, "rsa", "another") else { return };
    assert!(project.build(&["--ssh", &format!("default={}", other.display())]).good().stderr.contains("CACHED"));
    assert!(project.build(&[]).good().stderr.contains("CACHED"));
}

fn key(project: &Project, name: &str) -> Option<PathBuf> {
    key_of(project, "ed25519", name)
}

fn key_of(project: &Project, kind: &str, name: &str) -> Option<PathBuf> {
    let path = project.path(name);
    let _made = output_of(Command::new(need("ssh-keygen")?).args(["-q", "-t", kind, "-N", "", "-f"]).arg(&path)).good();
    Some(path)
}

#[test]
fn a_user_of_the_step_reaches_the_agent_if_the_mount_says_so() {
    let Some(project) = with_programs() else { return };
    let Some(key) = key(&project, "key") else { return };
    project.dockerfile(
        "FROM busybox\nCOPY programs /\nUSER www-data\nRUN --mount=type=ssh ls -ln $SSH_AUTH_SOCK | grep -q '^srw------- .* 0 *0 ' && ! ssh-add -l\nRUN --mount=type=ssh,uid=33,mode=0600,target=/run/mine --network=none test $SSH_AUTH_SOCK = /run/mine && ssh-add -l\nRUN --mount=type=ssh,id=other,mode=0666 --mount=type=ssh,mode=0666 ! SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0 ssh-add -l && SSH_AUTH_SOCK=/run/buildkit/ssh_agent.1 ssh-add -l\n",
    );
    let _built = project.build(&["--ssh", &format!("default={}", key.display())]).good();
}

#[test]
fn an_agent_that_is_not_given_is_absent_or_an_error_at_the_mount() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN --mount=type=ssh test ! -e /run/buildkit/ssh_agent.0\n");
    let _absent = project.build(&[]).good();
    project.dockerfile("FROM busybox\nRUN --mount=type=ssh,id=git,required true\n");
    let _required =
        project.build(&[]).ends_with(1).says(&["the ssh agent `git` is required and was not given", "Dockerfile:2:", "--ssh git"]);
    if let Some(key) = key(&project, "key") {
        let near = project.build(&["--ssh", &format!("gti={}", key.display())]);
        let _near = near.ends_with(1).says(&["the ssh agent `git` is required", "did you mean `gti`?"]);
    }
    let _nobody = project.build(&["--ssh", "git"]).ends_with(1).says(&["SSH_AUTH_SOCK is not set"]);
    let gone = project.path("gone");
    drop(UnixListener::bind(&gone).unwrap());
    let ran = project.build(&["--ssh", &format!("git={}", gone.display())]).ends_with(1);
    let _gone = ran.says(&["cannot reach the ssh agent", "Dockerfile:2:"]);
    let _missing = project.build(&["--ssh", "git=/nowhere"]).ends_with(1).says(&["cannot read `/nowhere`"]);
    let _twice = project.build(&["--ssh", "a=Dockerfile,", "--ssh", "a"]).ends_with(2);
    let _raw = project.build(&["--ssh", "a=x,raw=true"]).ends_with(1).says(&["passes on no socket"]);
}

#[test]
fn a_key_that_cannot_be_used_says_why_and_what_to_do() {
    let project = Project::new();
    let Some(keygen) = need("ssh-keygen") else { return };
    let make = |name: &str, args: &[&str]| {
        let path = project.path(name);
        let _made = output_of(Command::new(&keygen).arg("-q").args(args).arg("-f").arg(&path)).good();
        path
    };
    let says = |path: &Path, texts: &[&str]| {
        let _ran = project.build(&["--ssh", &format!("default={}", path.display())]).ends_with(1).says(texts);
    };
    let plain = make("plain", &["-t", "ed25519", "-N", ""]);
    says(&make("locked", &["-t", "ed25519", "-N", "passphrase"]), &["encrypted with a passphrase", "ssh-add"]);
    says(&make("pem", &["-t", "rsa", "-m", "PEM", "-N", ""]), &["not in OpenSSH's own form", "ssh-keygen -p -f"]);
    says(&plain.with_extension("pub"), &["it is the public key"]);
    fs::write(project.path("text"), "no key\n").unwrap();
    says(&project.path("text"), &["cannot be used"]);
}

/// While a step runs its socket is reachable inside only; when the build is killed, nowhere.
#[test]
fn a_killed_build_leaves_no_agent() {
    let Some(project) = with_programs() else { return };
    let Some(key) = key(&project, "key") else { return };
    project.dockerfile("FROM busybox\nCOPY programs /\nRUN --mount=type=ssh ssh-add -l && sleep 979\n");
    let spec = format!("default={}", key.display());
    let mut build = project.command(["build", "--ssh", &spec, "ctx"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the step to run", || (!processes_with("sleep\u{0}979").is_empty()).then_some(()));
    assert!(sockets(&project).is_empty(), "a socket has a name on disk");
    build.kill().unwrap();
    let _status = build.wait().unwrap();
    wait_until("the step to be dead", || processes_with("sleep\u{0}979").is_empty().then_some(()));
    wait_until("no socket to be left", || sockets(&project).is_empty().then_some(()));
    let listening = || fs::read_to_string("/proc/net/unix").unwrap();
    wait_until("nobody to listen in the project", || (!listening().contains(project.path("").to_str().unwrap())).then_some(()));
}

fn sockets(project: &Project) -> Vec<PathBuf> {
    use std::os::unix::fs::FileTypeExt as _;
    walkdir::WalkDir::new(project.path(""))
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_socket())
        .map(walkdir::DirEntry::into_path)
        .collect()
}
