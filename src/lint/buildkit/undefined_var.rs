//! A variable that is not set.

use super::super::{
    Example, Origin, Rule,
    view::{Notes, View},
};
use crate::plan::Undefined;

pub(super) const RULE: Rule = Rule {
    name: "UndefinedVar",
    summary: "a variable is set before it is used",
    origin: Origin::BuildKit(Some("undefined-var")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
ARG PREFIX=/usr
WORKDIR $PREFX/src
",
        says: &[(3, "Usage of undefined variable '$PREFX' (did you mean $PREFIX?)")],
        good: "\
FROM busybox
ARG PREFIX=/usr
WORKDIR $PREFIX/src
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for command in view.commands() {
        for Undefined { name, meant } in &command.evaluated.undefined {
            let meant = meant.as_ref().map(|meant| format!(" (did you mean ${meant}?)")).unwrap_or_default();
            notes.add(command.comments(), command.place, format!("Usage of undefined variable '${name}'{meant}"));
        }
    }
}
