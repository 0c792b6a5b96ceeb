//! Several builds at once on one store.

use std::fs;

use crate::harness::{Image, Project, Ran};
use crate::killing::assert_no_file_is_left;

#[test]
fn four_builds_at_once_share_a_base_that_is_extracted_once() {
    let project = Project::with_busybox();
    for name in ["one", "two", "three", "four"] {
        let _file =
            project.file(&format!("{name}.Dockerfile"), format!("FROM busybox\nRUN echo shared > /shared\nRUN echo {name} > /{name}\n"));
    }
    let builds: Vec<_> = ["one", "two", "three", "four"]
        .into_iter()
        .map(|name| {
            let spec = format!("type=oci,tar=false,dest={name}");
            let file = format!("ctx/{name}.Dockerfile");
            (name, project.start_build(&["-f", &file, "-o", &spec]))
        })
        .collect();
    for (name, build) in builds {
        let _ran = Ran::of_child(name.to_owned(), build).good();
        let image = Image::of_layout(&project.path(name));
        assert!(image.tree().contains_key(name) && image.tree().contains_key("shared"));
    }
    let images = ["one", "two", "three", "four"].map(|name| Image::of_layout(&project.path(name)));
    assert!(images.iter().all(|image| image.diff_ids()[0] == images[0].diff_ids()[0]));
    // One tree for each layer, whoever made it: base, shared, and at most the four last ones.
    let base = images[0].diff_ids()[0].strip_prefix("sha256:").unwrap().to_owned();
    let domains: Vec<_> = fs::read_dir(project.store().join("trees")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let found = domains.iter().filter(|domain| domain.join(&base).is_dir()).count();
    assert_eq!(found, 1, "{domains:?}");
    assert_no_file_is_left(&project);
}

#[test]
fn the_same_build_four_times_at_once_runs_each_step_once() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\n");
    let builds: Vec<_> = (0..4).map(|at| (at, project.start_build(&["-o", &format!("type=oci,tar=false,dest=image{at}")]))).collect();
    let images: Vec<Image> = builds
        .into_iter()
        .map(|(at, build)| {
            let _ran = Ran::of_child(at.to_string(), build).good();
            Image::of_layout(&project.path(&format!("image{at}")))
        })
        .collect();
    assert!(images.iter().all(|image| image.diff_ids() == images[0].diff_ids()), "a step with a random result ran twice");
}
