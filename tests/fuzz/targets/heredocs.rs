//! A file with heredocs is written from random parts, so that it is known what must be read back.

#![no_main]

mod answer;

use lapstrake::dockerfile::{self, Command, CopySource, Heredoc};
use libfuzzer_sys::fuzz_target;

/// What one heredoc is made of.
struct Part<'t> {
    name: String,
    dash: bool,
    quote: &'static str,
    body: &'t str,
}

/// A name of letters from whatever there is.
fn name(byte: u8) -> String {
    ["EOF", "a", "E_1", "end.txt", "Ä", "x-y"][usize::from(byte % 6)].to_owned()
}

fn parts(text: &str) -> Vec<Part<'_>> {
    text.split('\0')
        .take(4)
        .filter_map(|part| {
            let mut bytes = part.bytes();
            let (kind, _) = (bytes.next()?, ());
            let body = part.get(1..)?;
            let quote = ["", "\"", "'"][usize::from(kind / 12 % 3)];
            Some(Part { name: name(kind), dash: kind / 6 % 2 == 1, quote, body })
        })
        .collect()
}

/// Lines as the parser sees them: carriage returns before the line feed do not count for the terminator.
fn terminates(line: &str, part: &Part<'_>) -> bool {
    let line = line.trim_end_matches(['\r', '\n']);
    let line = if part.dash { line.trim_start_matches('\t') } else { line };
    line == part.name
}

fuzz_target!(|text: &str| {
    let parts = parts(text);
    let mut file = String::from("FROM scratch\n");
    let run = text.len() % 2 == 0;
    file.push_str(if run { "RUN cat" } else { "COPY" });
    for part in &parts {
        file.push_str(&format!(" <<{}{q}{}{q}", if part.dash { "-" } else { "" }, part.name, q = part.quote));
    }
    file.push_str(if run { "\n" } else { " /to/\n" });
    let mut bodies = Vec::new();
    for part in &parts {
        let mut body: String = part.body.split_inclusive('\n').filter(|line| !terminates(line, part)).collect();
        if !body.is_empty() && !body.ends_with('\n') {
            body.push('\n');
        }
        file.push_str(&body);
        file.push_str(&format!("{}\n", part.name));
        bodies.push(body);
    }
    // Of two bodies of one name COPY takes the last one, twice, as BuildKit does.
    let meant = |index: usize| {
        let same = |other: &usize| !run && parts[*other].name == parts[index].name;
        (0..parts.len()).rev().find(same).unwrap_or(index)
    };
    file.push_str("USER last\n");
    let parsed = dockerfile::parse(&file);
    answer::check(&file, &parsed);
    if parts.is_empty() {
        return;
    }
    assert!(parsed.errors.is_empty(), "{:?} in {file:?}", parsed.errors);
    let commands = &parsed.dockerfile.stages[0].commands;
    assert_eq!(commands.len(), 2, "{file:?}");
    let heredocs: Vec<&Heredoc> = match &commands[0].command {
        Command::Run(run) => run.heredocs.iter().collect(),
        Command::Copy(copy) => {
            copy.sources.iter().filter_map(|source| if let CopySource::Inline(one) = source { Some(one) } else { None }).collect()
        }
        _ => Vec::new(),
    };
    assert_eq!(heredocs.len(), parts.len());
    for (index, heredoc) in heredocs.into_iter().enumerate() {
        let (part, body) = (&parts[index], &bodies[meant(index)]);
        let body = if part.dash && !run { &dockerfile::without_tabs(body) } else { body };
        assert_eq!((&heredoc.name, heredoc.expand, heredoc.chomp), (&part.name, part.quote.is_empty(), part.dash));
        assert_eq!(&heredoc.content, body);
    }
});
