//! Contexts that are fetched: archives and Dockerfiles of a server, repositories; as the build context and by a name.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::{DOCKERFILE, EPOCH, Entry, THEN, archive, created, dir, few_files, file, image, link, nothing_left, packed};
use crate::harness::{GitDaemon, Image, Project, Ran, Shelf, need};

/// When repositories of these tests were committed.
const COMMITTED: u64 = 1_500_000_000;

/// `THEN` + 86400, as a server says it and as an image says it.
const DAY_AFTER: (&str, &str) = ("Mon, 14 Sep 2020 12:26:40 GMT", "2020-09-14T12:26:40Z");

/// Builds a context that is fetched.
fn fetch(project: &Project, args: &[&str], context: &str) -> Ran {
    project.run([&["build", "--progress", "plain"], args, &[context]].concat())
}

fn fetched(project: &Project, args: &[&str], context: &str) -> Image {
    let _none = fs::remove_dir_all(project.path("out"));
    let _built = fetch(project, &[&["-o", "type=oci,tar=false,dest=out"], args].concat(), context).good();
    nothing_left(project);
    Image::of_layout(&project.path("out"))
}

/// A daemon with these files committed in `repo`.
fn repository(project: &Project, entries: &[Entry], time: u64) -> Option<GitDaemon> {
    let _git = need("git")?;
    let root = project.path("repositories");
    fs::create_dir(&root).unwrap();
    let daemon = GitDaemon::start(&root);
    lay(&daemon.files("repo"), entries);
    let _commit = daemon.commit("repo", time);
    Some(daemon)
}

fn lay(top: &Path, entries: &[Entry]) {
    for each in entries {
        let path = top.join(std::str::from_utf8(&each.name).unwrap());
        match each.kind {
            tar::EntryType::Directory => fs::create_dir_all(&path).unwrap(),
            tar::EntryType::Symlink => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                symlink(&each.link, &path).unwrap();
            }
            _ => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, &each.body).unwrap();
            }
        }
    }
}

#[test]
fn a_directory_an_archive_of_a_server_and_a_repository_make_the_same_image() {
    let project = Project::new();
    let entries = few_files(&project);
    let of_directory = project.image(&EPOCH);
    let web = Shelf::new();
    for (name, bytes) in packed(&archive(&entries)) {
        let url = web.put("/context", &[("Content-Type", "application/x-tar")], &bytes);
        assert_eq!(fetched(&Project::new(), &EPOCH, &url).digest, of_directory.digest, "{name}");
        assert_eq!(fetch(&project, &EPOCH, &url).good().stderr.matches("CACHED").count(), 2, "{name}");
    }
    let Some(git) = repository(&project, &entries, THEN) else { return };
    // With an epoch the files of a commit are as old as the commit.
    assert_eq!(fetched(&Project::new(), &EPOCH, &git.url("repo")).digest, of_directory.digest);
    assert_eq!(fetched(&project, &EPOCH, &git.url("repo#main")).digest, of_directory.digest, "from the cache");
}

#[test]
fn a_url_that_has_no_archive_has_a_dockerfile() {
    let project = Project::new();
    let web = Shelf::new();
    let url = web.put("/some/File", &[], b"FROM scratch\nLABEL from=server\nCOPY . /\n");
    let image = fetched(&project, &[], &url);
    assert_eq!(image.config["config"]["Labels"]["from"], "server");
    assert_eq!(image.paths(0), ["context"], "it is alone in its context");
    let _other = fetch(&project, &["-f", "Other"], &url).ends_with(1).says(&["`-f Other` names another one"]);
    // A Dockerfile of the user's own with the server's file as its context.
    project.dockerfile("FROM scratch\nCOPY context /here\n");
    let own = project.context().join("Dockerfile");
    assert_eq!(fetched(&project, &["-f", own.to_str().unwrap()], &url).paths(0), ["here"]);
    let _missing = fetch(&project, &[], &web.url("/nothing")).ends_with(1).says(&["404", "/nothing"]);
    let _broken = fetch(&project, &[], &web.put("/broken", &[], b"\x1f\x8b\x08 no gzip")).ends_with(1).says(&["cannot be a build context"]);
}

#[test]
fn a_far_archive_can_do_no_more_than_one_on_standard_input() {
    let project = Project::new();
    let secret = project.path("secret");
    fs::write(&secret, "of the host").unwrap();
    let secret = secret.to_str().unwrap();
    let web = Shelf::new();
    for (entries, why) in [
        (vec![file("Dockerfile", DOCKERFILE), file("../../../../../../tmp/x", "x")], "leads outside"),
        (vec![link("Dockerfile", secret)], "no Dockerfile"),
    ] {
        let url = web.put("/context.tar", &[], &archive(&entries));
        let ran = fetch(&project, &[], &url).ends_with(1).says(&[why]);
        assert!(!ran.all().contains("of the host"));
        nothing_left(&project);
    }
    let ignore = archive(&[file("Dockerfile", "FROM scratch\nCOPY . /\n"), link(".dockerignore", secret)]);
    assert!(fetched(&project, &[], &web.put("/context.tar", &[], &ignore)).tree().contains_key(".dockerignore"));
}

#[test]
fn a_repository_is_a_context_at_a_reference_and_below_a_directory() {
    let project = Project::new();
    let text = |which: &str| format!("FROM scratch\nLABEL which={which}\nCOPY . /\n");
    let entries =
        [file("Dockerfile", &text("top")), file("sub/Dockerfile", &text("sub")), file("sub/x", "1"), file("sub/Other", &text("other"))];
    let Some(git) = repository(&project, &entries, COMMITTED) else { return };
    let _tag = git.git("repo", COMMITTED, &["tag", "v1"]);
    fs::write(git.files("repo").join("sub/x"), "twice").unwrap();
    let _second = git.commit("repo", COMMITTED + 1);
    let which = |args: &[&str], address: &str| {
        let image = fetched(&project, args, &git.url(address));
        let label = image.config["config"]["Labels"]["which"].as_str().unwrap().to_owned();
        (label, image.tree().keys().cloned().collect::<Vec<_>>())
    };
    let sub = ["Dockerfile", "Other", "x"].map(str::to_owned).to_vec();
    assert_eq!(which(&[], "repo").0, "top");
    assert_eq!(which(&[], "repo#:sub"), ("sub".to_owned(), sub.clone()));
    assert_eq!(which(&["-f", "Other"], "repo#main:sub"), ("other".to_owned(), sub));
    assert_eq!(which(&["-f", "sub/Other"], "repo?ref=main").0, "other");
    let size = |address: &str| fetched(&project, &[], &git.url(address)).tree()["x"].clone().kind;
    assert_ne!(size("repo#v1:sub"), size("repo#main:sub"));
    let _gone = fetch(&project, &[], &git.url("repo#no-such-branch")).says(&["no-such-branch"]);
    let _nowhere = fetch(&project, &[], &git.url("repo#main:nowhere")).says(&["nowhere"]);
    assert!(!which(&[], "repo").1.iter().any(|path| path.starts_with(".git")));
    let kept = which(&["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"], "repo").1;
    assert!(kept.contains(&".git/HEAD".to_owned()), "{kept:?}");
}

#[test]
fn a_repository_reaches_nothing_outside_of_itself() {
    let project = Project::new();
    let secret = project.path("secret");
    fs::write(&secret, "of the host").unwrap();
    let secret = secret.to_str().unwrap().to_owned();
    let up = format!("../../../../../../../..{secret}");
    // moby GHSA-vp35-85q5-9f25; BuildKit's subdirectories that are links; buildah GHSA-49p4-px3h-rq49.
    let entries = [
        link("a/Dockerfile", &secret),
        link("b/Dockerfile", &up),
        link("c", project.path("").to_str().unwrap()),
        link("d/Dockerfile", "/proc/self/environ"),
        file("e/Dockerfile", "FROM scratch\nCOPY . /\nCOPY escape/secret /\n"),
        link("e/escape", project.path("").to_str().unwrap()),
        file("f/Dockerfile", "FROM scratch\nCOPY . /\n"),
        link("f/.dockerignore", &secret),
        link("f/Dockerfile.dockerignore", &secret),
        link("g/Dockerfile", "../f/Dockerfile"),
    ];
    let Some(git) = repository(&project, &entries, COMMITTED) else { return };
    for (address, args) in [
        ("repo#:a", vec![]),
        ("repo#:b", vec![]),
        ("repo#:c", vec!["-f", "secret"]),
        ("repo#:c/../a", vec![]),
        ("repo#:..", vec!["-f", "secret"]),
        ("repo#:d", vec![]),
        ("repo#:e", vec![]),
        // Its target is in the repository, and not in the context.
        ("repo#:g", vec![]),
        ("repo", vec!["-f", "c/secret"]),
        ("repo", vec!["-f", "../secret"]),
    ] {
        let ran = fetch(&project, &args, &git.url(address));
        assert_ne!(ran.code, Some(0), "{address} {args:?}");
        assert!(!ran.all().contains("of the host") && !ran.all().contains("PATH="), "{address}: {}", ran.all());
        nothing_left(&project);
    }
    let ignored = fetched(&project, &[], &git.url("repo#:f"));
    assert_eq!(ignored.tree().keys().collect::<Vec<_>>(), [".dockerignore", "Dockerfile", "Dockerfile.dockerignore"]);
}

#[test]
fn named_contexts_are_archives_repositories_and_directories_with_ignore_files_of_their_own() {
    let project = Project::with_busybox();
    project.dockerfile(
        "FROM busybox AS git\nRUN false\nFROM busybox\nCOPY --from=tarball /dir/one /one\nCOPY --from=git /sub/x /x\n\
         COPY --from=near . /near/\nRUN --mount=from=tarball,target=/mnt cat /mnt/dir/deep/two && test ! -e /near/ignored && test -e /near/kept\n",
    );
    fs::create_dir(project.path("near")).unwrap();
    for (name, text) in [(".dockerignore", "ignored\n"), ("ignored", ""), ("kept", "")] {
        fs::write(project.path("near").join(name), text).unwrap();
    }
    let web = Shelf::new();
    let entries = [dir("dir/"), file("dir/one", "1"), dir("dir/deep/"), file("dir/deep/two", "twenty-two")];
    let tarball = format!("tarball={}", web.put("/t.tar", &[], &archive(&entries)));
    let Some(git) = repository(&project, &[file("sub/x", "of git"), file("Dockerfile", "FROM scratch\n")], COMMITTED) else { return };
    let (repo, near) = (format!("git={}", git.url("repo#main")), format!("near={}", project.path("near").display()));
    let dead = "unused=http://127.0.0.1:1/never-asked-for.tar";
    let args = ["--build-context", &tarball, "--build-context", &repo, "--build-context", &near, "--build-context", dead];
    let ran = project.build(&args).good().says(&["twenty-two"]);
    assert!(!ran.stderr.contains("never-asked-for"), "{}", ran.stderr);
    assert_eq!(web.asked(), ["/t.tar"], "each is fetched once");
    nothing_left(&project);
    // FROM a context is FROM scratch and all its files.
    project.dockerfile("FROM tarball\nCOPY --from=tarball dir/one /again\n");
    let of_context = project.image(&["--build-context", &tarball]).tree();
    assert_eq!(of_context.keys().collect::<Vec<_>>(), ["again", "dir", "dir/deep", "dir/deep/two", "dir/one"]);
    assert!(of_context.values().all(|node| (node.uid, node.gid) == (0, 0)));
    // What cannot be fetched is told where it is needed.
    project.dockerfile("FROM scratch\nCOPY --from=gone /x /\n");
    let gone = format!("gone={}", web.url("/gone.tar"));
    let _failed = project.build(&["--build-context", &gone]).ends_with(1).says(&["Dockerfile:2", "404"]);
}

#[test]
fn an_epoch_is_the_time_of_what_it_names() {
    let project = Project::new();
    let web = Shelf::new();
    let entries = few_files(&project);
    let bytes = archive(&entries);
    let then = "2020-09-13T12:26:40Z";
    let silent = web.put("/silent.tar", &[], &bytes);
    let dated = web.put("/dated.tar", &[("Last-Modified", DAY_AFTER.0)], &bytes);
    let alone = web.put("/Dockerfile", &[("Last-Modified", DAY_AFTER.0)], b"FROM scratch\nLABEL a=b\n");
    let context = ["--build-arg", "SOURCE_DATE_EPOCH=context"];
    assert_eq!(created(&fetched(&project, &context, &silent)), then, "its newest file");
    assert_eq!(created(&fetched(&project, &context, &dated)), DAY_AFTER.1, "what the server says");
    assert_eq!(created(&fetched(&project, &context, &alone)), DAY_AFTER.1);
    let of = |name: &str, args: &[&str]| {
        created(&project.image(&[&["--build-arg", &format!("SOURCE_DATE_EPOCH={name}")], args].concat())).to_owned()
    };
    let named = format!("src={dated}");
    assert_eq!(of("src", &["--build-context", &named]), DAY_AFTER.1, "a named context");
    project.dockerfile(&format!(
        "FROM scratch AS Quiet\nADD {silent} /\nFROM scratch AS loud\nARG WHAT=dated.tar\nADD http://{}/$WHAT /\nFROM scratch\nCOPY dir/one /\n",
        web.host()
    ));
    assert_eq!((of("quiet", &[]).as_str(), of("loud", &[]).as_str()), (then, DAY_AFTER.1), "a stage that is one ADD");
    let Some(git) = repository(&project, &entries, COMMITTED) else { return };
    let committed = "2017-07-14T02:40:00Z";
    let of_commit = fetched(&project, &context, &git.url("repo"));
    assert_eq!(created(&of_commit), committed);
    let named = format!("src={}", git.url("repo"));
    assert_eq!(of("src", &["--build-context", &named]), committed);
    project.dockerfile(&format!("FROM scratch AS loud\nADD {} /\nFROM scratch\nCOPY dir/one /\n", git.url("repo?ref=main")));
    assert_eq!(of("loud", &[]), committed);
}

#[test]
fn an_address_that_is_none_and_one_with_a_password_are_told_without_it() {
    let project = Project::new();
    project.dockerfile("FROM scratch\n");
    let web = Shelf::new();
    let with_password = format!("http://user:pass-word@{}/no.tar?token=to-ken", web.host());
    let git = format!("http://user:pass-word@{}/no.git", web.host());
    let ssh = "ssh://user:pass-word@127.0.0.1:1/no".to_owned();
    for context in [&with_password, &git, &ssh, &"ftp://user:pass-word@h/x".to_owned()] {
        let mut all = vec![fetch(&project, &[], context)];
        project.dockerfile("FROM far\n");
        all.push(project.build(&["--build-context", &format!("far={context}")]));
        project.dockerfile("FROM scratch\n");
        for ran in all {
            assert!(matches!(ran.code, Some(1 | 2 | 5)), "{context}: {:?} {}", ran.code, ran.stderr);
            assert!(!ran.all().contains("pass-word") && !ran.all().contains("to-ken"), "{context}: {}", ran.all());
        }
    }
    let _query = fetch(&project, &[], &format!("{git}?nonsense=1")).ends_with(2).says(&["nonsense"]);
    let _scheme = fetch(&project, &[], "ftp://h/x").ends_with(2).says(&["`ftp://`", "https URL"]);
    let _helper = fetch(&project, &[], "ext::sh -c id").ends_with(1).says(&["ext::sh"]);
    let _file = fetch(&project, &["-f", "https://h/Dockerfile"], "ctx").ends_with(2).says(&["`-f` names a file", "curl"]);
    // A directory of that name is a directory.
    fs::create_dir_all(project.path("github.com/owner/name")).unwrap();
    fs::write(project.path("github.com/owner/name/Dockerfile"), "FROM scratch\nLABEL a=b\n").unwrap();
    let _local = fetch(&project, &[], "github.com/owner/name").good();
    assert_eq!(image(&project, &[], &archive(&[file("Dockerfile", "FROM scratch\n")])).layers.len(), 0);
}
