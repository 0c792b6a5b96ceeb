//! What a user sees of a Dockerfile with mistakes: every file of `testdata/parse` with its messages beside it.

use std::path::Path;

use lapstrake::diag::{Source, render};
use lapstrake::dockerfile::parse;

#[test]
fn mistakes_are_shown_with_their_place_and_what_to_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/parse");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "Dockerfile"));
    files.sort();
    assert!(!files.is_empty());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for path in files {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let source = Source { name: "Dockerfile".to_owned(), text: std::fs::read_to_string(&path).unwrap() };
            let parsed = parse(&source.text);
            let shown: Vec<String> = parsed.errors.iter().chain(&parsed.warnings).map(|one| render(&source, one)).collect();
            insta::assert_snapshot!(name, shown.join("\n"));
        }
    });
}
