//! A variable in FROM that nothing declares.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::plan::Undefined;

pub(super) const RULE: Rule = Rule {
    name: "UndefinedArgInFrom",
    summary: "FROM uses only ARGs that are declared before the first FROM",
    origin: Origin::BuildKit(Some("undefined-arg-in-from")),
    experimental: false,
    look,
    example: Example {
        bad: "\
ARG VARIANT=slim
FROM debian:bookworm${VARIENT:+-slim}
",
        says: &[(2, "FROM argument 'VARIENT' is not declared (did you mean VARIANT?)")],
        good: "\
ARG VARIANT=slim
FROM debian:bookworm${VARIANT:+-slim}
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for from in view.facts.into_iter().flat_map(|facts| &facts.froms) {
        let Some(stage) = view.stages().get(from.stage) else { continue };
        for Undefined { name, meant } in &from.undeclared {
            let meant = meant.as_ref().map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default();
            notes.add(&stage.comments, Place::from(stage), format!("FROM argument '{name}' is not declared{meant}"));
        }
    }
}
