//! What is in an image: the layers, the config, and every form of output.

use std::{collections::BTreeMap, fs, process::Command};

use serde_json::Value;

use crate::harness::{Image, Kind, Project, am_root, copy_program, differences, merged, output_of, processes_with, read_layer, wait_until};

const SMALL: &str = "FROM busybox\nENV GREETING=hello\nWORKDIR /srv\nCOPY --chown=33:33 --chmod=640 page.txt pages/\nRUN echo \"$GREETING\" > made && rm /etc/group && ln made also && ln -s made link\nUSER 33\nEXPOSE 80\nCMD [\"cat\", \"made\"]\n";

fn small() -> Project {
    let project = Project::with_busybox();
    project.dockerfile(SMALL);
    let _page = project.file("page.txt", "page\n");
    project
}

#[test]
fn an_image_holds_what_its_steps_made_and_its_config_what_they_said() {
    let image = small().image(&["-t", "small:1", "--label", "who=me"]);
    let mut paths = image.paths(0);
    paths.sort();
    assert_eq!(paths, ["-etc/group", "etc", "srv", "srv/also", "srv/link", "srv/made"]);
    let tree = image.tree();
    let page = &tree["srv/pages/page.txt"];
    assert_eq!((page.mode, page.uid, page.gid), (0o640, 33, 33));
    assert_eq!(tree["srv/link"].kind, Kind::Symlink(b"made".to_vec()));
    assert!(tree["srv/made"].link.is_some() || tree["srv/also"].link.is_some(), "two names of one inode");
    assert!(!tree.contains_key("etc/group") && tree.contains_key("etc/passwd"));
    let config = &image.config["config"];
    assert_eq!(config["WorkingDir"], "/srv");
    assert_eq!(config["User"], "33");
    assert_eq!(config["Cmd"], serde_json::json!(["cat", "made"]));
    assert_eq!(config["Labels"]["who"], "me");
    assert!(config["ExposedPorts"]["80/tcp"].is_object());
    assert!(config["Env"].as_array().unwrap().contains(&"GREETING=hello".into()));
    assert_eq!(image.config["os"], "linux");
}

/// Whoever reads the mounts of a step holds its mount namespace, and what is mounted in it, for as long as the file is open.
#[test]
fn nothing_of_the_sandbox_is_in_a_layer_though_somebody_looks_at_the_mounts_of_a_step() {
    for snapshots in ["overlay", "copy"] {
        let project = Project::with_busybox();
        let seconds = format!("1.{}", std::process::id());
        project.dockerfile(&format!("FROM busybox\nRUN echo {snapshots} > /x; sleep {seconds}\nRUN test ! -e /dev/x && echo y > /y\n"));
        let watched = std::thread::spawn(move || {
            let found = wait_until("the step to run", || processes_with(&format!("sleep\0{seconds}")).pop());
            let mounts = fs::File::open(format!("{found}/mountinfo")).unwrap();
            wait_until("the step to end", || (!std::path::Path::new(&found).exists()).then_some(()));
            std::thread::sleep(std::time::Duration::from_millis(300));
            drop(mounts);
        });
        let image = project.image(&["--snapshots", snapshots]);
        watched.join().unwrap();
        assert_eq!((image.paths(1), image.paths(0)), (vec!["x".to_owned()], vec!["y".to_owned()]), "{snapshots}");
    }
}

#[test]
fn nothing_of_the_sandbox_is_in_a_layer() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN cat /etc/resolv.conf /etc/hosts > /dev/null; ls /dev /proc /sys > /dev/null; echo x > /only\n");
    assert_eq!(project.image(&[]).paths(0), ["only"]);
}

#[test]
fn a_step_that_changes_nothing_has_an_empty_layer() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN true\n");
    let image = project.image(&[]);
    assert_eq!(image.layers.len(), 2);
    assert!(image.paths(0).is_empty());
}

#[test]
fn steps_that_make_the_same_layer_are_all_there() {
    let project = Project::with_busybox();
    project.dockerfile(
        "FROM busybox\nCOPY one /d/\nRUN echo 2 > /d/one\nCOPY one /d/\nRUN grep -qx 1 /d/one && rm /d/one\nCOPY one /d/\nRUN grep -qx 1 /d/one\n",
    );
    let _one = project.file("one", "1\n");
    let image = project.image(&[]);
    assert_eq!(image.layers.len(), 7);
    assert_eq!(image.tree()["d/one"].kind, Kind::File { size: 2, sha256: crate::harness::sha256(b"1\n") });
}

#[test]
fn a_directory_that_replaces_another_hides_what_was_in_it() {
    let project = Project::with_busybox();
    project.dockerfile(
        "FROM busybox\nRUN mkdir -p /d/old && echo 1 > /d/old/file && echo 1 > /d/file && ln -s /d /l\nRUN rm -rf /d && mkdir /d && echo 2 > /d/new && rm /l && mkdir /l && echo 3 > /l/x\n",
    );
    let tree = project.image(&[]).tree();
    let below: Vec<&String> = tree.keys().filter(|path| path.starts_with("d/") || path.starts_with("l/")).collect();
    assert_eq!(below, ["d/new", "l/x"]);
}

#[test]
fn owners_modes_and_capabilities_of_a_step_are_in_its_layer() {
    let project = Project::with_busybox();
    project.dockerfile(
        "FROM busybox\nRUN echo x > /f && chown 33:50 /f && chmod 6755 /f && mkdir -m 1777 /d && chown 65534 /d && mkfifo /p\n",
    );
    let tree = project.image(&[]).tree();
    let node = |path: &str| (tree[path].mode, tree[path].uid, tree[path].gid);
    assert_eq!(node("f"), (0o6755, 33, 50));
    assert_eq!(node("d"), (0o1777, 65534, 0));
    assert_eq!(tree["p"].kind, Kind::Other(b'6'));
}

#[test]
fn every_form_of_output_holds_the_same_image() {
    let project = small();
    let line = [
        "-t",
        "small:1",
        "-o",
        "type=oci,dest=image.tar",
        "-o",
        "type=oci,tar=false,dest=layout",
        "-o",
        "type=docker,dest=docker.tar",
        "-o",
        "type=tar,dest=root.tar",
        "-o",
        "type=local,dest=root",
        "--iidfile",
        "id",
        "--metadata-file",
        "meta.json",
    ];
    let _built = project.build(&line).good();
    let layout = Image::of_layout(&project.path("layout"));
    let tar = Image::of_layout_tar(&project.path("image.tar"));
    let docker = Image::of_docker_archive(&project.path("docker.tar"));
    assert_eq!((&layout.digest, layout.diff_ids()), (&tar.digest, tar.diff_ids()));
    assert_eq!(layout.diff_ids(), docker.diff_ids());
    assert_eq!(docker.manifest["RepoTags"][0], "small:1");
    assert_eq!(fs::read_to_string(project.path("id")).unwrap().trim(), layout.config_digest);
    let meta: Value = serde_json::from_slice(&fs::read(project.path("meta.json")).unwrap()).unwrap();
    assert_eq!(meta["containerimage.digest"], layout.digest.as_str());
    assert_eq!(meta["containerimage.config.digest"], layout.config_digest.as_str());
    assert_eq!(meta["containerimage.descriptor"]["digest"], layout.digest.as_str());
    let flat = merged([&read_layer(&fs::read(project.path("root.tar")).unwrap(), true)]);
    // In a flat tar other names of an inode may be the first.
    let unlinked =
        |tree: BTreeMap<_, _>| tree.into_iter().map(|(path, node)| (path, crate::harness::Node { link: None, ..node })).collect();
    let none: Vec<String> = Vec::new();
    assert_eq!(differences(&unlinked(flat), &unlinked(layout.tree())), none);
    assert_eq!(fs::read_to_string(project.path("root/srv/made")).unwrap(), "hello\n");
    assert!(!project.path("root/etc/group").exists());
}

#[test]
fn quiet_says_only_the_config_digest() {
    let project = small();
    let ran = project.run(["build", "-q", "-o", "type=oci,tar=false,dest=layout", "ctx"]).good();
    let image = Image::of_layout(&project.path("layout"));
    assert_eq!(ran.out(), format!("{}\n", image.config_digest));
}

#[test]
fn without_quiet_standard_output_is_empty_and_the_last_line_names_the_digest() {
    let project = small();
    let ran = project.build(&["-t", "small:1", "-o", "type=oci,tar=false,dest=layout"]).good();
    assert_eq!(ran.out(), "");
    let digest = Image::of_layout(&project.path("layout")).digest;
    assert!(ran.stderr.trim_end().lines().last().unwrap_or_default().contains(&digest), "{}", ran.stderr);
}

#[test]
fn a_tar_on_standard_output_is_nothing_but_that() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN echo x > /only\n");
    let ran = project.build(&["-o", "-"]).good();
    assert!(merged([&read_layer(&ran.stdout, true)]).contains_key("only"));
}

#[test]
fn what_the_ignore_file_names_is_not_copied() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nCOPY . /all/\n");
    for name in [".dockerignore", "keep", "a.bak", "node_modules/x", "deep/node_modules/y", "deep/keep"] {
        let _file = project.file(name, "**/*.bak\nnode_modules\n");
    }
    let paths = project.image(&[]).paths(0);
    for path in ["all/keep", "all/deep/keep", "all/deep/node_modules/y", "all/.dockerignore"] {
        assert!(paths.iter().any(|have| have == path), "{path} in {paths:?}");
    }
    assert!(!paths.iter().any(|path| path.contains(".bak") || path.starts_with("all/node_modules")), "{paths:?}");
}

#[test]
fn only_the_stages_that_the_target_needs_are_built() {
    let project = Project::with_busybox();
    project.dockerfile(
        "FROM busybox AS broken\nRUN false\nFROM busybox AS made\nRUN echo 1 > /one\nFROM scratch AS out\nCOPY --from=made /one /two\n",
    );
    let image = project.image(&["--target", "out"]);
    assert_eq!(image.tree().into_keys().collect::<Vec<_>>(), ["two"]);
    let _failed = project.build(&["--target", "broken"]).ends_with(3).says(&["Dockerfile:2"]);
}

#[test]
fn a_named_context_is_a_directory_or_a_layout() {
    let project = Project::with_busybox();
    project.dockerfile("FROM mine\nCOPY --from=extra /file /copied\n");
    fs::create_dir(project.path("extra")).unwrap();
    fs::write(project.path("extra/file"), "x").unwrap();
    let image = project.image(&["--build-context", "extra=extra", "--build-context", "mine=oci-layout://busybox-layout:busybox"]);
    assert!(image.tree().contains_key("copied") && image.tree().contains_key("bin/busybox"));
}

#[test]
fn an_imported_root_file_system_is_a_base() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN echo x > /only\n");
    let _built = project.build(&["-o", "type=tar,dest=root.tar"]).good();
    let _imported = project.run(["import", "root.tar", "mine:1", "--change", "CMD [\"cat\", \"/only\"]"]).good();
    project.dockerfile("FROM mine:1\nRUN cat /only > /copy\n");
    let image = project.image(&[]);
    assert_eq!(image.config["config"]["Cmd"], serde_json::json!(["cat", "/only"]));
    assert!(image.tree().contains_key("copy"));
    assert!(project.run(["images"]).good().out().contains("mine"));
}

#[test]
fn the_program_is_static_and_runs_where_there_is_nothing_else() {
    let project = Project::new();
    let program = project.path("empty/lapstrake");
    fs::create_dir(project.path("empty")).unwrap();
    copy_program(project.program(), &program);
    let mut command = if am_root() {
        let mut command = Command::new("chroot");
        command.arg(project.path("empty"));
        command
    } else {
        let mut command = Command::new("unshare");
        command.arg("--map-root-user").arg("chroot").arg(project.path("empty"));
        command
    };
    let ran = output_of(command.arg("/lapstrake").arg("--version")).good();
    assert!(ran.out().starts_with("lapstrake "), "{}", ran.out());
}
