//! What must hold of every answer of the parser and of every message.

use lapstrake::{
    diag::{self, Diagnostic, Source, Span},
    dockerfile::{self, Command, CopySource, Instruction, Parsed, Word},
};

/// All that is promised of a parsed text.
pub fn check(text: &str, parsed: &Parsed) {
    messages(text, parsed.errors.iter().chain(&parsed.warnings));
    assert!(parsed.errors.is_sorted_by_key(|error| error.span().start), "errors are out of order");
    assert_eq!(parsed.errors.is_empty(), parsed.stop.is_none());
    json(text, parsed);
    let file = &parsed.dockerfile;
    for stage in &file.stages {
        within(text, stage.span);
        for word in [Some(&stage.base), stage.name.as_ref(), stage.platform.as_ref()].into_iter().flatten() {
            within(text, word.span);
        }
        lines(text, stage.lines);
    }
    file.directives.iter().for_each(|directive| word(text, &directive.value));
    file.meta_args.iter().chain(file.stages.iter().flat_map(|stage| &stage.commands)).for_each(|one| instruction(text, one));
    // Instructions stand in the order of the file and do not overlap.
    let spans: Vec<Span> =
        file.stages.iter().flat_map(|stage| [stage.span].into_iter().chain(stage.commands.iter().map(|one| one.span))).collect();
    assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start), "instructions overlap: {spans:?}");
}

/// Every place is in the text, and drawing a message never fails.
pub fn messages<'d>(text: &str, messages: impl Iterator<Item = &'d Diagnostic>) {
    let source = Source { name: "f".to_owned(), text: text.to_owned() };
    for (index, message) in messages.enumerate() {
        message.labels.iter().for_each(|label| within(text, label.span));
        assert!(!message.headline.is_empty());
        // Drawing is the slow part.
        if index < 4 {
            let shown = diag::render(&source, message);
            assert!(shown.ends_with('\n') && !shown.contains('\x1b'), "{shown:?}");
        }
    }
}

/// A span is in the text and ends on borders of characters.
fn within(text: &str, span: Span) {
    assert!(text.get(span.start as usize..span.end as usize).is_some(), "{span:?} is not in the text");
}

fn word(text: &str, word: &Word) {
    within(text, word.span);
}

/// Lines are those of the text, 1-based.
fn lines(text: &str, (first, last): (u32, u32)) {
    let count = text.split_inclusive('\n').count();
    assert!(1 <= first && first <= last && last as usize <= count, "lines {first} to {last} of {count}");
}

fn instruction(text: &str, one: &Instruction) {
    within(text, one.span);
    lines(text, one.lines);
    let keyword = &one.keyword;
    within(text, keyword.span);
    assert!(one.span.start <= keyword.span.start && keyword.span.end <= one.span.end);
    assert!(one.original.len() <= text.len());
    let (words, heredocs): (Vec<&Word>, Vec<&dockerfile::Heredoc>) = match &one.command {
        Command::Run(run) => {
            (run.mounts.iter().chain(&run.network).chain(&run.security).chain(&run.devices).collect(), run.heredocs.iter().collect())
        }
        Command::Copy(copy) => copied(copy),
        Command::Add(add) => copied(&add.copy),
        Command::Env(pairs) | Command::Label(pairs) => (pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).collect(), Vec::new()),
        Command::Arg(args) => (args.iter().flat_map(|arg| std::iter::once(&arg.key).chain(&arg.value)).collect(), Vec::new()),
        Command::Expose(words) | Command::Volume(words) => (words.iter().collect(), Vec::new()),
        Command::Maintainer(word) | Command::Onbuild(word) | Command::Stopsignal(word) | Command::User(word) | Command::Workdir(word) => {
            (vec![word], Vec::new())
        }
        Command::Cmd(_) | Command::Entrypoint(_) | Command::Healthcheck(_) | Command::Shell(_) => (Vec::new(), Vec::new()),
    };
    words.into_iter().for_each(|own| word(text, own));
    for heredoc in heredocs {
        let body = text.get(heredoc.span.start as usize..heredoc.span.end as usize).expect("a body is in the text");
        assert!(one.span.start <= heredoc.span.start && heredoc.span.end <= one.span.end);
        assert!(heredoc.content == body || heredoc.chomp, "{heredoc:?} is not {body:?}");
    }
}

fn copied(copy: &dockerfile::Copy) -> (Vec<&Word>, Vec<&dockerfile::Heredoc>) {
    let mut words: Vec<&Word> =
        [&copy.from, &copy.chown, &copy.chmod].into_iter().flatten().chain(&copy.exclude).chain([&copy.dest]).collect();
    let mut heredocs = Vec::new();
    for source in &copy.sources {
        match source {
            CopySource::Path(word) => words.push(word),
            CopySource::Inline(heredoc) => heredocs.push(heredoc),
        }
    }
    (words, heredocs)
}

/// The JSON form can be written and read back, its lines are those of the text, and it is not much larger than the text.
fn json(text: &str, parsed: &Parsed) {
    let value = dockerfile::json::to_json(parsed);
    assert_eq!(value["ok"], parsed.errors.is_empty());
    let written = serde_json::to_string(&value).expect("it can be written");
    // Each byte stands in it at most six times (the tree, the stages, `original`, `rest`), as `\u0000`; each line has a frame.
    let frames = text.split('\n').count() + text.split_ascii_whitespace().count() + text.matches(',').count();
    assert!(written.len() <= 36 * text.len() + 400 * frames + 2000, "{} bytes make {} bytes of JSON", text.len(), written.len());
    assert_eq!(serde_json::from_str::<serde_json::Value>(&written).expect("it can be read"), value);
    if let Some(lines) = value["error_lines"].as_array() {
        let [first, last] = [0, 1].map(|index| lines[index].as_u64().expect("a number"));
        // BuildKit counts one line too few for a directive; an empty file has line 0.
        assert!(first <= last && last <= text.split_inclusive('\n').count() as u64, "error lines {first} to {last}");
    }
}
