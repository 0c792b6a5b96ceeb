//! The same image whoever builds it: root, a user with subordinate ids; and a user without.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
};

use crate::harness::{Project, debian_rootfs, differences, need_root, need_user, sources};

/// What `tests/run` calls its users.
const WITH_IDS: &str = "lapstrake-test";
const WITHOUT_IDS: &str = "lapstrake-nosub";

#[test]
fn root_and_a_user_build_the_same_layers() {
    if !need_root() {
        return;
    }
    let Some(user) = need_user(WITH_IDS) else { return };
    let dockerfile = "FROM busybox\nWORKDIR /srv\nCOPY --chown=33:50 files ./\nRUN umask; mkdir a && chown 33:33 a && echo x > a/f && chmod 4755 a/f && ln a/f a/g && rm /etc/group && mkfifo p\nUSER www-data\nRUN echo y > /tmp/mine\n";
    let build = |project: &Project| {
        project.load_busybox();
        project.dockerfile(dockerfile);
        let _one = project.file("files/one", "1");
        let _two = project.file("files/deep/two", "2");
        project.image(&[])
    };
    let (as_root, as_user) = (build(&Project::new()), build(&Project::as_user(WITH_IDS, user)));
    assert_eq!(as_root.layers.len(), as_user.layers.len());
    for (one, other) in as_root.layers.iter().zip(&as_user.layers) {
        let names =
            |layer: &crate::harness::Layer| layer.rows.iter().map(|(path, node)| (path.clone(), node.is_some())).collect::<Vec<_>>();
        assert_eq!(names(one), names(other));
    }
    let none: Vec<String> = Vec::new();
    assert_eq!(differences(&as_root.tree(), &as_user.tree()), none);
}

/// Scenario 3 of the examples, on a Debian base: each path's owner, mode, links and content.
#[test]
fn root_and_a_user_build_the_same_example() {
    if !need_root() {
        return;
    }
    let (Some(user), Some(rootfs)) = (need_user(WITH_IDS), debian_rootfs()) else { return };
    let example = sources().join("examples/jar");
    let build = |project: &Project| {
        // The user may not be able to read where the tests are.
        let base = project.path("debian.tar");
        let _size = fs::copy(&rootfs, &base).unwrap();
        let _imported = project.run(["import", base.to_str().unwrap(), "debian:bookworm"]).good();
        for entry in fs::read_dir(&example).unwrap().flatten() {
            let _size = fs::copy(entry.path(), project.context().join(entry.file_name())).unwrap();
        }
        project.image(&["--build-arg", "BASE=debian:bookworm"])
    };
    let (as_root, as_user) = (build(&Project::new()), build(&Project::as_user(WITH_IDS, user)));
    let none: Vec<String> = Vec::new();
    assert_eq!(differences(&as_root.tree(), &as_user.tree()), none);
    assert_eq!(as_root.diff_ids()[0], as_user.diff_ids()[0]);
}

#[test]
fn a_user_without_subordinate_ids_is_told_what_is_missing() {
    if !need_root() {
        return;
    }
    let Some(user) = need_user(WITHOUT_IDS) else { return };
    let project = Project::as_user(WITHOUT_IDS, user);
    project.load_busybox();
    project.dockerfile("FROM busybox\nRUN true\n");
    let missing = ["/etc/subuid", WITHOUT_IDS, "usermod --add-subuids"];
    let _told = project.build(&[]).ends_with(4).says(&missing);
    // The doctor tries the same, and says the same on standard output.
    let doctor = project.run(["doctor"]).ends_with(4);
    for text in missing {
        assert!(doctor.out().contains(text), "`{text}` is not in\n{}", doctor.out());
    }
    // What needs no step is built all the same.
    project.dockerfile("FROM busybox\nCOPY f /\n");
    let _file = project.file("f", "1");
    let _built = project.build(&[]).good();
}

/// A file of the user's own that nobody may read, as some archives unpack them.
fn closed_file(project: &Project, user: u32, name: &str, text: &str) {
    let path = project.file(name, text);
    chown(&path, Some(user), Some(user)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o100)).unwrap();
}

#[test]
fn files_that_their_owner_may_not_read_are_read_as_root_of_a_namespace() {
    if !need_root() {
        return;
    }
    let (Some(user), Some(other)) = (need_user(WITH_IDS), need_user(WITHOUT_IDS)) else { return };
    let files = |project: &Project, user: u32| {
        project.dockerfile("FROM scratch\nCOPY . /\n");
        closed_file(project, user, ".dockerignore", "hidden\nDockerfile\n.dockerignore\n");
        closed_file(project, user, "shut", "inside");
        closed_file(project, user, "hidden", "");
    };
    let with_ids = Project::as_user(WITH_IDS, user);
    files(&with_ids, user);
    let tree = with_ids.image(&[]).tree();
    let paths: Vec<&String> = tree.keys().collect();
    assert_eq!(paths, ["shut"]);
    // Where there is no namespace, it is the file that is wrong.
    let without = Project::as_user(WITHOUT_IDS, other);
    files(&without, other);
    let _told = without.build(&[]).ends_with(1).says(&[".dockerignore", "Permission denied", "/etc/subuid"]);
    // Nobody asked for one.
    let _told = with_ids.build(&["--driver", "none", "--no-cache"]).ends_with(1).says(&[".dockerignore", "Permission denied"]);
}
