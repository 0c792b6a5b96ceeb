//! `["echo", "$HOME"]`

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::dockerfile::{Command, CommandLine};

pub(super) const RULE: Rule = Rule {
    name: "ExecFormVariable",
    summary: "an array uses no variables: nothing expands them",
    origin: Origin::Own,
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
CMD [\"httpd\", \"-f\", \"-p\", \"$PORT\"]
",
        says: &[(2, "CMD is run without a shell, so that '$PORT' stays as it is")],
        good: "\
FROM busybox
CMD [\"sh\", \"-c\", \"exec httpd -f -p $PORT\"]
",
        files: &[],
    },
};

/// Programs that expand variables themselves, or whose language has a `$`.
const EXPAND: [&str; 18] = [
    "sh",
    "bash",
    "ash",
    "dash",
    "zsh",
    "ksh",
    "fish",
    "pwsh",
    "powershell",
    "powershell.exe",
    "cmd",
    "env",
    "awk",
    "perl",
    "php",
    "make",
    "envsubst",
    "jq",
];

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    // Where an entry point is a shell, CMD's words are its words.
    let mut entry = view.instructions().filter_map(|instruction| {
        if let Command::Entrypoint(CommandLine::Exec(argv, _)) = &instruction.command { Some(argv.as_slice()) } else { None }
    });
    let entry_expands = entry.any(expands);
    for instruction in view.instructions() {
        let Some(CommandLine::Exec(argv, span)) = instruction.command.line() else { continue };
        if entry_expands && matches!(instruction.command, Command::Cmd(_)) {
            continue;
        }
        let Some(name) = argv.iter().find_map(|word| variable(word)).filter(|_| !expands(argv)) else { continue };
        let detail = format!("{} is run without a shell, so that '${name}' stays as it is", instruction.keyword.text);
        let help = "write it without the array, or begin the array with `\"sh\", \"-c\"`";
        notes.advise(&instruction.comments, Place::from(instruction).mark(*span), detail, Some(help));
    }
}

fn expands(argv: &[String]) -> bool {
    argv.iter().any(|word| EXPAND.contains(&word.rsplit('/').next().unwrap_or(word)))
}

/// The first variable in capitals that a word uses.
fn variable(word: &str) -> Option<&str> {
    let mut rest = word;
    while let Some((_, after)) = rest.split_once('$') {
        let name = after.strip_prefix('{').unwrap_or(after);
        let length =
            name.find(|letter: char| !(letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_')).unwrap_or(name.len());
        if length > 1 && name.starts_with(|letter: char| letter.is_ascii_uppercase() || letter == '_') {
            return name.get(..length);
        }
        rest = after;
    }
    None
}
