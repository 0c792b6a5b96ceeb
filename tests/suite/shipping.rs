//! To a registry and back.

use std::fs;

use crate::harness::{Project, Registry, get};

fn hello(project: &Project) {
    project.dockerfile("FROM busybox\nRUN echo shipped > /cargo\n");
}

#[test]
fn a_pushed_image_comes_back_into_an_empty_store_with_the_same_digests() {
    let project = Project::with_busybox();
    let Some(registry) = Registry::start(&project.path("registry")) else { return };
    hello(&project);
    let name = registry.name("team/hello:1");
    let before = project.image(&["-t", &name]);
    let _pushed = project.run(["push", &name]).good();
    let catalogue = get(registry.port, "/v2/_catalog").unwrap();
    assert!(catalogue.contains("team/hello"), "{catalogue}");
    assert!(get(registry.port, "/v2/team/hello/tags/list").unwrap().contains("\"1\""));

    let other = Project::new();
    let _pulled = other.run(["pull", &name]).good();
    other.dockerfile(&format!("FROM {name}\n"));
    let after = other.image(&[]);
    assert_eq!(before.diff_ids(), after.diff_ids());
    let listed = other.run(["images", "--digests"]).good().out();
    assert!(listed.contains(&before.digest), "{listed} has no {}", before.digest);

    let by_digest = registry.name(&format!("team/hello@{}", before.digest));
    let third = Project::new();
    third.dockerfile(&format!("FROM {by_digest}\nRUN cat /cargo > /copy\n"));
    assert!(third.image(&[]).tree().contains_key("copy"));
}

#[test]
fn a_build_can_push_and_a_second_push_sends_no_layer() {
    let project = Project::with_busybox();
    let Some(registry) = Registry::start(&project.path("registry")) else { return };
    hello(&project);
    let name = registry.name("hello:2");
    let _built = project.build(&["-t", &name, "--push"]).good();
    assert!(get(registry.port, "/v2/_catalog").unwrap().contains("hello"));
    let blobs = project.path("registry/data/docker/registry/v2/blobs/sha256");
    let count = || fs::read_dir(&blobs).unwrap().map(|dir| fs::read_dir(dir.unwrap().path()).unwrap().count()).sum::<usize>();
    let before = count();
    let _pushed = project.run(["push", &name]).good();
    assert_eq!(count(), before);
}

#[test]
fn a_registry_behind_a_private_authority_is_reached_with_its_certificate_only() {
    let project = Project::with_busybox();
    let Some(registry) = Registry::start_tls(&project.path("registry")) else { return };
    hello(&project);
    let name = registry.name("hello:3");
    let _built = project.build(&["-t", &name]).good();
    let _refused = project.run(["push", &name]).ends_with(5);
    let host = name.split('/').next().unwrap().to_owned();
    let ca = project.path("registry/ca.pem");
    let config = project.path("home/.config/lapstrake/config.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, format!("[registry.\"{host}\"]\nca = \"{}\"\n", ca.display())).unwrap();
    let _pushed = project.run(["push", &name]).good();
    let _pulled = project.run(["pull", &name]).good();
}

#[test]
fn a_registry_that_is_not_there_is_an_error_of_the_network_and_names_the_place() {
    let project = Project::new();
    project.dockerfile("FROM 127.0.0.1:1/nobody/home:1\n");
    let _failed = project.build(&[]).ends_with(5).says(&["127.0.0.1:1"]);
    let _failed = project.run(["pull", "127.0.0.1:1/nobody/home:1"]).ends_with(5).says(&["127.0.0.1:1"]);
}

#[test]
fn an_image_that_the_registry_does_not_have_is_an_error_at_its_from() {
    let project = Project::new();
    let Some(registry) = Registry::start(&project.path("registry")) else { return };
    let name = registry.name("no/such:1");
    project.dockerfile(&format!("# first line\nFROM {name}\n"));
    let ran = project.build(&[]).says(&["Dockerfile:2", &name]);
    assert!(matches!(ran.code, Some(1 | 5)), "{:?}", ran.code);
}

#[test]
fn a_blob_that_the_registry_changed_is_refused_and_not_kept() {
    let project = Project::with_busybox();
    let Some(registry) = Registry::start(&project.path("registry")) else { return };
    hello(&project);
    let name = registry.name("hello:4");
    let image = project.image(&["-t", &name]);
    let _pushed = project.run(["push", &name]).good();
    let hex = image.layers.last().unwrap().digest.strip_prefix("sha256:").unwrap().to_owned();
    let blob = project.path(&format!("registry/data/docker/registry/v2/blobs/sha256/{}/{hex}/data", hex.get(..2).unwrap()));
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let other = Project::new();
    other.dockerfile(&format!("FROM {name}\nRUN cat /cargo\n"));
    let ran = other.build(&[]);
    assert_ne!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains(&hex), "{}", ran.stderr);
    assert!(!other.store().join("blobs/sha256").join(&hex).exists());
    assert_eq!(fs::read_dir(other.store().join("tmp")).unwrap().count(), 0);
}
