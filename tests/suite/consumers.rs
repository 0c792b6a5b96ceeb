//! The programs that take our images: skopeo, umoci, podman, Docker.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::harness::{Docker, Image, Podman, Project, Ran, am_root, need, output_of};

/// An image in all three file forms.
fn built() -> Project {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nCOPY hello.txt /\nRUN chown 33:33 /hello.txt && rm /etc/group\nCMD [\"cat\", \"/hello.txt\"]\n");
    let _file = project.file("hello.txt", "hello from lapstrake\n");
    let line =
        ["-t", "hello:1", "-o", "type=oci,tar=false,dest=layout", "-o", "type=oci,dest=oci.tar", "-o", "type=docker,dest=docker.tar"];
    let _built = project.build(&line).good();
    project
}

fn tool(project: &Project, program: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", project.path("home")).env("TMPDIR", project.path("tmp"));
    output_of(command.current_dir(project.path("")).args(args))
}

#[test]
fn skopeo_reads_and_converts_every_form() {
    let Some(skopeo) = need("skopeo") else { return };
    let project = built();
    let ours = Image::of_layout(&project.path("layout"));
    for source in ["oci:layout", "oci-archive:oci.tar", "docker-archive:docker.tar"] {
        let said = tool(&project, &skopeo, &["inspect", source]).good();
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(said["Os"], "linux", "{source}");
        if source.starts_with("oci") {
            assert_eq!(said["Digest"], ours.digest.as_str(), "{source}");
        }
        let config = tool(&project, &skopeo, &["inspect", "--config", source]).good();
        let config: Value = serde_json::from_slice(&config.stdout).unwrap();
        assert_eq!(config["config"]["Cmd"][0], "cat");
        let name = source.replace([':', '/'], "-");
        let target = format!("docker-archive:{name}.converted.tar:hello:1");
        let _copied = tool(&project, &skopeo, &["--insecure-policy", "copy", source, &target]).good();
        let converted = Image::of_docker_archive(&project.path(&format!("{name}.converted.tar")));
        assert_eq!(converted.diff_ids(), ours.diff_ids(), "{source}");
        let target = format!("oci:{name}.layout:1");
        let _copied = tool(&project, &skopeo, &["--insecure-policy", "copy", source, &target]).good();
        assert_eq!(Image::of_layout(&project.path(&format!("{name}.layout"))).diff_ids(), ours.diff_ids(), "{source}");
    }
}

#[test]
fn umoci_unpacks_the_layout() {
    let Some(umoci) = need("umoci") else { return };
    let project = built();
    // umoci names images by their tag.
    let index: Value = serde_json::from_slice(&std::fs::read(project.path("layout/index.json")).unwrap()).unwrap();
    let tag = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or_default().to_owned();
    let image = format!("layout:{}", tag.rsplit(':').next().unwrap_or_default());
    let mut line = vec!["unpack", "--image", &image, "bundle"];
    if !am_root() {
        line.insert(1, "--rootless");
    }
    let _unpacked = tool(&project, &umoci, &line).good();
    assert_eq!(std::fs::read_to_string(project.path("bundle/rootfs/hello.txt")).unwrap(), "hello from lapstrake\n");
    assert!(!project.path("bundle/rootfs/etc/group").exists());
}

#[test]
fn podman_loads_and_runs_every_form() {
    let project = built();
    let Some(podman) = Podman::new(&project.path("podman")) else { return };
    // By its path from here: podman makes a name of it, and names have no capitals.
    let mut pull = podman.command(&["pull", "--quiet", "oci:layout"]);
    let pulled = output_of(pull.current_dir(project.path(""))).good().out().trim().to_owned();
    for (archive, name) in
        [("docker.tar", podman.load(&project.path("docker.tar"))), ("oci.tar", podman.load(&project.path("oci.tar"))), ("layout", pulled)]
    {
        let ran = podman.run(&Podman::run_line("none", &[&name])).good();
        assert_eq!(ran.out(), "hello from lapstrake\n", "{archive}");
    }
}

#[test]
fn dockers_engine_loads_and_runs_the_archive() {
    let project = built();
    let Some(docker) = Docker::start(&project.path("docker")) else { return };
    let _loaded = docker.run(&["load", "-i", project.path("docker.tar").to_str().unwrap()]).good();
    assert_eq!(docker.run(&["run", "--rm", "--network", "none", "hello:1"]).good().out(), "hello from lapstrake\n");
    let id = docker.run(&["image", "inspect", "-f", "{{.Id}}", "hello:1"]).good().out();
    assert_eq!(id.trim(), Image::of_docker_archive(&project.path("docker.tar")).config_digest);
    let owner = docker.run(&["run", "--rm", "--network", "none", "hello:1", "stat", "-c", "%u:%g", "/hello.txt"]).good();
    assert_eq!(owner.out(), "33:33\n");
}

#[test]
fn an_archive_of_docker_and_of_podman_is_a_base() {
    let Some(skopeo) = need("skopeo") else { return };
    let project = built();
    for (at, target) in ["docker-archive:saved.tar:saved:1", "oci-archive:saved.oci.tar:saved"].iter().enumerate() {
        let _copied = tool(&project, &skopeo, &["--insecure-policy", "copy", "oci:layout", target]).good();
        let file = target.split(':').nth(1).unwrap();
        let name = format!("loaded{at}");
        let _loaded = project.run(["load", "-i", file, "-t", &name]).good();
        project.dockerfile(&format!("FROM {name}\nRUN cat /hello.txt > /again\n"));
        assert!(project.image(&[]).tree().contains_key("again"));
    }
}
