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
fn a_user_without_subordinate_ids_builds_the_same_layers() {
    if !need_root() {
        return;
    }
    let (Some(user), Some(other)) = (need_user(WITH_IDS), need_user(WITHOUT_IDS)) else { return };
    let steps = [
        "mkdir a && chown 33:34 a && echo x > a/f && chmod 4755 a/f && ln a/f a/g && chown -h 5:6 a/g && mkfifo p && chown 7 p",
        "test \"$(stat -c %u:%g a/g)\" = 5:6 && chown -R 8:9 a && rm /etc/group",
    ];
    let timeless = |step: &str| {
        format!(
            "RUN {step} && find / -xdev -newer /bin/busybox ! -name proc ! -name sys ! -name dev -exec touch -h -d @1000000000 {{}} +\n"
        )
    };
    let dockerfile = format!(
        "FROM busybox\n{}USER www-data\n{}COPY --chown=33:50 files /srv/\n",
        steps.map(timeless).concat(),
        "RUN test \"$(id -u)\" = 33 && echo y > /tmp/mine && touch -d @1 /tmp/mine\n"
    );
    let build = |project: &Project| {
        project.load_busybox();
        project.dockerfile(&dockerfile);
        let _one = project.file("files/one", "1");
        project.image(&[])
    };
    let many = build(&Project::as_user(WITH_IDS, user));
    let without = Project::as_user(WITHOUT_IDS, other);
    let one = build(&without);
    // The copy's own times are those of the build.
    assert_eq!(many.diff_ids().split_last().map(|(_, steps)| steps.to_vec()), one.diff_ids().split_last().map(|(_, steps)| steps.to_vec()));
    let none: Vec<String> = Vec::new();
    assert_eq!(differences(&many.tree(), &one.tree()), none);
    // Who asks for what needs more is told what is missing.
    let missing = ["/etc/subuid", WITHOUT_IDS, "usermod --add-subuids"];
    let _told = without.build(&["--driver", "userns", "--no-cache"]).ends_with(4).says(&missing);
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
