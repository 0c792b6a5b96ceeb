//! The shape of the source: the table of rooms in ARCHITECTURE.md is what the code does, every file says what it
//! owns, and none is long.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::harness::{rust_files, skipped, sources};

/// Code lines a file may have.
const LONGEST: usize = 600;

/// A test of the sources needs the sources.
fn files() -> Option<Vec<PathBuf>> {
    let mut files = Vec::new();
    for top in ["src", "tests"] {
        files.extend(rust_files(&sources().join(top)));
    }
    if files.is_empty() {
        skipped("the sources are not readable here");
        return None;
    }
    files.sort();
    Some(files)
}

/// The room a file is in: `src/store/blob.rs` and `src/store.rs` are `store`'s.
fn room(file: &Path) -> Option<String> {
    let below = file.strip_prefix(sources().join("src")).ok()?;
    let first = below.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

/// Room → rooms it may name, of the table in ARCHITECTURE.md.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(sources().join("ARCHITECTURE.md")).unwrap();
    let rows: Vec<(String, String)> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
            Some((name.to_owned(), (*cells.get(3)?).to_owned()))
        })
        .collect();
    let all: BTreeSet<String> = rows.iter().map(|(name, _)| name.clone()).collect();
    let words = |cell: &str| cell.split([',', ' ']).map(|word| word.trim_matches('`').to_owned()).collect::<BTreeSet<_>>();
    rows.into_iter()
        .map(|(name, cell)| {
            let may = if cell.starts_with("all") { all.clone() } else { words(&cell).intersection(&all).cloned().collect() };
            (name, may)
        })
        .collect()
}

/// The text without comments and without the inside of strings, so that only code is looked at.
fn code(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("//") {
            continue;
        }
        // Between quotes is text. A string over several lines is rare; what follows it on its last line is lost, not misread.
        out.extend(line.split(" // ").next().unwrap_or(line).split('"').step_by(2));
        out.push('\n');
    }
    out
}

/// The rooms that a file names: `crate::room…`, `crate::{room…, room…}`.
fn named(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for symbol in group.chars() {
                match symbol {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        let _new = names.insert(first_word(&word));
                        word.clear();
                        continue;
                    }
                    _ => {}
                }
                word.push(symbol);
            }
            let _new = names.insert(first_word(&word));
        } else {
            let _new = names.insert(first_word(rest));
        }
    }
    let _empty = names.remove("");
    names
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|symbol| symbol.is_alphanumeric() || *symbol == '_').collect()
}

#[test]
fn a_room_names_only_the_rooms_of_its_row() {
    let Some(files) = files() else { return };
    let table = table();
    assert!(table.len() > 15, "the table of rooms was not found");
    let mut wrong = Vec::new();
    for file in files {
        let Some(room) = room(&file) else { continue };
        let Some(may) = table.get(&room) else {
            wrong.push(format!("{}: the room `{room}` is not in the table", file.display()));
            continue;
        };
        for name in named(&fs::read_to_string(&file).unwrap()) {
            // What is re-exported at the top, `crate::Error` and `crate::Kind`, is the room `error`.
            let name = if matches!(name.as_str(), "Error" | "Kind") { "error".to_owned() } else { name };
            if name != room && table.contains_key(&name) && !may.contains(&name) {
                wrong.push(format!("{}: `{room}` may not name `{name}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_of_the_table_is_there_and_the_other_way_round() {
    let Some(files) = files() else { return };
    let rooms: BTreeSet<String> = files.iter().filter_map(|file| room(file)).collect();
    let table: BTreeSet<String> = table().into_keys().collect();
    assert_eq!(table, rooms);
}

#[test]
fn every_file_begins_with_what_it_owns() {
    let Some(files) = files() else { return };
    let silent: Vec<_> =
        files.iter().filter(|file| !file.ends_with("src/lib.rs") && !fs::read_to_string(file).unwrap().starts_with("//! ")).collect();
    assert!(silent.is_empty(), "no `//!` at the top: {silent:?}");
}

#[test]
fn no_file_is_long() {
    let Some(files) = files() else { return };
    let mut long = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        // Without comments, blank lines, and a test module at the end.
        let body = text.split("#[cfg(test)]\nmod ").next().unwrap_or(&text);
        let lines = body.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        if lines > LONGEST {
            long.push(format!("{}: {lines}", file.display()));
        }
    }
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let Some(files) = files() else { return };
    let empty = ["util", "utils", "common", "helper", "helpers", "misc", "types", "manager"];
    let found: Vec<_> = files.iter().filter(|file| file.file_stem().is_some_and(|stem| empty.iter().any(|name| stem == *name))).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_reader_of_names_sees_every_form() {
    let text = "use crate::{oci::{Digest, DiffId}, store::Store,\n    tree};\nlet x = crate::layer::read(); // crate::front\n/// crate::cli\nlet y = \"crate::sys\";";
    let names: Vec<String> = named(text).into_iter().collect();
    assert_eq!(names, ["layer", "oci", "store", "tree"]);
}
