//! A context that changes while it is read.

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::harness::{Kind, Project};

/// The number of builds; the long run has 200.
fn rounds() -> usize {
    std::env::var("LAPSTRAKE_TEST_EDITS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// Content that names itself: a file whose bytes are of two editions is seen at once.
fn content(edition: usize) -> Vec<u8> {
    format!("{edition:08}\n").repeat(20_000).into_bytes()
}

#[test]
fn a_record_never_holds_bytes_that_its_key_does_not_say() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nCOPY data /data\nRUN cat /data/one /data/two > /both\n");
    let one = project.file("data/one", content(0));
    let two = project.file("data/two", content(0));
    let stop = AtomicBool::new(false);
    let mut results: Vec<(String, BTreeMap<String, Kind>)> = Vec::new();
    std::thread::scope(|scope| {
        let _editor = scope.spawn(|| {
            let mut edition = 1;
            while !stop.load(Ordering::Relaxed) {
                // In place, and by renaming: the two ways of editors.
                fs::write(&one, content(edition % 5)).unwrap();
                fs::write(two.with_extension("new"), content(edition % 5)).unwrap();
                fs::rename(two.with_extension("new"), &two).unwrap();
                edition += 1;
                // Sometimes long enough for a build, mostly not.
                std::thread::sleep(std::time::Duration::from_millis(if edition.is_multiple_of(8) { 150 } else { 3 }));
            }
        });
        let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..rounds() {
                let spec = format!("type=oci,tar=false,dest=image{round}");
                let ran = project.build(&["-o", &spec]);
                if ran.code == Some(0) {
                    let image = crate::harness::Image::of_layout(&project.path(&format!("image{round}")));
                    let files = image.tree().into_iter().filter(|(path, _)| path.starts_with("data/") || path == "both");
                    results.push((image.diff_ids()[1].to_owned(), files.map(|(path, node)| (path, node.kind)).collect()));
                } else {
                    // Edited too often in between: an error that names the file, and nothing recorded.
                    assert!(matches!(ran.code, Some(1 | 4)), "{:?}", ran.code);
                    let told = ran.stderr.contains("changed while") || ran.stderr.contains("No such file");
                    assert!(told && ran.stderr.contains("`data/"), "{}", ran.stderr);
                }
                let _removed = fs::remove_dir_all(project.path(&format!("image{round}")));
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = built {
            std::panic::resume_unwind(panic);
        }
    });
    println!("{} of {} builds came through", results.len(), rounds());
    assert!(!results.is_empty(), "no build came through: nothing was tested");
    // Nobody edits now: what the cache says of each edition is what a build without a cache makes.
    for edition in 0..5 {
        fs::write(&one, content(edition)).unwrap();
        fs::write(&two, content(edition)).unwrap();
        let _other = fs::remove_file(two.with_extension("new"));
        let warm = project.image(&[]).tree();
        let expected = crate::harness::sha256(&content(edition));
        for path in ["data/one", "data/two"] {
            assert!(matches!(&warm[path].kind, Kind::File { sha256, .. } if *sha256 == expected), "{path} of edition {edition}");
        }
        let both = crate::harness::sha256(&content(edition).repeat(2));
        assert!(matches!(&warm["both"].kind, Kind::File { sha256, .. } if *sha256 == both), "what was made of edition {edition}");
    }
    // Equal layers hold equal files, and no build copied what a RUN then saw differently.
    for (layer, files) in &results {
        let same = results.iter().filter(|(other, _)| other == layer);
        assert!(same.into_iter().all(|(_, others)| data(others) == data(files)));
    }
}

fn data(files: &BTreeMap<String, Kind>) -> Vec<(&String, &Kind)> {
    files.iter().filter(|(path, _)| path.starts_with("data/")).collect()
}
