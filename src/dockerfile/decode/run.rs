//! RUN, CMD, ENTRYPOINT, SHELL and HEALTHCHECK: what starts processes.

use std::time::Duration;

use crate::diag::{Diagnostic, closest};

use super::flags::Flags;
use super::{HEALTHCHECK, RUN, Rejected, needs, rejected};
use crate::dockerfile::ast::{Command, CommandLine, Healthcheck, Run, Word};
use crate::dockerfile::mount::check_form;
use crate::dockerfile::node::Node;
use crate::dockerfile::values;

/// RUN
pub(super) fn run(node: &mut Node) -> Result<Command, Rejected> {
    let flags = Flags::read(node, RUN)?;
    let mounts = flags.words("mount");
    let mut errors = Vec::new();
    for mount in &mounts {
        if let Err(error) = check_form(&mount.text) {
            let place = error.field.as_deref().map_or(mount.span, |field| mount.span_of(field));
            let diagnostic = Diagnostic::error(format!("this mount cannot be read: {}", error.message), place).label("in this mount");
            errors.push(Diagnostic { help: error.help, ..diagnostic });
        }
    }
    let network = flags.word("network");
    let security = flags.word("security");
    errors.extend(one_of("network", network.as_ref(), &["default", "none", "host"]));
    errors.extend(one_of("security", security.as_ref(), &["sandbox", "insecure"]));
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Command::Run(Run {
        line: line(node),
        heredocs: std::mem::take(&mut node.heredocs),
        mounts,
        network,
        security,
        devices: flags.words("device"),
        flags_used: flags.names(),
    }))
}

fn one_of(flag: &str, value: Option<&Word>, allowed: &[&'static str]) -> Option<Diagnostic> {
    let value = value.filter(|value| !allowed.contains(&value.text.as_str()))?;
    let error = Diagnostic::error(format!("`--{flag}` cannot be `{}`", value.text), value.span);
    let words: Vec<String> = allowed.iter().map(|word| format!("`{word}`")).collect();
    Some(match closest(&value.text, allowed.iter().copied()) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help(format!("it is one of {}", words.join(", "))),
    })
}

/// Shell or exec form; nothing at all is an empty shell form.
fn line(node: &mut Node) -> CommandLine {
    let mut words = std::mem::take(&mut node.args).into_iter();
    if node.json {
        return CommandLine::Exec(words.map(|word| word.text).collect(), node.rest);
    }
    CommandLine::Shell(words.next().unwrap_or_else(|| Word { text: String::new(), span: node.rest }))
}

/// CMD
pub(super) fn cmd(node: &mut Node) -> Result<Command, Rejected> {
    Flags::read(node, &[])?;
    Ok(Command::Cmd(line(node)))
}

/// ENTRYPOINT
pub(super) fn entrypoint(node: &mut Node) -> Result<Command, Rejected> {
    Flags::read(node, &[])?;
    Ok(Command::Entrypoint(line(node)))
}

/// SHELL
pub(super) fn shell(node: &Node) -> Result<Command, Rejected> {
    Flags::read(node, &[])?;
    let example = r#"write `SHELL ["/bin/sh", "-c"]`"#;
    if node.args.is_empty() {
        return rejected(needs(node, "a shell").help(example));
    }
    if !node.json {
        let error = Diagnostic::error("SHELL takes an array in JSON", node.rest).label("not one");
        return rejected(error.help(node.args.first().and_then(|word| array_help(&word.text)).unwrap_or(example)));
    }
    Ok(Command::Shell(node.args.iter().map(|word| word.text.clone()).collect()))
}

/// What is wrong with text that was meant as an array.
fn array_help(text: &str) -> Option<&'static str> {
    if text.contains(['“', '”', '‘', '’']) {
        return Some("these are typographic quotes; use `\"`");
    }
    if text.contains('\'') && text.starts_with('[') {
        return Some("use double quotes: JSON has no single ones");
    }
    (text.starts_with('[') && !text.ends_with(']')).then_some("close the array with `]`")
}

/// HEALTHCHECK
pub(super) fn healthcheck(node: &Node) -> Result<Command, Rejected> {
    let Some((kind, args)) = node.args.split_first() else { return rejected(needs(node, "`CMD` and a command, or `NONE`")) };
    let kind_text = kind.text.to_uppercase();
    if kind_text == "NONE" {
        if let Some(extra) = args.first() {
            let error = Diagnostic::error("HEALTHCHECK NONE takes no arguments", extra.span).label("unexpected");
            return rejected(error.help("remove what follows, or write `HEALTHCHECK CMD` and the command"));
        }
        return Ok(Command::Healthcheck(check(vec![kind_text])));
    }
    let flags = Flags::read(node, HEALTHCHECK)?;
    if kind_text != "CMD" {
        let error = Diagnostic::error(format!("HEALTHCHECK has no type `{}`", kind.text), kind.span).label("not known");
        return rejected(match closest(&kind_text, ["CMD", "NONE"]) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help("write `HEALTHCHECK CMD` and the command, or `HEALTHCHECK NONE`"),
        });
    }
    if args.is_empty() {
        let error = Diagnostic::error("HEALTHCHECK CMD needs a command", kind.span).label("nothing follows");
        return rejected(error.help("write the command that tells whether the container is well"));
    }
    let mut test = vec![if node.json { "CMD" } else { "CMD-SHELL" }.to_owned()];
    test.extend(args.iter().map(|word| word.text.clone()));
    let mut health = check(test);
    health.interval = interval(&flags, "interval")?;
    health.timeout = interval(&flags, "timeout")?;
    health.start_period = interval(&flags, "start-period")?;
    health.start_interval = interval(&flags, "start-interval")?;
    health.retries = retries(&flags)?;
    Ok(Command::Healthcheck(health))
}

fn check(test: Vec<String>) -> Healthcheck {
    let zero = Duration::ZERO;
    Healthcheck { test, interval: zero, timeout: zero, start_period: zero, start_interval: zero, retries: 0 }
}

/// A duration of at least a millisecond, or nothing.
fn interval(flags: &Flags, name: &str) -> Result<Duration, Rejected> {
    let Some(word) = flags.word(name) else { return Ok(Duration::ZERO) };
    let duration = values::duration(&word.text).map_err(|words| {
        let error = Diagnostic::error(format!("`--{name}` cannot be `{}`", word.text), word.span).label("not a duration");
        vec![error.note(words).help(format!("write a number and a unit: `--{name}=30s`"))]
    })?;
    if duration > Duration::ZERO && duration < Duration::from_millis(1) {
        let error = Diagnostic::error(format!("`--{name}` cannot be less than 1ms"), word.span).label("too short");
        return rejected(error.help("write `0` for the default, or a longer time"));
    }
    Ok(duration)
}

fn retries(flags: &Flags) -> Result<i64, Rejected> {
    let Some(word) = flags.word("retries") else { return Ok(0) };
    match word.text.parse::<i32>() {
        Ok(number) if number < 0 => {
            let error = Diagnostic::error("`--retries` cannot be negative", word.span).label("below zero");
            rejected(error.help("write how often the check may fail; `0` is the default, three times"))
        }
        Ok(number) => Ok(i64::from(number)),
        Err(_) => {
            let error = Diagnostic::error(format!("`--retries` cannot be `{}`", word.text), word.span).label("not a number");
            rejected(error.help("write how often the check may fail, in digits: `--retries=3`"))
        }
    }
}
