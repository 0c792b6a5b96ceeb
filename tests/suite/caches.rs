//! Caches that go elsewhere and come from elsewhere: `--cache-to`, `--cache-from`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::harness::{Image, Project, Ran, Registry, sha256};

const DOCKERFILE: &str = "FROM busybox AS a\nARG TOKEN\nRUN echo one > /one; echo > /other\nFROM busybox\nCOPY --from=a /one /one\nCOPY src /src\nRUN cat /src/f > /f\n";

fn project() -> Project {
    let project = Project::with_busybox();
    let _file = project.file("src/f", "content");
    project.dockerfile(DOCKERFILE);
    project
}

fn words<'a>(ran: &'a Ran, word: &str) -> Vec<&'a str> {
    ran.stderr.lines().filter(|line| line.starts_with('#') && line.ends_with(word)).collect()
}

/// Builds to a cache directory, which is where it goes for every project.
fn exported(project: &Project, mode: &str, args: &[&str]) -> (PathBuf, Ran) {
    let dir = project.path("cache-dir");
    let to = format!("type=local,dest={},mode={mode}", dir.display());
    let ran = project.build(&[&["--cache-to", &to], args].concat()).good();
    (dir, ran)
}

fn from(dir: &Path) -> String {
    format!("type=local,src={}", dir.display())
}

/// The blobs of a layout, by what they are.
fn json_blobs(dir: &Path) -> Vec<(PathBuf, Value)> {
    let all = fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    all.filter_map(|path| Some((path.clone(), serde_json::from_slice(&fs::read(&path).unwrap()).ok()?))).collect()
}

#[test]
fn all_steps_are_imported_in_another_store_and_cached_from_then_on() {
    let one = project();
    let (dir, _ran) = exported(&one, "max", &["-o", "type=oci,tar=false,dest=out"]);
    let before = Image::of_layout(&one.path("out"));
    let other = project();
    let ran = other.build(&["--cache-from", &from(&dir), "-o", "type=oci,tar=false,dest=out"]).good();
    assert_eq!(words(&ran, " IMPORTED").len(), 4, "{}", ran.stderr);
    assert_eq!(Image::of_layout(&other.path("out")).digest, before.digest);
    let again = other.build(&[]).good();
    assert_eq!(words(&again, " CACHED").len(), 4, "{}", again.stderr);
    // An image that skopeo or another builder may read.
    assert_eq!(Image::of_layout(&dir).layers.len(), 4);
}

#[test]
fn a_min_cache_has_the_layers_of_the_image_alone() {
    let one = project();
    let (dir, _ran) = exported(&one, "min", &[]);
    assert_eq!(Image::of_layout(&dir).layers.len(), 3);
    let ran = project().build(&["--cache-from", &from(&dir)]).good();
    // The other stage is built again, with the same files: what copies them is imported.
    assert_eq!((words(&ran, " IMPORTED").len(), ran.stderr.matches("not cached").count()), (3, 1), "{}", ran.stderr);
}

#[test]
fn an_inline_cache_travels_with_the_image() {
    let one = project();
    let _built = one.build(&["-t", "app", "--cache-to", "type=inline", "-o", "type=oci,dest=app.tar"]).good();
    let other = project();
    let _loaded = other.run(["load", "-i", one.path("app.tar").to_str().unwrap(), "-t", "app"]).good();
    let ran = other.build(&["--cache-from", "app"]).good();
    assert_eq!(words(&ran, " IMPORTED").len(), 3, "{}", ran.stderr);
    let epoch = other.build(&["--cache-to", "type=inline", "--source-date-epoch", "1"]).ends_with(1);
    assert!(epoch.stderr.contains("SOURCE_DATE_EPOCH"), "{}", epoch.stderr);
}

#[test]
fn an_inline_cache_is_taken_from_a_registry() {
    let one = project();
    let Some(registry) = Registry::start(&one.path("registry")) else { return };
    let name = registry.name("app");
    let _pushed = one.build(&["-t", &name, "--push", "--cache-to", "type=inline"]).good();
    let other = project();
    let ran = other.build(&["--cache-from", &format!("type=registry,ref={name}")]).good();
    assert_eq!(words(&ran, " IMPORTED").len(), 3, "{}", ran.stderr);
}

#[test]
fn two_equal_builds_write_the_same_inline_cache() {
    let project = project();
    let id = || {
        let _built = project.build(&["--cache-to", "type=inline", "--iidfile", "id"]).good();
        fs::read_to_string(project.path("id")).unwrap()
    };
    assert_eq!(id(), id());
}

#[test]
fn a_miss_is_compared_with_what_is_imported() {
    let one = project();
    let (dir, _ran) = exported(&one, "max", &["--build-arg", "TOKEN=1"]);
    let ran = project().build(&["--cache-from", &from(&dir), "--build-arg", "TOKEN=2"]).good();
    assert!(ran.stderr.contains("not cached: ARG TOKEN: changed\n"), "{}", ran.stderr);
}

#[test]
fn no_value_of_an_argument_travels() {
    let one = project();
    let (dir, _ran) = exported(&one, "max", &["--build-arg", "TOKEN=hunter2-hunter2"]);
    let config = json_blobs(&dir).into_iter().find(|(_, json)| json["lapstrake.cache.v1"].is_object()).unwrap().1;
    let text = config.to_string();
    assert!(text.contains("ARG TOKEN") && !text.contains("hunter2") && !text.contains("echo one"), "{text}");
}

#[test]
fn what_is_damaged_is_told_and_made_again() {
    let one = project();
    let (dir, _ran) = exported(&one, "max", &[]);
    let before = one.image(&[]);
    for layer in &Image::of_layout(&dir).layers {
        let path = dir.join("blobs/sha256").join(layer.digest.strip_prefix("sha256:").unwrap());
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let other = project();
    let ran = other.build(&["--cache-from", &from(&dir)]).good();
    assert!(
        ran.stderr.contains("cannot give the layer of `RUN echo one > /one; echo > /other`") && words(&ran, " IMPORTED").is_empty(),
        "{}",
        ran.stderr
    );
    assert_eq!(other.image(&[]).tree().keys().collect::<Vec<_>>(), before.tree().keys().collect::<Vec<_>>());
    fs::write(dir.join("index.json"), "{}").unwrap();
    let ran = project().build(&["--cache-from", &from(&dir), "--cache-from", &from(&one.path("nowhere"))]).good();
    assert_eq!(ran.stderr.matches("no cache from").count(), 2, "{}", ran.stderr);
}

/// Somebody who writes a whole cache writes what he likes; what can be checked is.
#[test]
fn a_layer_that_is_not_what_its_diff_id_says_is_not_used() {
    let one = project();
    let (dir, _ran) = exported(&one, "max", &[]);
    let put = |value: &Value| {
        let text = value.to_string();
        let digest = sha256(text.as_bytes());
        fs::write(dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:")), &text).unwrap();
        (if digest.starts_with("sha256:") { digest } else { format!("sha256:{digest}") }, text.len())
    };
    let all = json_blobs(&dir);
    let mut manifest = all.iter().find(|(_, json)| json["layers"].is_array()).unwrap().1.clone();
    // The blobs of two layers change places: every digest is right.
    manifest["layers"].as_array_mut().unwrap().swap(0, 2);
    let (digest, size) = put(&manifest);
    let mut index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"] = digest.into();
    index["manifests"][0]["size"] = size.into();
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    let ran = project().build(&["--cache-from", &from(&dir)]).good();
    assert!(ran.stderr.contains("cannot give the layer of"), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("its tar should be").count(), 2, "{}", ran.stderr);
}

#[test]
fn without_cache_nothing_is_imported() {
    let one = project();
    let (dir, _ran) = exported(&one, "max", &[]);
    let ran = project().build(&["--cache-from", &from(&dir), "--no-cache"]).good();
    assert!(words(&ran, " IMPORTED").is_empty(), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_done_yet_is_refused() {
    let project = project();
    for args in [["--cache-to", "type=registry,ref=x"], ["--cache-to", "type=gha"], ["--cache-from", "type=s3,bucket=x"]] {
        let _refused = project.build(&args).ends_with(2).says(&["lapstrake cannot"]);
    }
}
