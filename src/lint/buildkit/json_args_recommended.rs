//! A shell between the user and the program.

use super::super::{
    Example, Origin, Rule,
    view::{Notes, View},
};
use crate::dockerfile::{Command, CommandLine};

pub(super) const RULE: Rule = Rule {
    name: "JSONArgsRecommended",
    summary: "CMD and ENTRYPOINT are arrays, because a shell between keeps signals from the program",
    origin: Origin::BuildKit(Some("json-args-recommended")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
CMD httpd -f
",
        says: &[(2, "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals")],
        good: "\
FROM busybox
CMD [\"httpd\", \"-f\"]
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for command in view.commands().filter(|command| command.evaluated.default_shell) {
        if let Command::Cmd(CommandLine::Shell(_)) | Command::Entrypoint(CommandLine::Shell(_)) = &command.instruction.command {
            let name = &command.instruction.keyword.text;
            let detail = format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
            notes.add(command.comments(), command.place, detail);
        }
    }
}
