//! What a user sees of what is wrong: two catalogues of Dockerfiles with their messages beside them.
//!
//! `testdata/parse` holds whole files, with all that the parser says about each. `testdata/messages` holds one file of cases for each
//! topic, built by the program; what it said stands in the snapshot of the same name.

use std::{fmt::Write as _, fs, path::Path};

use lapstrake::diag::{Source, render};
use lapstrake::dockerfile::parse;

use crate::harness::{Project, need, sources};

/// The files of a folder with that extension, in order, with their stems.
fn files(folder: &Path, extension: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == extension));
    files.sort();
    assert!(!files.is_empty());
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (stem(path), fs::read_to_string(path).unwrap())).collect()
}

fn beside(folder: &Path, check: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(check);
}

#[test]
fn mistakes_are_shown_with_their_place_and_what_to_do() {
    let folder = sources().join("testdata/parse");
    beside(&folder, || {
        for (name, text) in files(&folder, "Dockerfile") {
            let source = Source { name: "Dockerfile".to_owned(), text };
            let parsed = parse(&source.text);
            let shown: Vec<String> = parsed.errors.iter().chain(&parsed.warnings).map(|one| render(&source, one)).collect();
            insta::assert_snapshot!(name, shown.join("\n"));
        }
    });
}

/// The topic whose mistakes are not all errors.
const WITH_WARNINGS: &str = "web-page";

/// One case of a catalogue.
#[derive(Default)]
struct Case {
    /// What it is about.
    title: String,
    /// `build` and its arguments.
    line: Option<String>,
    /// Paths and texts of the context.
    files: Vec<(String, String)>,
    /// The Dockerfile.
    text: String,
    /// Do warnings count? Each rule of the linter has its own tests.
    warnings: bool,
}

impl Case {
    /// `=== TITLE`, then a command line behind `$ `, then files of the context as `+ PATH TEXT`, then the Dockerfile.
    fn all(topic: &str, catalogue: &str) -> Vec<Self> {
        let mut cases: Vec<Self> = Vec::new();
        for line in catalogue.lines() {
            if let Some(title) = line.strip_prefix("=== ") {
                cases.push(Self { title: title.to_owned(), warnings: topic == WITH_WARNINGS, ..Self::default() });
                continue;
            }
            let Some(case) = cases.last_mut() else { continue };
            if let (Some(command), "") = (line.strip_prefix("$ "), case.text.as_str()) {
                case.line = Some(command.to_owned());
            } else if let (Some(file), "") = (line.strip_prefix("+ "), case.text.as_str()) {
                let (path, text) = file.split_once(' ').unwrap_or((file, ""));
                case.files.push((path.to_owned(), text.replace("\\n", "\n")));
            } else {
                case.text.push_str(line);
                case.text.push('\n');
            }
        }
        for case in &mut cases {
            case.text.truncate(case.text.trim_end().len());
        }
        cases
    }

    /// What the program says, and how it ends.
    fn said(&self, project: &Project) -> String {
        let _old = fs::remove_dir_all(project.context());
        for (path, text) in &self.files {
            let _file = project.file(path, text);
        }
        if !self.text.is_empty() {
            project.dockerfile(&format!("{}\n", self.text));
        }
        fs::create_dir_all(project.context()).unwrap();
        let line = self.line.as_deref().unwrap_or("build .");
        // Quiet progress has no warnings; what plain progress has besides is no message.
        let progress = if self.warnings { "plain" } else { "quiet" };
        let is_progress = |line: &&str| ["built ", "steps: ", "#", "   "].iter().any(|start| line.starts_with(start));
        let mut command = project.command(line.split(' ').chain(["--progress", progress]));
        let ran = crate::harness::output_of(command.current_dir(project.context()));
        let mut said = String::new();
        let mut is_warning = false;
        for line in ran.stderr.lines().filter(|line| !is_progress(line)) {
            is_warning = line.starts_with("warning") || (is_warning && !line.starts_with("error"));
            if self.warnings || !is_warning {
                said.extend([line, "\n"]);
            }
        }
        format!("{}\nexit code: {}\n", said.trim_end(), ran.code.unwrap_or(-1))
    }

    fn shown(&self, project: &Project) -> String {
        let mut shown = format!("=== {}\n\n", self.title);
        if let Some(line) = &self.line {
            let _written = writeln!(shown, "    $ lapstrake {line}");
        }
        for (path, text) in &self.files {
            let _written = writeln!(shown, "    + {path}: {text:?}");
        }
        for line in self.text.lines() {
            let _written = writeln!(shown, "    {line}");
        }
        shown + "\n" + &self.said(project)
    }
}

#[test]
fn every_mistake_of_the_catalogue_has_its_message() {
    if need("busybox").is_none() {
        return;
    }
    let folder = sources().join("testdata/messages");
    let topics = files(&folder, "cases");
    let catalogues: Vec<(String, String)> = std::thread::scope(|scope| {
        let started: Vec<_> = topics
            .iter()
            .map(|(topic, text)| {
                let work = scope.spawn(|| {
                    let mut project = Project::with_busybox();
                    // No registry is there to ask, on any machine.
                    project.variable("HTTPS_PROXY", "http://127.0.0.1:1");
                    Case::all(topic, text).iter().map(|case| case.shown(&project)).collect::<Vec<_>>().join("\n")
                });
                (topic.clone(), work)
            })
            .collect();
        started.into_iter().map(|(topic, work)| (topic, work.join().unwrap())).collect()
    });
    beside(&folder, || {
        for (topic, catalogue) in catalogues {
            insta::assert_snapshot!(topic, catalogue);
        }
    });
}

/// What can be read of the catalogue by a machine: no error is without its place and its next step.
#[test]
fn every_error_of_the_catalogue_has_a_place_and_a_next_step() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (topic, catalogue) in files(&sources().join("testdata/messages"), "snap") {
        for case in catalogue.split("\n=== ").skip(1) {
            let (title, rest) = case.split_once('\n').unwrap();
            for error in rest.split("\nerror: ").skip(1) {
                count += 1;
                let has_place = error.lines().any(|line| line.trim_start().starts_with("--> "));
                let has_help = error.lines().any(|line| line.trim_start().starts_with("= help: "));
                // What is wrong with the command line has no place in a file.
                let headline = error.lines().next().unwrap_or_default();
                let of_the_command_line = rest.contains("\nexit code: 2") || headline.contains("`--");
                if !has_help || !(has_place || of_the_command_line) {
                    wrong.push(format!("{topic}: {title}: {headline}"));
                }
            }
        }
    }
    assert!(count > 100, "{count}");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
