//! `docs/attacks.md` against the tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::harness::{rust_files, skipped, sources};

/// A row: its group, and the tests that hold it.
struct Row {
    group: usize,
    tests: Vec<String>,
}

fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, group, _, _, held, _] = cells[..] else { continue };
        let Ok(group) = group.parse() else { continue };
        // Every other piece is between backquotes; a test's name has a module before it.
        let tests = held.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).map(str::to_owned).collect();
        rows.push(Row { group, tests });
    }
    rows
}

/// Every test below a directory of the sources, with its modules: `suite::killing::ctrl_c_…`.
fn tests_of(top: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    for file in rust_files(top) {
        let modules = file.strip_prefix(top).unwrap().with_extension("");
        let modules = modules.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
        let path: Vec<String> = modules.filter(|name| !matches!(name.as_str(), "mod" | "main")).collect();
        let text = fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("#[test]") {
            let after = text.get(at..).unwrap_or_default();
            let Some((_, name)) = after.split_once("fn ") else { continue };
            let name: String = name.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            let _new = found.insert([&[prefix.to_owned()], path.as_slice(), &[name]].concat().join("::"));
        }
        // The sandbox's own harness lists its cases by name.
        if prefix == "sandbox" {
            for (at, _) in text.match_indices("\nfn ") {
                let name: String = text.get(at + 4..).unwrap_or_default().chars().take_while(|letter| *letter != '(').collect();
                let _new = found.insert([&[prefix.to_owned()], path.as_slice(), &[name]].concat().join("::"));
            }
        }
    }
}

#[test]
fn every_group_is_held_by_tests_that_exist() {
    let top = sources();
    let Ok(text) = fs::read_to_string(top.join("docs/attacks.md")) else {
        skipped("the sources are not readable here");
        return;
    };
    let mut tests = BTreeSet::new();
    for (dir, prefix) in [("tests/suite", "suite"), ("tests/sandbox", "sandbox"), ("src", "lapstrake")] {
        tests_of(&top.join(dir), prefix, &mut tests);
    }
    let rows = rows(&text);
    let named: BTreeSet<String> = rows.iter().flat_map(|row| row.tests.clone()).collect();
    let missing: Vec<&String> = named.iter().filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/attacks.md names tests that are not there: {missing:#?}");
    let own = |name: &&String| name.starts_with("suite::hostile::") && !name.starts_with("suite::hostile::table::");
    let unnamed: Vec<&String> = tests.iter().filter(own).filter(|name| !named.contains(*name)).collect();
    assert!(unnamed.is_empty(), "docs/attacks.md does not name {unnamed:#?}");
    let mut groups: BTreeMap<usize, usize> = BTreeMap::new();
    for row in &rows {
        assert!(
            !row.tests.is_empty() || text.contains(&format!("{}: does not apply", row.group)),
            "group {} has a row without a test",
            row.group
        );
        *groups.entry(row.group).or_default() += 1;
    }
    assert!(groups.keys().copied().eq(1..=35), "groups: {groups:?}");
    let summary = format!("hostile: {} groups, {} attacks in the table, {} tests, all there\n", groups.len(), rows.len(), named.len());
    let _seen = std::io::Write::write_all(&mut std::io::stdout(), summary.as_bytes());
}
