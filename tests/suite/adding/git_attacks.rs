//! What a hostile address or repository tries when git is called: each leaves nothing outside, and most are refused with
//! their place. The number of the hole that it was somewhere stands with each.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use super::git::Served;
use crate::harness::{Project, free_port, need, wait_until};

/// Where an attack would leave its mark.
struct Target {
    project: Project,
    mark: String,
}

impl Target {
    fn new() -> Self {
        let project = Project::new();
        let mark = project.path("mark").display().to_string();
        Self { project, mark }
    }

    /// The build fails at its line and leaves no mark.
    fn refuses(&self, source: &str, says: &[&str]) {
        let _written = self.project.dockerfile(&format!("FROM scratch\nADD [\"{source}\", \"/d/\"]\n"));
        let ran = self.project.build(&[]);
        assert!(matches!(ran.code, Some(1 | 5)), "{source}: {:?}\n{}", ran.code, ran.stderr);
        let _said = ran.says(says).says(&["Dockerfile:2"]);
        assert!(!Path::new(&self.mark).exists(), "{source} left its mark");
    }
}

/// CVE-2019-13139 (moby): a ref, and CVE-2017-1000117 (git): a host, that is an option.
#[test]
fn no_part_of_an_address_is_an_option() {
    let Some(served) = Served::new() else { return };
    let _repository = served.repository("r", &[("f", "")]);
    let target = Target::new();
    let url = served.url("r");
    let touch = format!("--upload-pack=touch${{IFS}}{}", target.mark);
    for source in [format!("{url}#{touch}"), format!("{url}?ref={touch}"), format!("{url}#-x"), format!("{url}?branch=--x")] {
        target.refuses(&source.replace('$', "\\\\$"), &["no name of a ref"]);
    }
    for source in ["ssh://-oProxyCommand=touch/r", "ssh://-x@h/r", "git@-x:r", "-u@h.org:r", "ssh://h/-r", "git@h.org:-r"] {
        target.refuses(source, &["begins with `-`"]);
    }
    target.refuses("git@h.org:", &["names no repository"]);
}

/// `ext::` and `fd::` run programs; `file://` reads this machine: none of them is an address.
#[test]
fn no_other_protocol_is_an_address() {
    let target = Target::new();
    for source in [format!("ext::sh -c touch% {}", target.mark), "fd::17".to_owned(), "file:///etc/r.git".to_owned(), "/etc".to_owned()] {
        target.refuses(&source, &["not found"]);
    }
}

/// BuildKit 0.31.2: what the remote calls its default branch is an option.
#[test]
fn the_remotes_head_names_no_option() {
    let Some(served) = Served::new() else { return };
    let repository = served.repository("r", &[("f", "")]);
    let target = Target::new();
    let name = format!("--upload-pack=touch{}", target.mark.replace('/', "-"));
    let refs = repository.path.join(".git/refs/heads").join(&name);
    fs::write(refs, format!("{}\n", repository.head())).unwrap();
    fs::write(repository.path.join(".git/HEAD"), format!("ref: refs/heads/{name}\n")).unwrap();
    target.refuses(&served.url("r"), &["no name of a ref"]);
}

/// CVE-2026-33747 (BuildKit): the directory that is wanted leads out of the repository.
#[test]
fn a_subdirectory_does_not_lead_out() {
    let Some(served) = Served::new() else { return };
    let repository = served.repository("r", &[("d/f", "")]);
    symlink("/etc", repository.path.join("out")).unwrap();
    symlink("d", repository.path.join("in")).unwrap();
    let _linked = repository.commit(&[]);
    let target = Target::new();
    let url = served.url("r");
    for source in [format!("{url}#:../.."), format!("{url}#:d/../.."), format!("{url}?subdir=..%2f..%2fetc"), format!("{url}#:d/..")] {
        target.refuses(&source, &["has a `..` in it"]);
    }
    for source in [format!("{url}#:out"), format!("{url}#:in"), format!("{url}#:in/f"), format!("{url}?subdir=out/ssl")] {
        target.refuses(&source, &["is a symbolic link"]);
    }
}

/// CVE-2022-39253, CVE-2018-17456, CVE-2017-1000117: where a submodule comes from. CVE-2019-19604: how it is updated.
#[test]
fn a_submodule_comes_from_no_place_of_this_machine_and_runs_nothing() {
    let Some(served) = Served::new() else { return };
    let inner = served.repository("inner", &[("i", "")]);
    let target = Target::new();
    let local = served.path("inner").display().to_string();
    let ext = format!("ext::sh -c 'touch {}'", target.mark);
    let option = format!("--upload-pack=touch {}", target.mark);
    let urls = [format!("file://{local}"), local.clone(), ext, option, "-u@h:r".to_owned(), "ssh://-oProxyCommand=x/r".to_owned()];
    for (number, url) in urls.iter().enumerate() {
        let name = format!("outer-{number}");
        let outer = served.repository(&name, &[("o", "")]);
        outer.link("s", &inner.head(), &format!("[submodule \"s\"]\n\tpath = s\n\turl = \"{}\"\n", url.replace('"', "\\\"")));
        target.refuses(&served.url(&name), &[]);
    }
    let outer = served.repository("updating", &[("o", "")]);
    let settings = format!("[submodule \"s\"]\n\tpath = s\n\turl = {}\n\tupdate = \"!touch {}\"\n", served.url("inner"), target.mark);
    outer.link("s", &inner.head(), &settings);
    let _written = target.project.dockerfile(&format!("FROM scratch\nADD {} /\n", served.url("updating")));
    let ran = target.project.build(&[]);
    assert!(matches!(ran.code, Some(0 | 5)) && !Path::new(&target.mark).exists(), "{}", ran.stderr);
}

/// CVE-2018-11235: a submodule's name is a path. CVE-2024-32002: its path leads through a link into `.git`.
#[test]
fn a_submodule_is_written_to_its_own_place_only() {
    let Some(served) = Served::new() else { return };
    let inner = served.repository("inner", &[("hooks/post-checkout", "#!/bin/sh\n")]);
    let target = Target::new();
    let url = served.url("inner");
    let named = served.repository("named", &[("o", "")]);
    named.link("s", &inner.head(), &format!("[submodule \"../../../../mark\"]\n\tpath = s\n\turl = {url}\n"));
    let _written = target.project.dockerfile(&format!("FROM scratch\nADD {} /\n", served.url("named")));
    let ran = target.project.build(&[]);
    assert!(matches!(ran.code, Some(0 | 5)) && !Path::new(&target.mark).exists(), "{}", ran.stderr);
    // Two names that are one where letters have no case; here they are two, and the link is none of the submodule's way.
    let linked = served.repository("linked", &[("A/keep", "")]);
    symlink(".git", linked.path.join("a")).unwrap();
    let _link = linked.commit(&[]);
    let tree = linked.git(&["rev-parse", "HEAD^{tree}"]);
    linked.link("A/modules/x", &inner.head(), &format!("[submodule \"x/y\"]\n\tpath = A/modules/x\n\turl = {url}\n"));
    let _written = target.project.dockerfile(&format!("FROM scratch\nADD {} /\n", served.url("linked")));
    let _fine = target.project.build(&[]);
    assert!(!tree.is_empty() && !Path::new(&target.mark).exists());
}

/// A `.git` in a tree is a hook, a setting or a redirect (CVE-2014-9390, CVE-2015-7545 and after): no such tree is taken.
#[test]
fn a_tree_that_holds_a_git_dir_is_refused() {
    let Some(served) = Served::new() else { return };
    let target = Target::new();
    let git = need("git").unwrap();
    for (number, name) in [".git", ".GIT", "..", "git~1"].iter().enumerate() {
        let repository = served.repository(&format!("r{number}"), &[("f", "gitdir: /etc\n")]);
        let blob = repository.git(&["rev-parse", "HEAD:f"]);
        let entry = [format!("100644 {name}\0").into_bytes(), hex(&blob)].concat();
        let raw = repository.path.join("raw");
        fs::write(&raw, entry).unwrap();
        let tree = repository.git(&["hash-object", "-w", "-t", "tree", "--literally", "raw"]);
        let mut command = Command::new(&git);
        command.args(["commit-tree", "-m", "x", &tree]).current_dir(&repository.path).env("HOME", &repository.path);
        for (key, value) in [("NAME", "a"), ("EMAIL", "a@example.org")] {
            command.env(format!("GIT_AUTHOR_{key}"), value).env(format!("GIT_COMMITTER_{key}"), value);
        }
        let commit = String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned();
        let _moved = repository.git(&["update-ref", "refs/heads/bad", &commit]);
        target.refuses(&format!("{}#bad", served.url(&format!("r{number}"))), &[]);
    }
}

/// Filters and hooks are of the machine, not of the repository: what `.gitattributes` names is not run.
#[test]
fn attributes_of_a_repository_run_nothing() {
    let Some(served) = Served::new() else { return };
    let _repository = served.repository("r", &[(".gitattributes", "* filter=evil diff=evil merge=evil\n"), ("f", "x")]);
    let target = Target::new();
    let config = format!(
        "[filter \"evil\"]\n\tsmudge = touch {}\n[core]\n\thooksPath = {}\n\tfsmonitor = touch {}\n",
        target.mark, target.mark, target.mark
    );
    // Nor is what the user's own configuration says.
    fs::write(target.project.path("home/.gitconfig"), config).unwrap();
    let _written = target.project.dockerfile(&format!("FROM scratch\nADD --keep-git-dir {} /\n", served.url("r")));
    let _built = target.project.build(&[]).good();
    assert!(!Path::new(&target.mark).exists());
}

/// What lies in the store beside a repository's objects is not believed.
#[test]
fn settings_and_hooks_in_the_store_are_not_used() {
    let Some(served) = Served::new() else { return };
    let repository = served.repository("r", &[("f", "x")]);
    let target = Target::new();
    let _written = target.project.dockerfile(&format!("FROM scratch\nADD {} /\n", served.url("r")));
    let _built = target.project.build(&[]).good();
    let kept = fs::read_dir(target.project.store().join("git")).unwrap().next().unwrap().unwrap().path();
    let touch = format!("touch {}", target.mark);
    let config =
        format!("[core]\n\tfsmonitor = {touch}\n\tsshCommand = {touch}\n\tpager = {touch}\n[uploadpack]\n\tpackObjectsHook = {touch}\n");
    fs::write(kept.join("config"), config).unwrap();
    fs::create_dir_all(kept.join("hooks")).unwrap();
    for hook in ["post-checkout", "reference-transaction", "post-index-change"] {
        fs::write(kept.join("hooks").join(hook), format!("#!/bin/sh\n{touch}\n")).unwrap();
        fs::set_permissions(kept.join("hooks").join(hook), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let _newer = repository.commit(&[("g", "")]);
    let _again = target.project.build(&[]).good();
    assert!(!Path::new(&target.mark).exists());
}

/// A server that says nothing is left when the build is.
#[test]
fn a_silent_server_does_not_hold_the_build() {
    if need("git").is_none() {
        return;
    }
    let port = free_port();
    let silent = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let project = Project::new();
    let _written = project.dockerfile(&format!("FROM scratch\nADD git://127.0.0.1:{port}/r /\n"));
    let log = project.path("log");
    let child = project.command(["build", "--progress", "plain", "ctx"]).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let _first = silent.accept().unwrap();
    wait_until("a word", || fs::read_to_string(&log).unwrap().contains("fetching git://127.0.0.1").then_some(()));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let _ran = crate::harness::Ran::of_child("a build that is interrupted".to_owned(), child).ends_with(130);
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().map(|digit| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
