//! The JSON form of a parsed file, for editors and checks.
//!
//! Keys whose value would be false, empty or unset are left out, except where their absence would mean something.

use serde_json::{Map, Value, json};

use super::ast::{Add, ArgDeclaration, Command, CommandLine, Copy, CopySource, Healthcheck, Instruction, KeyValue, Run, Stage, Word};
use super::mount::{parse_mount, word_of};
use super::node::{Node, Phase};
use super::{Parsed, Stop};

/// The whole answer; `ok` says whether the file is accepted.
pub fn to_json(parsed: &Parsed) -> Value {
    let mut out = Map::new();
    let file = &parsed.dockerfile;
    let directives: Vec<Value> =
        file.directives.iter().map(|one| json!({"name": one.name, "value": one.value.text, "line": one.line})).collect();
    out.insert("directives".to_owned(), json!(directives));
    if let Some(syntax) = file.directives.iter().find(|one| one.name == "syntax") {
        out.insert("syntax".to_owned(), json!(syntax.value.text));
    }
    present(&mut out, "directives_error", json!(parsed.level.bad_directive));
    out.insert("ok".to_owned(), json!(parsed.errors.is_empty()));
    if let Some(stop) = &parsed.stop {
        rejected(&mut out, parsed, stop);
    }
    if parsed.stop.as_ref().is_some_and(|stop| stop.phase == Phase::Parse) {
        return Value::Object(out);
    }
    out.insert("escape".to_owned(), json!(file.escape.0.to_string()));
    let warnings: Vec<Value> = parsed
        .level
        .blanks
        .iter()
        .map(|blank| json!({"lines": [blank.line, blank.line], "text": format!("Empty continuation line found in: {}", blank.text)}))
        .collect();
    present(&mut out, "warnings", json!(warnings));
    out.insert("ast".to_owned(), parsed.level.nodes().iter().map(|one| node(one, false)).collect());
    if parsed.stop.is_none() {
        out.insert("meta_args".to_owned(), file.meta_args.iter().map(meta_arg).collect());
        out.insert("stages".to_owned(), file.stages.iter().map(stage).collect());
    }
    Value::Object(out)
}

fn rejected(out: &mut Map<String, Value>, parsed: &Parsed, stop: &Stop) {
    let phase = match stop.phase {
        Phase::Parse => "parse",
        Phase::Instructions => "instructions",
    };
    out.insert("phase".to_owned(), json!(phase));
    let entry = |index: usize| {
        let headline = parsed.errors.get(index).map(|error| error.headline.as_str()).unwrap_or_default();
        (headline, parsed.level.error_lines.get(index).copied().unwrap_or_default())
    };
    let (headline, lines) = entry(stop.index);
    out.insert("error".to_owned(), json!(headline));
    out.insert("error_lines".to_owned(), json!(lines));
    let others: Vec<Value> = (0..parsed.errors.len())
        .filter(|index| *index != stop.index)
        .map(|index| {
            let (headline, lines) = entry(index);
            json!({"error": headline, "error_lines": lines})
        })
        .collect();
    present(out, "errors", json!(others));
}

/// Inserts what is not empty.
fn present(out: &mut Map<String, Value>, key: &str, value: Value) {
    let empty = match &value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    if !empty {
        out.insert(key.to_owned(), value);
    }
}

fn text(word: Option<&Word>) -> Value {
    word.map_or(Value::Null, |word| json!(word.text))
}

fn texts(words: &[Word]) -> Value {
    words.iter().map(|word| json!(word.text)).collect()
}

fn node(node: &Node, inner: bool) -> Value {
    let mut out = Map::new();
    out.insert("cmd".to_owned(), json!(node.keyword.text.to_lowercase()));
    out.insert("args".to_owned(), texts(&node.args));
    out.insert("original".to_owned(), json!(node.original));
    out.insert("lines".to_owned(), if inner { json!([0, 0]) } else { json!(node.lines) });
    present(&mut out, "flags", node.flags.iter().map(|flag| json!(flag.text)).collect());
    present(&mut out, "json", json!(node.json));
    let heredocs = node
        .heredocs
        .iter()
        .map(|one| json!({"name": one.name, "expand": one.expand, "chomp": one.chomp, "fd": one.fd, "content": one.content}));
    present(&mut out, "heredocs", heredocs.collect());
    if let Some(sub) = &node.sub {
        out.insert("sub".to_owned(), self::node(sub, true));
    }
    Value::Object(out)
}

fn meta_arg(instruction: &Instruction) -> Value {
    let args = if let Command::Arg(args) = &instruction.command { declarations(args) } else { json!([]) };
    json!({"args": args, "lines": instruction.lines})
}

fn declarations(args: &[ArgDeclaration]) -> Value {
    let one = |arg: &ArgDeclaration| {
        let mut out = Map::new();
        out.insert("key".to_owned(), json!(arg.key.text));
        out.insert("value".to_owned(), text(arg.value.as_ref()));
        present(&mut out, "doc", json!(arg.doc));
        Value::Object(out)
    };
    args.iter().map(one).collect()
}

fn stage(stage: &Stage) -> Value {
    let mut out = Map::new();
    out.insert("base".to_owned(), json!(stage.base.text));
    present(&mut out, "name", text(stage.name.as_ref()));
    present(&mut out, "platform", text(stage.platform.as_ref()));
    present(&mut out, "doc", json!(stage.doc));
    out.insert("lines".to_owned(), json!(stage.lines));
    out.insert("commands".to_owned(), stage.commands.iter().map(command).collect());
    Value::Object(out)
}

fn command(instruction: &Instruction) -> Value {
    let mut out = Map::new();
    out.insert("name".to_owned(), json!(instruction.keyword.text.to_lowercase()));
    out.insert("lines".to_owned(), json!(instruction.lines));
    let set = &mut out;
    match &instruction.command {
        Command::Run(own) => run(set, own),
        Command::Cmd(line) | Command::Entrypoint(line) => command_line(set, line),
        Command::Copy(own) => copy(set, own),
        Command::Add(own) => add(set, own),
        Command::Env(pairs) => present(set, "env", key_values(pairs)),
        Command::Label(pairs) => present(set, "labels", key_values(pairs)),
        Command::Arg(args) => drop(set.insert("args".to_owned(), declarations(args))),
        Command::Expose(ports) => present(set, "ports", texts(ports)),
        Command::Healthcheck(own) => drop(set.insert("health".to_owned(), health(own))),
        Command::Maintainer(word) => present(set, "maintainer", json!(word.text)),
        Command::Onbuild(word) => present(set, "expression", json!(word.text)),
        Command::Shell(words) => present(set, "shell", json!(words)),
        Command::Stopsignal(word) => present(set, "signal", json!(word.text)),
        Command::User(word) => present(set, "user", json!(word.text)),
        Command::Volume(words) => present(set, "volumes", texts(words)),
        Command::Workdir(word) => present(set, "path", json!(word.text)),
    }
    Value::Object(out)
}

fn command_line(out: &mut Map<String, Value>, line: &CommandLine) {
    let (form, words) = match line {
        CommandLine::Shell(word) if word.text.is_empty() => ("shell", json!([])),
        CommandLine::Shell(word) => ("shell", json!([word.text])),
        CommandLine::Exec(words, _) => ("exec", json!(words)),
    };
    out.insert("form".to_owned(), json!(form));
    out.insert("cmdline".to_owned(), words);
}

fn run(out: &mut Map<String, Value>, run: &Run) {
    command_line(out, &run.line);
    let inline = run.heredocs.iter().map(|one| json!({"name": one.name, "data": one.content, "chomp": one.chomp}));
    present(out, "inline", inline.collect());
    present(out, "flags_used", json!(run.flags_used));
    present(out, "mounts", run.mounts.iter().map(mount).collect());
    let not = |word: &Option<Word>, default: &str| text(word.as_ref().filter(|word| word.text != default));
    present(out, "network", not(&run.network, "default"));
    present(out, "security", not(&run.security, "sandbox"));
}

fn mount(word: &Word) -> Value {
    let mount = match parse_mount(&word.text) {
        Ok(mount) => mount,
        Err(_) if word.text.contains('$') => return json!({"unexpanded": word.text}),
        Err(error) => return json!({"raw": word.text, "error": error.message}),
    };
    let mut out = Map::new();
    out.insert("type".to_owned(), json!(word_of(mount.kind)));
    out.insert("target".to_owned(), json!(mount.target.unwrap_or_default()));
    out.insert("readonly".to_owned(), json!(mount.readonly));
    present(&mut out, "source", json!(mount.source));
    present(&mut out, "from", json!(mount.from));
    present(&mut out, "id", json!(mount.id));
    present(&mut out, "sharing", json!(mount.sharing));
    present(&mut out, "required", json!(mount.required));
    present(&mut out, "size", json!(mount.size));
    present(&mut out, "env", json!(mount.env));
    out.extend(mount.mode.map(|mode| ("mode".to_owned(), json!(format!("{mode:04o}")))));
    out.extend(mount.uid.map(|uid| ("uid".to_owned(), json!(uid))));
    out.extend(mount.gid.map(|gid| ("gid".to_owned(), json!(gid))));
    Value::Object(out)
}

fn copy(out: &mut Map<String, Value>, copy: &Copy) {
    let path = |source: &CopySource| match source {
        CopySource::Path(word) => Some(json!(word.text)),
        CopySource::Inline(_) => None,
    };
    let inline = |source: &CopySource| match source {
        CopySource::Path(_) => None,
        CopySource::Inline(one) => Some(json!({"path": one.name, "data": one.content, "expand": one.expand})),
    };
    out.insert("sources".to_owned(), copy.sources.iter().filter_map(path).collect());
    out.insert("dest".to_owned(), json!(copy.dest.text));
    present(out, "inline", copy.sources.iter().filter_map(inline).collect());
    present(out, "from", text(copy.from.as_ref()));
    present(out, "chown", text(copy.chown.as_ref()));
    present(out, "chmod", text(copy.chmod.as_ref()));
    present(out, "link", json!(copy.link.is_some_and(|(on, _)| on)));
    present(out, "parents", json!(copy.parents.is_some_and(|(on, _)| on)));
    present(out, "exclude", texts(&copy.exclude));
}

fn add(out: &mut Map<String, Value>, add: &Add) {
    copy(out, &add.copy);
    present(out, "checksum", text(add.checksum.as_ref()));
    present(out, "keep_git_dir", json!(add.keep_git_dir.is_some_and(|(on, _)| on)));
    out.extend(add.unpack.map(|(on, _)| ("unpack".to_owned(), json!(on))));
}

fn key_values(pairs: &[KeyValue]) -> Value {
    let one = |pair: &KeyValue| {
        let mut out = Map::new();
        out.insert("key".to_owned(), json!(pair.key.text));
        out.insert("value".to_owned(), json!(pair.value.text));
        present(&mut out, "no_delim", json!(pair.no_delim));
        Value::Object(out)
    };
    pairs.iter().map(one).collect()
}

fn health(health: &Healthcheck) -> Value {
    let mut out = Map::new();
    out.insert("test".to_owned(), json!(health.test));
    let nanoseconds = |duration: std::time::Duration| json!(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    present(&mut out, "interval_ns", nanoseconds(health.interval));
    present(&mut out, "timeout_ns", nanoseconds(health.timeout));
    present(&mut out, "start_period_ns", nanoseconds(health.start_period));
    present(&mut out, "start_interval_ns", nanoseconds(health.start_interval));
    present(&mut out, "retries", json!(health.retries));
    Value::Object(out)
}
