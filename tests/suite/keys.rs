//! What never enters a key: one of it alone is another, in another store below another path, and the keys are the same.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use serde_json::Value;

use crate::harness::{Project, Shelf, am_root, need, need_user, output_of};

/// One step in each stage, so that no key holds a layer that another step made, which has times.
const STAGES: &str = "FROM busybox AS run\n\
    RUN --mount=type=cache,id=one,target=/c --mount=type=secret,id=s,target=/s --mount=type=ssh echo x > /x\n\
    FROM busybox AS copy\nCOPY src /src\n\
    FROM busybox AS bind\nRUN --mount=type=bind,source=src,target=/b cat /b/a > /a\n\
    FROM busybox AS workdir\nWORKDIR /w/x\n";

const END: &str = "FROM scratch\nCOPY --from=run /x /1\nCOPY --from=copy /src /2\nCOPY --from=bind /a /3\nCOPY --from=workdir /w /4\n";

fn project() -> Project {
    filled(Project::with_busybox())
}

fn filled(project: Project) -> Project {
    for name in ["src/a", "src/b", "src/d/c"] {
        let path = project.file(name, name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    for name in ["src", "src/d"] {
        fs::set_permissions(project.context().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let _secret = project.file("../secret", "one");
    project.dockerfile(&format!("{STAGES}{END}"));
    project
}

/// The keys of the first stages' steps, by their instruction's place.
fn keys_of(project: &Project) -> Vec<String> {
    let metadata: Value = serde_json::from_slice(&fs::read(project.path("metadata")).unwrap()).unwrap();
    let steps = metadata["lapstrake.steps"].as_array().unwrap();
    let own = steps.iter().filter(|step| !step["stage"].as_str().unwrap().starts_with("stage-"));
    own.map(|step| format!("{} {}", step["stage"].as_str().unwrap(), step["key"].as_str().unwrap())).collect()
}

fn keys(project: &Project, args: &[&str]) -> Vec<String> {
    let secret = format!("id=s,src={}", project.path("secret").display());
    let _ran = project.build(&[&["--metadata-file", "metadata", "--secret", &secret], args].concat()).good();
    keys_of(project)
}

#[test]
fn what_is_not_in_a_key_changes_none() {
    let before = keys(&project(), &[]);
    assert_eq!(before.len(), 4, "{before:?}");
    let mut rows: Vec<&str> = vec!["the path of context and store"];
    let mut same = |name: &'static str, project: &Project, args: &[&str]| {
        assert_eq!(keys(project, args), before, "{name}");
        rows.push(name);
    };
    same("nothing", &project(), &[]);
    let touched = project();
    fs::File::options().write(true).open(touched.context().join("src/a")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    same("modification times", &touched, &[]);
    let turned = Project::with_busybox();
    for name in ["src/d/c", "src/b", "src/a"] {
        let _path = turned.file(name, name);
    }
    same("the order of readdir", &filled(turned), &[]);
    let closed = project();
    fs::set_permissions(closed.context().join("src"), fs::Permissions::from_mode(0o700)).unwrap();
    same("a copied directory's own mode", &closed, &[]);
    let secret = project();
    let _other = secret.file("../secret", "another");
    same("contents of secrets", &secret, &[]);
    let cache = project();
    cache.dockerfile(&format!("{}{END}", STAGES.replace("id=one", "id=two,sharing=locked")));
    same("ids and sharing of caches", &cache, &[]);
    let moved = project();
    fs::create_dir(moved.context().join("above")).unwrap();
    fs::rename(moved.context().join("src"), moved.context().join("above/src")).unwrap();
    moved.dockerfile(&format!("{}{END}", STAGES.replace("COPY src", "COPY above/src").replace("source=src", "source=above/src")));
    same("directories above a source", &moved, &[]);
    for (name, args) in [
        ("proxy variables", ["--build-arg", "http_proxy=http://127.0.0.1:1"].as_slice()),
        ("--add-host", &["--add-host", "name:127.0.0.1"]),
        ("--step-timeout", &["--step-timeout", "1h"]),
        ("--step-disk", &["--step-disk", "1g"]),
        ("--label", &["--label", "a=b"]),
        ("--max-steps, --jobs", &["--max-steps", "1"]),
        ("--snapshots", &["--snapshots", "copy"]),
    ] {
        same(name, &project(), args);
    }
    for (name, args) in [("--memory", ["--memory", "1g"]), ("--resource", ["--resource", "cpu-shares=512"])] {
        // They need control groups, which a machine may not give.
        let project = project();
        if project.build(&args).code == Some(0) {
            same(name, &project, &args);
        }
    }
    assert!(rows.len() > 13, "{rows:?}");
}

#[test]
fn umask_and_user_are_in_no_key() {
    let project_one = project();
    let before = keys(&project_one, &[]);
    let closed = project();
    let line = format!("umask 077; exec \"{}\" build --secret id=s,src=secret --metadata-file metadata ctx", closed.program().display());
    let mut command = Command::new("sh");
    command.args(["-c", &line]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir(closed.path("."));
    command.env("HOME", closed.path("home")).env("TMPDIR", closed.path("tmp")).env("LAPSTRAKE_ROOT", closed.store());
    let _ran = output_of(&mut command).good();
    assert_eq!(keys_of(&closed), before);
    if !am_root() {
        return;
    }
    let Some(id) = need_user("lapstrake-test") else { return };
    let user = Project::as_user("lapstrake-test", id);
    user.load_busybox();
    let user = filled(user);
    fs::set_permissions(user.path("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(keys(&user, &[]), before);
}

#[test]
fn ssh_keys_are_in_no_key() {
    let Some(keygen) = need("ssh-keygen") else { return };
    let of = |kind: &str| {
        let project = project();
        let key = project.path("key");
        let _made = output_of(Command::new(&keygen).args(["-q", "-N", "", "-t", kind, "-f"]).arg(&key)).good();
        keys(&project, &["--ssh", &format!("default={}", key.display())])
    };
    assert_eq!(of("ed25519"), of("ecdsa"));
}

#[test]
fn an_url_is_in_no_key_but_what_it_gives_is() {
    let shelf = Shelf::new();
    let (one, other) = (shelf.put("/a/file", &[], b"1"), shelf.put("/b/file", &[], b"1"));
    let changed = shelf.put("/c/file", &[], b"2");
    let of = |url: &str| {
        let project = Project::with_busybox();
        project.dockerfile(&format!("FROM busybox AS a\nADD {url} /f\n"));
        let _ran = project.build(&["--metadata-file", "metadata"]).good();
        keys_of(&project)
    };
    assert_eq!(of(&one), of(&other));
    assert_ne!(of(&one), of(&changed));
}

/// As in BuildKit: what is linked lies beside what is below, not on it.
#[test]
fn a_copy_with_link_is_cached_whatever_is_below_it() {
    let project = Project::with_busybox();
    let _file = project.file("f", "1");
    let of = |above: &str, flags: &str| {
        format!("FROM busybox\nRUN {above}\nCOPY --link {flags} f /etc/deep/f\nRUN stat -c %n:%u /etc/deep/f /etc/passwd > /seen\n")
    };
    for (flags, hits) in [("", true), ("--chown=7:8", true), ("--chown=www-data", false), ("--chmod=600", false)] {
        let _first = project.dockerfile(&of(&format!("echo 1 > /1 # {flags}"), flags)).build(&[]).good();
        let second = project.dockerfile(&of(&format!("echo 2 > /2 # {flags}"), flags)).build(&[]).good();
        assert_eq!(second.stderr.contains("CACHED"), hits, "{flags}\n{}", second.stderr);
        let tree = project.image(&[]).tree();
        assert!(["2", "etc/passwd", "etc/deep/f", "seen"].iter().all(|path| tree.contains_key(*path)), "{:?}", tree.keys());
    }
}

/// Else the order of layers would matter: a layer that is taken from the cache is what it would be here.
#[test]
fn a_copy_with_link_makes_the_same_layer_over_any_base() {
    let of = |base: &str| {
        let project = Project::with_busybox();
        let file = project.file("f", "1");
        fs::File::options().write(true).open(file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        project.dockerfile(&format!("FROM {base}\nCOPY --link f /etc/\n"));
        let image = project.image(&["--source-date-epoch", "1"]);
        image.layers.last().unwrap().digest.clone()
    };
    assert_eq!(of("busybox"), of("scratch"));
}

#[test]
fn a_rebuilt_stage_with_the_same_files_hits_below() {
    let project = Project::with_busybox();
    let of = |word: &str| {
        format!(
            "FROM busybox AS a\nRUN echo {word} > /dev/null; echo same > /f\n\
             FROM busybox\nCOPY --from=a /f /f\nRUN --mount=type=bind,from=a,source=/f,target=/g cat /g > /h\n"
        )
    };
    let _first = project.dockerfile(&of("one")).build(&[]).good();
    let ran = project.dockerfile(&of("two")).build(&[]).good();
    assert_eq!(ran.stderr.matches("CACHED").count(), 2, "{}", ran.stderr);
}
