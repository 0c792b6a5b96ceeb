//! What a second build does again, and what not.

use crate::harness::{Project, Ran};

const DOCKERFILE: &str =
    "FROM busybox\nRUN echo first > /first\nCOPY app /app\nRUN cat /app/main > /built\nCOPY late /late\nRUN cat /late > /last\n";

fn project() -> Project {
    let project = Project::with_busybox();
    project.dockerfile(DOCKERFILE);
    let _main = project.file("app/main", "1");
    let _late = project.file("late", "1");
    project
}

/// The lines of progress that say a step came from the cache.
fn cached(ran: &Ran) -> usize {
    ran.stderr.lines().filter(|line| line.contains("CACHED")).count()
}

#[test]
fn a_second_build_does_nothing_again_and_makes_the_same_image() {
    let project = project();
    let first = project.build(&["-o", "type=oci,tar=false,dest=one"]).good();
    assert_eq!(cached(&first), 0, "{}", first.stderr);
    let second = project.build(&["-o", "type=oci,tar=false,dest=two"]).good();
    assert_eq!(cached(&second), 5, "{}", second.stderr);
    let image = |name| crate::harness::Image::of_layout(&project.path(name));
    assert_eq!(image("one").digest, image("two").digest);
}

#[test]
fn a_changed_file_rebuilds_from_its_copy_on_and_nothing_before() {
    let project = project();
    let one = project.image(&[]);
    let _late = project.file("late", "2");
    let ran = project.build(&[]).good();
    assert_eq!(cached(&ran), 3, "{}", ran.stderr);
    let two = project.image(&[]);
    assert_eq!(one.diff_ids()[..4], two.diff_ids()[..4]);
    assert_ne!(one.diff_ids()[4], two.diff_ids()[4]);
    let _main = project.file("app/main", "2");
    assert_eq!(cached(&project.build(&[]).good()), 1);
}

#[test]
fn a_file_that_is_only_touched_rebuilds_nothing() {
    let project = project();
    let _first = project.build(&[]).good();
    let file = std::fs::File::options().write(true).open(project.context().join("late")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
    assert_eq!(cached(&project.build(&[]).good()), 5);
}

#[test]
fn a_changed_argument_rebuilds_from_its_first_run_on() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN echo before > /before\nARG SHA\nRUN echo $SHA > /sha\n");
    let _first = project.build(&["--build-arg", "SHA=1"]).good();
    let other = project.build(&["--build-arg", "SHA=2"]).good();
    assert_eq!(cached(&other), 1, "{}", other.stderr);
    assert_eq!(cached(&project.build(&["--build-arg", "SHA=1"]).good()), 2);
}

#[test]
fn no_cache_does_all_again() {
    let project = project();
    let _first = project.build(&[]).good();
    assert_eq!(cached(&project.build(&["--no-cache"]).good()), 0);
}

#[test]
fn a_store_whose_cache_is_garbage_is_a_store_without_a_cache() {
    let project = project();
    let before = project.image(&[]);
    for dir in ["cache", "index", "refs"] {
        for entry in std::fs::read_dir(project.store().join(dir)).unwrap() {
            std::fs::write(entry.unwrap().path(), "garbage").unwrap();
        }
    }
    project.load_busybox();
    let after = project.image(&[]);
    assert_eq!(before.tree().keys().collect::<Vec<_>>(), after.tree().keys().collect::<Vec<_>>());
}

#[test]
fn a_layer_that_is_damaged_in_the_store_is_made_again() {
    let project = project();
    let before = project.image(&[]);
    for layer in before.layers.iter().skip(1) {
        let blob = project.store().join("blobs/sha256").join(layer.digest.strip_prefix("sha256:").unwrap());
        let size = std::fs::metadata(&blob).unwrap().len();
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(&blob, vec![0; usize::try_from(size).unwrap()]).unwrap();
    }
    let built = project.build(&["-o", "type=oci,tar=false,dest=again"]);
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    assert!(built.stderr.contains("made anew"), "{}", built.stderr);
    let again = crate::harness::Image::of_layout(&project.path("again"));
    assert_eq!(before.tree().keys().collect::<Vec<_>>(), again.tree().keys().collect::<Vec<_>>());
}

#[test]
fn what_is_all_known_starts_nothing_that_could_run_a_step() {
    let project = project();
    project.dockerfile(&format!("{DOCKERFILE}RUN --mount=type=bind,target=/ctx cat /ctx/late > /mounted\nCOPY <<EOF /here\ntext\nEOF\n"));
    let build = |args: &[&str]| project.build(&[&["--log-level", "debug"], args].concat()).good().stderr;
    let (started, none) = ("started an engine", "steps: none is run");
    let first = build(&[]);
    assert!(first.contains(started) && first.contains("they are not") && !first.contains(none), "{first}");
    let second = build(&[]);
    assert!(!second.contains(started) && second.contains("they are\n") && second.contains(none), "{second}");
    assert_eq!(second.matches("CACHED").count(), 7, "{second}");
    let _late = project.file("late", "2");
    let third = build(&[]);
    assert!(third.contains(started) && third.contains(" DONE "), "{third}");
    // A step that was looked at twice is told once.
    assert_eq!(third.lines().filter(|line| line.starts_with("#1 [")).count(), 1, "{third}");
    assert!(!build(&[]).contains(started));
    assert!(build(&["--no-cache"]).contains(started));
}
