//! The parser under any input, and against two other parsers where those are right.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use lapstrake::dockerfile::{self, Command, CommandLine, CopySource, Parsed, parse};
use lapstrake::{diag, pattern};
use proptest::prelude::*;

/// Pieces that mean something to the parser, so that random texts reach its corners.
const PIECES: &[&str] = &[
    "FROM ",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "ARG ",
    "LABEL ",
    "ONBUILD ",
    "HEALTHCHECK ",
    "CMD ",
    "SHELL ",
    "VOLUME ",
    "EXPOSE ",
    "a",
    "=",
    " ",
    "\t",
    "\\",
    "\\\n",
    "`",
    "`\n",
    "\n",
    "\r\n",
    "\r",
    "\"",
    "'",
    "[",
    "]",
    "{",
    "}",
    ",",
    "$",
    "${",
    "${a:-",
    "${a//",
    "<<",
    "<<EOF",
    "<<-'E F'",
    "\nEOF\n",
    "#",
    "# escape=`\n",
    "# syntax=x\n",
    "# check=skip=all\n",
    "--",
    "--mount=",
    "--from=",
    "--chown=",
    "--interval=",
    "1",
    "0x",
    "9999999999999999999",
    "é",
    "“",
    "\u{a0}",
    "\u{feff}",
    "\0",
    "\u{1b}",
    "\\ud800",
    "\"\\u00",
    "null",
    "1e999",
    "AS ",
    "type=cache,target=/x",
    "NONE",
];

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(PIECES).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..60).prop_map(|pieces| pieces.concat())
}

/// What must hold of every answer.
fn check(text: &str, parsed: &Parsed) {
    let source = diag::Source { name: "f".to_owned(), text: text.to_owned() };
    for diagnostic in parsed.errors.iter().chain(&parsed.warnings) {
        for label in &diagnostic.labels {
            let range = label.span.start as usize..label.span.end as usize;
            assert!(text.get(range).is_some(), "{:?} is not in the text", label.span);
        }
        let shown = diag::render(&source, diagnostic);
        assert!(!shown.contains('\x1b'), "an escape sequence reaches the terminal");
        assert!(shown.ends_with('\n') && shown.lines().nth(1).is_some_and(|line| line.contains("--> f:")), "{shown}");
    }
    assert!(parsed.errors.windows(2).all(|pair| pair[0].span().start <= pair[1].span().start), "errors are out of order");
    assert_eq!(parsed.errors.is_empty(), parsed.stop.is_none());
    let json = dockerfile::json::to_json(parsed);
    assert_eq!(json["ok"], parsed.errors.is_empty());
    for instruction in parsed.dockerfile.stages.iter().flat_map(|stage| &stage.commands) {
        let keyword = &instruction.keyword;
        assert_eq!(text.get(keyword.span.start as usize..keyword.span.start as usize + 1), keyword.text.get(..1));
        assert!(instruction.lines.0 <= instruction.lines.1 && instruction.span.start <= instruction.span.end);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in text()) {
        check(&text, &parse(&text));
        let with_base = format!("FROM a\n{text}");
        check(&with_base, &parse(&with_base));
    }

    #[test]
    fn no_word_makes_the_lexer_panic(text in text(), escape in prop::sample::select(vec!['\\', '`']), switches in 0_u8..16) {
        let mode = dockerfile::Mode {
            skip_unset: switches & 1 > 0, raw_quotes: switches & 2 > 0, raw_escapes: switches & 4 > 0, skip_quotes: switches & 8 > 0,
        };
        let look_up = |name: &str| (name.len() < 2).then(|| "a\\*b/a".to_owned());
        let word = dockerfile::expand(&text, escape, mode, &look_up);
        let words = dockerfile::expand_words(&text, escape, mode, &look_up);
        prop_assert_eq!(word.is_ok(), words.is_ok());
        let _ignored = dockerfile::parse_mount(&text);
        let _ignored = dockerfile::expand_mount(&text, escape, &look_up);
    }

    #[test]
    fn no_pattern_makes_the_matcher_panic(text in "[]a*?/\\[^!.\\\\é-]{0,12}", path in "[a^\\[é]{1,3}(/[ab.^\\[é]{1,3}){0,3}") {
        let _ignored = pattern::matches(text.as_bytes(), path.as_bytes());
        if let Ok(list) = pattern::PatternList::compile(&[text, "!a/b".to_owned()]) {
            // What is taken back below a directory is announced for the directory; only clean paths are promised that.
            let clean = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if clean && list.excludes(path.as_bytes()) && !list.excludes(format!("{path}/b").as_bytes()) {
                prop_assert!(list.may_reinclude_below(path.as_bytes()));
            }
        }
    }

    #[test]
    fn a_word_in_a_continued_line_knows_its_place(words in prop::collection::vec("[a-z]{1,6}", 2..6), blanks in "( |\t|\\\\\n|\\\\\n# c\n|\\\\ \r\n){1,4}") {
        let glue = format!(" {blanks}");
        let text = format!("FROM x\nCOPY {}{glue}/dest\n", words.join(&glue));
        let parsed = parse(&text);
        prop_assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
        let Command::Copy(copy) = &parsed.dockerfile.stages[0].commands[0].command else { panic!("not a COPY") };
        prop_assert_eq!(copy.sources.len(), words.len());
        for source in &copy.sources {
            let CopySource::Path(word) = source else { panic!("not a path") };
            prop_assert_eq!(text.get(word.span.start as usize..word.span.end as usize), Some(word.text.as_str()));
        }
    }
}

/// The processor's time of this thread: what else the machine does is no fault of the parser's.
fn clock() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap()
}

/// Reads it, gives it its meaning and asks all rules.
fn timed(name: &str, text: &str) {
    let start = clock();
    let parsed = parse(text);
    let mut json = dockerfile::json::to_json(&parsed);
    lapstrake::lint::describe(text, &parsed, json.as_object_mut().unwrap());
    let taken = clock().saturating_sub(start);
    println!("{name}: {taken:?}");
    assert!(taken < Duration::from_secs(10), "{name} took {taken:?}");
}

#[test]
fn hostile_files_cost_no_more_than_their_size() {
    let many = |piece: &str, count: usize| piece.repeat(count);
    timed("nested ONBUILD", &format!("FROM a\n{}", many("ONBUILD ", 100_000)));
    timed("nested substitutions", &format!("FROM a\nRUN <<{}\n", many("${a:-", 10_000)));
    timed("continued substitutions", &format!("FROM a\nRUN << {}\n", many("${a:-\\\n", 100_000)));
    timed("heredocs", &format!("FROM a\nRUN {}\n", many("<<a ", 10_000)));
    timed("junk", &many("x\n", 300_000));
    timed("no stage", &many("RUN x\n", 100_000));
    timed("bad pairs", &many("ENV a=b c\n", 100_000));
    timed("comments", &format!("{}ARG {}\nFROM a\n", many("# c c\n", 20_000), many("a ", 5_000)));
    timed("flags", &format!("FROM a\nCOPY {} a b\n", many("--exclude=a ", 50_000)));
    timed("brackets", &format!("FROM a\nCMD {}\n", many("[", 60_000)));
    timed("continuations", &format!("FROM a\nRUN {}\n", many("a \\\n", 300_000)));
    timed("blank lines", &many("RUN a \\\n\n\n", 50_000));
    timed("stray heredocs", &many("CMD <<A\nfoo\n", 50_000));
}

#[test]
fn what_stands_beside_much_else_costs_no_product_of_both() {
    let many = |count: usize, piece: &dyn Fn(usize) -> String| (0..count).map(piece).collect::<String>();
    let globals = many(20_000, &|number| format!("ARG a{number}=1\n"));
    timed("stages and global ARGs", &format!("{globals}{}", "FROM a\n".repeat(20_000)));
    timed("unset names in FROM", &format!("{globals}{}", "FROM a$unset\n".repeat(20_000)));
    timed("unset names in one word", &format!("FROM a\n{globals}USER {}\n", many(8_000, &|number| format!("$u{number}"))));
    let comments = "#a\n".repeat(100_000);
    let skip = "# check=skip=SecretsUsedInArgOrEnv\n";
    timed("rules below comments", &format!("FROM a\n{comments}{skip}ARG {}\n", many(4_000, &|number| format!("key_{number} "))));
    timed("blanks in names below comments", &format!("FROM a\n{comments}ARG {}\n", many(4_000, &|number| format!("\"k {number}\" "))));
}

#[test]
fn a_value_that_doubles_with_every_line_is_stopped() {
    let mut value = "0123456789".to_owned();
    let result = (0..64).try_for_each(|_| {
        let before = value.clone();
        value = dockerfile::expand("$a$a", '\\', dockerfile::Mode::default(), &|_| Some(before.clone()))?.text;
        Ok::<(), dockerfile::ExpandError>(())
    });
    assert!(result.is_err() && value.len() < 4 << 20);
}

#[test]
fn a_line_above_the_limit_is_an_error_and_one_at_the_limit_is_not() {
    let line = |length: usize| format!("FROM a\nRUN {}\n", "x".repeat(length - 4));
    assert!(parse(&line(65_535)).errors.is_empty());
    let long = parse(&line(65_536));
    assert_eq!(long.errors.len(), 1);
    assert_eq!(long.stop.unwrap().phase, dockerfile::Phase::Parse);
}

/// The lower-cased keywords of a file as we read it.
fn keywords(parsed: &Parsed) -> Vec<String> {
    let file = &parsed.dockerfile;
    let stages = file
        .stages
        .iter()
        .flat_map(|stage| std::iter::once("from".to_owned()).chain(stage.commands.iter().map(|one| one.keyword.text.to_lowercase())));
    file.meta_args.iter().map(|_| "arg".to_owned()).chain(stages).collect()
}

/// Files that the other parsers can be trusted with: nothing newer than 2018 in them.
fn plain_files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/parse/real");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "Dockerfile") {
            let text = std::fs::read_to_string(&path).unwrap();
            if !["<<", "--mount", "escape=", "\u{feff}", "\r"].iter().any(|new| text.contains(new)) {
                files.push((path.display().to_string(), text));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn two_other_parsers_see_the_same_instructions_where_they_are_right() {
    let files = plain_files();
    let (mut first, mut second, mut wrong) = (0, 0, String::new());
    for (name, text) in &files {
        let parsed = parse(text);
        if !parsed.errors.is_empty() {
            continue;
        }
        let ours = keywords(&parsed);
        if let Ok(theirs) = parse_dockerfile::parse(text) {
            let theirs: Vec<String> = theirs.instructions.iter().map(|one| instruction_name(&format!("{one:?}"))).collect();
            first += 1;
            if theirs != ours {
                let _infallible = writeln!(wrong, "parse-dockerfile: {name}: {theirs:?}, ours {ours:?}");
            }
        }
        if let Ok(theirs) = dockerfile_parser::Dockerfile::parse(text) {
            second += 1;
            if theirs.instructions.len() != ours.len() {
                let _infallible =
                    writeln!(wrong, "dockerfile-parser: {name}: {} instructions, ours {}", theirs.instructions.len(), ours.len());
            }
        }
    }
    println!("{} files, parse-dockerfile read {first}, dockerfile-parser {second}", files.len());
    assert!(wrong.is_empty(), "{wrong}");
    assert!(files.is_empty() || (first > 50 && second > 50));
}

/// `Run(RunInstruction {…` → `run`.
fn instruction_name(debug: &str) -> String {
    debug.split(|ch: char| !ch.is_alphanumeric()).next().unwrap_or_default().to_lowercase()
}

#[test]
fn a_heredoc_that_was_not_read_has_its_place_behind_its_word() {
    // The quote keeps the line's words from being read, so that no body is.
    let text = "FROM a\nCOPY <<EOF 'h\nEOF\n";
    let parsed = parse(text);
    let Command::Copy(copy) = &parsed.dockerfile.stages[0].commands[0].command else { panic!("not a COPY") };
    let CopySource::Inline(heredoc) = &copy.sources[0] else { panic!("not a heredoc") };
    assert_eq!((heredoc.content.as_str(), heredoc.span), ("", diag::Span::new(17, 17)));
}

#[test]
fn an_exec_form_with_a_stray_quote_is_a_shell_form() {
    let parsed = parse("FROM a\nCMD ['x']\n");
    let Command::Cmd(CommandLine::Shell(word)) = &parsed.dockerfile.stages[0].commands[0].command else { panic!("not a shell form") };
    assert_eq!(word.text, "['x']");
}

#[test]
fn the_line_level_comes_first_though_all_errors_are_told_in_order() {
    let parsed = parse("FROM a\nCOPPY a b\nENV A\nWORKDIR\n");
    let lines = |index: usize| parsed.errors[index].span().start;
    assert_eq!(parsed.errors.len(), 3);
    assert!(lines(0) < lines(1) && lines(1) < lines(2));
    // BuildKit would stop at the ENV, which it reads before it knows any instruction.
    let stop = parsed.stop.clone().unwrap();
    assert_eq!((stop.index, stop.phase), (1, dockerfile::Phase::Parse));
    let json = dockerfile::json::to_json(&parsed);
    assert_eq!(json["error_lines"], serde_json::json!([3, 3]));
    assert_eq!(json["errors"].as_array().unwrap().len(), 2);
}

#[test]
fn a_bad_directive_is_named_as_such() {
    for text in ["# escape=x\nFROM a\n", "# syntax=a\n# syntax=b\nFROM a\n"] {
        let json = dockerfile::json::to_json(&parse(text));
        assert_eq!((&json["ok"], &json["phase"]), (&serde_json::json!(false), &serde_json::json!("parse")));
        assert_eq!(json["directives_error"], json["error"]);
    }
}

#[test]
fn the_value_of_a_mount_may_hold_what_separates_fields_once_it_is_expanded() {
    let look_up = |name: &str| (name == "A").then(|| "x,ro=false".to_owned());
    let mount = dockerfile::expand_mount("type=bind,target=/$A", '\\', &look_up).unwrap();
    assert_eq!(mount.target.as_deref(), Some("/x,ro=false"));
    assert!(mount.readonly);
}
