//! Records and reasons, on a real store.

use std::{fs, sync::Arc};

use super::{Below, Fields, Instruction, Outcome, PathValue, Paths, Subject, Telling, look_up};
use crate::{
    oci::{DiffId, Digest},
    store::Store,
    tree::Moments,
};

/// Of an instruction that has this place and this text.
fn instruction(place: &str, text: &str) -> Instruction {
    Instruction { project: "here".into(), place: place.into(), text: text.into() }
}

fn record(
    store: &Store,
    fields: &Fields,
    place: &str,
    paths: &[(String, PathValue)],
    outcome: &Outcome,
) -> Result<(), crate::store::Error> {
    let (instruction, below) = (instruction(place, place), Below::default());
    super::record(store, &Subject { fields, instruction: &instruction, below: &below }, &told(store, paths)?, outcome)
}

fn told(store: &Store, paths: &[(String, PathValue)]) -> Result<Paths, crate::store::Error> {
    let mut telling = Telling::new(store)?;
    paths.iter().try_for_each(|(path, value)| telling.tell(path.clone(), value))?;
    telling.finish()
}

/// The lines; none: there is no earlier record.
fn explain(store: &Store, fields: &Fields, place: &str, paths: &[(String, PathValue)]) -> Result<Vec<String>, crate::store::Error> {
    let (instruction, below) = (instruction(place, place), Below::default());
    let why = super::explain(store, &Subject { fields, instruction: &instruction, below: &below }, || told(store, paths).map(Arc::new))?;
    Ok(if why == super::Why::First { Vec::new() } else { why.lines() })
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn outcome(name: &str) -> Outcome {
    Outcome { diff_id: DiffId(Digest::of(name.as_bytes())), created: "2024-01-01T00:00:00Z".into(), moments: Moments::between(5, 7) }
}

fn run(base: &str, sha: &str) -> Fields {
    Fields::new().field("image", base).field("ARG GIT_SHA", sha).field("command", "make")
}

fn paths(all: &[(&str, &str)]) -> Vec<(String, PathValue)> {
    all.iter().map(|(path, value)| ((*path).to_owned(), PathValue::parse(value))).collect()
}

#[test]
fn an_outcome_is_found_by_its_key_only() {
    let (_dir, store) = store();
    assert_eq!(look_up(&store, &run("a", "1").key()).unwrap(), None);
    record(&store, &run("a", "1"), "stage 0, RUN 1", &[], &outcome("x")).unwrap();
    assert_eq!(look_up(&store, &run("a", "1").key()).unwrap(), Some(outcome("x")));
    assert_eq!(look_up(&store, &run("a", "2").key()).unwrap(), None);
}

#[test]
fn a_miss_names_the_field_that_changed() {
    let (_dir, store) = store();
    let place = "stage 0, RUN 1";
    assert!(explain(&store, &run("a", "1"), place, &[]).unwrap().is_empty());
    record(&store, &run("a", "1"), place, &[], &outcome("x")).unwrap();
    assert_eq!(explain(&store, &run("a", "2"), place, &[]).unwrap(), ["ARG GIT_SHA: changed"]);
    assert_eq!(explain(&store, &run("b", "2"), place, &[]).unwrap(), ["image: changed", "ARG GIT_SHA: changed"]);
    assert!(explain(&store, &run("a", "2"), "stage 0, RUN 2", &[]).unwrap().is_empty());
    let other = Fields::new().field("image", "a").field("ENV B", "1").field("command", "make");
    assert_eq!(explain(&store, &other, place, &[]).unwrap(), ["ENV B: added", "ARG GIT_SHA: removed"]);
    let turned = Fields::new().field("ARG GIT_SHA", "1").field("image", "a").field("command", "make");
    assert_eq!(explain(&store, &turned, place, &[]).unwrap(), ["its parts: in another order"]);
}

#[test]
fn the_nearest_record_is_the_one_with_the_fewest_changes() {
    let (_dir, store) = store();
    record(&store, &run("a", "1"), "RUN", &[], &outcome("x")).unwrap();
    record(&store, &run("b", "7"), "RUN", &[], &outcome("y")).unwrap();
    assert_eq!(explain(&store, &run("a", "2"), "RUN", &[]).unwrap(), ["ARG GIT_SHA: changed"]);
    for sha in 0..20 {
        record(&store, &run("c", &sha.to_string()), "RUN", &[], &outcome("z")).unwrap();
    }
    assert_eq!(explain(&store, &run("a", "2"), "RUN", &[]).unwrap(), ["image: changed", "ARG GIT_SHA: changed"]);
}

#[test]
fn a_miss_names_the_paths_that_changed_instead_of_their_sum() {
    let (_dir, store) = store();
    let fields = |sum: &str| Fields::new().field("image", "a").field(super::FILES, sum);
    let before = paths(&[
        ("src/a.py", "0644:0:0:file::aa"),
        ("package-lock.json", "0644:0:0:file::bb"),
        ("gone", "0644:0:0:file::cc"),
        ("old", "0644:0:0:file::ee"),
        ("same", "0755:0:0:dir::"),
    ]);
    record(&store, &fields("1"), "COPY", &before, &outcome("x")).unwrap();
    let now = paths(&[
        ("same", "0755:0:0:dir::"),
        ("src/a.py", "0664:0:0:file::aa"),
        ("package-lock.json", "0644:0:0:file::b2"),
        ("new", "0644:0:0:file::dd"),
        ("other", "0644:0:0:file::ee"),
    ]);
    assert_eq!(
        explain(&store, &fields("2"), "COPY", &now).unwrap(),
        ["gone: removed", "new: added", "old→other: renamed", "package-lock.json: content", "src/a.py: mode 0644→0664"]
    );
    assert_eq!(explain(&store, &fields("3"), "COPY", &before).unwrap(), ["files: changed"]);
}

#[test]
fn no_value_and_no_content_digest_is_on_disk() {
    let (_dir, store) = store();
    let content = "deadbeef".repeat(8);
    record(&store, &run("the-base", "hunter2"), "RUN", &paths(&[("p", &format!("0644:0:0:file::{content}"))]), &outcome("x")).unwrap();
    let unsalted = blake3::hash(b"hunter2").to_hex();
    let mut files = 0;
    for entry in fs::read_dir(store.root().join("cache")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("hunter2") && !text.contains(&content) && !text.contains(unsalted.as_str()));
        files += 1;
    }
    assert_eq!(files, 4);
}

#[test]
fn anything_damaged_is_a_miss_and_never_an_error() {
    let (_dir, store) = store();
    let all = paths(&[("p", "0644:0:0:file::aa")]);
    for flip in 0..3 {
        record(&store, &run("a", "1"), "RUN", &all, &outcome("x")).unwrap();
        let files: Vec<_> = fs::read_dir(store.root().join("cache")).unwrap().map(|entry| entry.unwrap().path()).collect();
        for file in files {
            let mut bytes = fs::read(&file).unwrap();
            match flip {
                0 => bytes.clear(),
                1 => bytes.truncate(bytes.len() / 2),
                _ => *bytes.last_mut().unwrap() ^= 1,
            }
            fs::write(&file, bytes).unwrap();
        }
        assert_eq!(look_up(&store, &run("a", "1").key()).unwrap(), None);
        assert!(explain(&store, &run("a", "2"), "RUN", &all).unwrap().is_empty());
    }
}

#[test]
fn another_store_has_another_salt() {
    let ((_one_dir, one), (_other_dir, other)) = (store(), store());
    record(&one, &run("a", "1"), "RUN", &[], &outcome("x")).unwrap();
    record(&other, &run("a", "1"), "RUN", &[], &outcome("x")).unwrap();
    let key = run("a", "1").key().hex();
    assert_ne!(one.record(&key).unwrap(), other.record(&key).unwrap());
}

#[test]
fn an_instruction_is_known_by_its_text_where_it_stands_elsewhere() {
    let (_dir, store) = store();
    let (below, old, new) = (Below::default(), instruction("RUN 1", "RUN make"), instruction("RUN 2", "RUN make"));
    let of = |fields, instruction| Subject { fields, instruction, below: &below };
    let (one, two) = (run("a", "1"), run("b", "1"));
    super::record(&store, &of(&one, &old), &Paths::default(), &outcome("x")).unwrap();
    assert_eq!(super::explain(&store, &of(&two, &new), || told(&store, &[]).map(Arc::new)).unwrap().lines(), ["image: changed"]);
    let edited = instruction("RUN 1", "RUN make all");
    assert_eq!(super::explain(&store, &of(&two, &edited), || told(&store, &[]).map(Arc::new)).unwrap().lines(), ["image: changed"]);
    let elsewhere = Instruction { project: "there".into(), ..old.clone() };
    assert_eq!(super::explain(&store, &of(&two, &elsewhere), || told(&store, &[]).map(Arc::new)).unwrap(), super::Why::First);
}

#[test]
fn a_record_that_is_gone_is_told_as_such() {
    let (_dir, store) = store();
    let fields = run("a", "1");
    record(&store, &fields, "RUN", &[], &outcome("x")).unwrap();
    fs::remove_file(store.root().join("cache").join(fields.key().hex())).unwrap();
    assert_eq!(explain(&store, &fields, "RUN", &[]).unwrap(), ["its record is gone from the store"]);
    assert_eq!(explain(&store, &run("b", "1"), "RUN", &[]).unwrap(), ["its record is gone from the store"]);
}
