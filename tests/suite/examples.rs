//! The examples, built as they are, run, and built again.

use std::{
    fs,
    path::{Path, PathBuf},
};

mod redis;

use crate::harness::{Podman, Project, am_root, debian_rootfs, free_port, get, skipped, sources, wait_until};

fn example(name: &str) -> PathBuf {
    sources().join("examples").join(name)
}

/// A project with a copy of an example as its context and Debian in a store that the examples share.
fn debian(name: &str) -> Option<Project> {
    let rootfs = debian_rootfs()?;
    let id = rustix::process::geteuid().as_raw();
    let project = Project::on_store(&rootfs.with_file_name(format!("store-{id}")));
    // One import for all of them: the first one that is here makes it, the others find it.
    let lock = fs::File::options().create(true).append(true).open(rootfs.with_file_name(format!("import-{id}.lock"))).unwrap();
    lock.lock().unwrap();
    if !project.run(["images"]).good().out().contains("debian") {
        let rootfs = rootfs.to_str().unwrap();
        let _imported = project.run(["import", rootfs, "debian:bookworm", "--change", "CMD [\"bash\"]"]).good();
    }
    copy(&example(name), &project.context());
    Some(project)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            let _size = fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Builds an example twice: the second time every step is cached and the image the same.
fn twice(project: &Project, tag: &str) {
    let _first = project.build(&["-t", tag, "-o", "type=docker,dest=image.tar", "-o", "type=oci,tar=false,dest=one"]).good();
    let second = project.build(&["-t", tag, "-o", "type=oci,tar=false,dest=two"]).good();
    let image = |name| crate::harness::Image::of_layout(&project.path(name));
    let (one, two) = (image("one"), image("two"));
    assert_eq!(one.digest, two.digest);
    let cached = second.stderr.lines().filter(|line| line.contains("CACHED")).count();
    assert!(cached + 1 >= one.layers.len(), "{cached} of {} steps cached:\n{}", one.layers.len() - 1, second.stderr);
}

#[test]
fn the_web_application_answers_over_http() {
    let Some(project) = debian("web") else { return };
    twice(&project, "example/web");
    let Some(podman) = Podman::new(&project.path("podman")) else { return };
    assert_eq!(answer(&podman, &project.path("image.tar")), "hello from a container");
}

/// What a server in an image answers on `/`; it listens on the port in `PORT`.
fn answer(podman: &Podman, archive: &Path) -> String {
    let name = podman.load(archive);
    let port = free_port();
    let variable = format!("PORT={port}");
    let mut server = podman.command(&Podman::run_line("host", &["-e", &variable, &name])).spawn().unwrap();
    let answer = std::panic::catch_unwind(|| wait_until("the server", || get(port, "/")));
    let _stopped = podman.run(&["stop", "--all", "-t", "1"]);
    let _status = server.wait();
    answer.unwrap().trim().to_owned()
}

/// The example with a Java runtime, and the runtime.
fn jdk() -> Option<Project> {
    let project = debian("jdk")?;
    let runtime = debian_rootfs()?.with_file_name("jdk.tar.gz");
    if !runtime.exists() {
        skipped("there is no jdk.tar.gz beside the bases; `tests/run` makes one");
        return None;
    }
    let _size = fs::copy(runtime, project.context().join("jdk.tar.gz")).unwrap();
    Some(project)
}

#[test]
fn the_jdk_is_unpacked_and_the_last_cmd_counts() {
    let Some(project) = jdk() else { return };
    twice(&project, "example/jdk");
    let said = project.build(&["-t", "example/jdk"]).good();
    assert!(said.stderr.contains("MultipleInstructionsDisallowed") || said.stderr.contains("CMD"), "{}", said.stderr);
    let image = crate::harness::Image::of_layout(&project.path("one"));
    let config = &image.config["config"];
    let env: Vec<&str> = config["Env"].as_array().unwrap().iter().filter_map(serde_json::Value::as_str).collect();
    assert!(env.contains(&"JAVA_HOME=/usr/local/java/jdk") && env.contains(&"MYPATH=/usr/local"), "{env:?}");
    assert!(env.iter().any(|text| text.starts_with("PATH=/usr/local/java/jdk/bin:/usr/local/sbin:")), "{env:?}");
    assert_eq!(config["WorkingDir"], "/usr/local");
    assert_eq!(config["Cmd"].as_array().unwrap().last().unwrap(), "/bin/bash");
    let tree = image.tree();
    assert!(tree.contains_key("usr/local/java/jdk/bin/java"));
    assert!(tree.contains_key("usr/bin/ifconfig") || tree.contains_key("usr/sbin/ifconfig"));
    // A user's podman copies so large an image for each of its layers; the jar runs on it for users too.
    if !am_root() {
        return;
    }
    let Some(podman) = Podman::new(&project.path("podman")) else { return };
    let name = podman.load(&project.path("image.tar"));
    let ran =
        podman.run(&Podman::run_line("none", &[&name, "sh", "-c", "pwd && java -version 2>&1 && ifconfig lo && vi --version"])).good();
    for text in ["/usr/local\n", "Runtime Environment", "127.0.0.1", "VIM - Vi IMproved"] {
        assert!(ran.out().contains(text), "{text}: {}", ran.all());
    }
    assert_eq!(podman.run(&Podman::run_line("none", &[&name])).good().all(), "", "a shell without input ends");
}

#[test]
fn the_jar_runs_on_the_image_with_the_jdk() {
    let (Some(runtime), Some(project)) = (jdk(), debian("jar")) else { return };
    let _base = runtime.build(&["-t", "example/jdk"]).good();
    let _first = project.build(&["-t", "example/jar", "--build-arg", "BASE=example/jdk", "-o", "type=docker,dest=image.tar"]).good();
    let image = crate::harness::Image::of_docker_archive(&project.path("image.tar"));
    let config = &image.config["config"];
    assert_eq!(config["Entrypoint"], serde_json::json!(["java", "-jar", "/service.jar"]));
    assert_eq!(config["Cmd"], serde_json::Value::Null, "an ENTRYPOINT clears an inherited CMD");
    assert!(config["Volumes"]["/tmp"].is_object() && config["ExposedPorts"]["6001/tcp"].is_object());
    let Some(podman) = Podman::new(&project.path("podman")) else { return };
    assert_eq!(answer(&podman, &project.path("image.tar")), "hello from a jar");
}

#[test]
fn the_jar_on_a_plain_base_is_built_twice() {
    let Some(project) = debian("jar") else { return };
    twice(&project, "example/jar-plain");
    assert!(crate::harness::Image::of_layout(&project.path("one")).tree().contains_key("service.jar"));
}

#[test]
fn the_small_print_of_the_tutorial_holds() {
    let project = Project::with_busybox();
    copy(&example("small-print"), &project.context());
    let ran = project.build(&["-t", "small-print", "-o", "type=oci,tar=false,dest=one", "-o", "type=docker,dest=image.tar"]).good();
    assert!(ran.stderr.contains("/test/demo"), "{}", ran.stderr);
    let image = crate::harness::Image::of_layout(&project.path("one"));
    let tree = image.tree();
    for path in ["hello", "unpacked.txt", "test/demo/test/hello", "root"] {
        assert!(tree.contains_key(path), "{path}");
    }
    assert_eq!(image.config["config"]["Entrypoint"], serde_json::json!(["/bin/echo", "hello $name"]));
    assert!(image.config["config"]["Env"].as_array().unwrap().contains(&"MYSQL_VERSION=5.6".into()));
    let again = project.build(&["-o", "type=oci,tar=false,dest=two"]).good();
    assert!(again.stderr.contains("CACHED"));
    assert_eq!(image.digest, crate::harness::Image::of_layout(&project.path("two")).digest);
    let Some(podman) = Podman::new(&project.path("podman")) else { return };
    let name = podman.load(&project.path("image.tar"));
    let said = |arguments: &[&str]| podman.run(&Podman::run_line("none", &[&[name.as_str()], arguments].concat())).good().out();
    assert_eq!(said(&[]), "hello $name and the last default argument\n");
    assert_eq!(said(&["and", "others"]), "hello $name and others\n");
}

#[test]
fn the_service_answers_and_its_script_must_be_executable() {
    let project = Project::with_busybox();
    copy(&example("service"), &project.context());
    let _built = project.build(&["-t", "service", "-o", "type=docker,dest=image.tar"]).good();
    let image = crate::harness::Image::of_docker_archive(&project.path("image.tar"));
    assert_eq!(image.config["config"]["Entrypoint"], serde_json::json!(["/bin/sh", "-c", "./entrypoint.sh"]));
    assert_eq!(image.tree().keys().filter(|path| path.starts_with("app/")).collect::<Vec<_>>(), ["app/entrypoint.sh", "app/index.html"]);
    let Some(podman) = Podman::new(&project.path("podman")) else { return };
    assert_eq!(answer(&podman, &project.path("image.tar")), "hello from a service\nbuilt in /app");
    // The classic mistake.
    let text = fs::read_to_string(example("service").join("Dockerfile")).unwrap();
    let without = text.lines().filter(|line| !line.contains("chmod")).collect::<Vec<_>>().join("\n");
    assert_eq!(without.lines().count() + 1, text.lines().count());
    project.dockerfile(&without);
    let _built = project.build(&["-t", "forgotten", "-o", "type=docker,dest=forgotten.tar"]).good();
    let forgotten = podman.load(&project.path("forgotten.tar"));
    let ran = podman.run(&Podman::run_line("none", &[&forgotten])).ends_with(126);
    assert!(ran.stderr.contains("./entrypoint.sh: Permission denied"), "{}", ran.stderr);
}

#[test]
fn the_small_image_of_several_stages_runs_what_the_large_one_compiled() {
    let Some(project) = debian("stages") else { return };
    twice(&project, "example/stages");
    let image = crate::harness::Image::of_layout(&project.path("one"));
    assert_eq!(image.tree().into_keys().collect::<Vec<_>>(), ["checked", "hello"]);
    let Some(podman) = Podman::new(&project.path("podman")) else { return };
    let name = podman.load(&project.path("image.tar"));
    let ran = podman.run(&Podman::run_line("none", &[&name])).good();
    assert_eq!(ran.out().trim(), "hello from a small image");
}
