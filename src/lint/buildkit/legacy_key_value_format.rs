//! `ENV key value`.

use super::super::{
    Example, Origin, Rule,
    view::{Notes, View},
};
use crate::dockerfile::Command;

pub(super) const RULE: Rule = Rule {
    name: "LegacyKeyValueFormat",
    summary: "ENV and LABEL are written with `=`",
    origin: Origin::BuildKit(Some("legacy-key-value-format")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
ENV LANG C.UTF-8
",
        says: &[(2, r#""ENV key=value" should be used instead of legacy "ENV key value" format"#)],
        good: "\
FROM busybox
ENV LANG=C.UTF-8
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for command in view.commands().filter(|command| command.evaluated.values.is_some()) {
        let (Command::Env(pairs) | Command::Label(pairs)) = &command.instruction.command else { continue };
        let name = &command.instruction.keyword.text;
        for pair in pairs.iter().filter(|pair| pair.no_delim) {
            let detail = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
            let help = format!("write `{name} {}=…`, with the value in quotes if there are blanks in it", pair.key.text);
            notes.advise(command.comments(), command.place, detail, Some(&help));
        }
    }
}
