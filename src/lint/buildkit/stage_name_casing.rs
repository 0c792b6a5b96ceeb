//! Capitals in the name of a stage.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};

pub(super) const RULE: Rule = Rule {
    name: "StageNameCasing",
    summary: "the name of a stage is written in lower case, as it is compared",
    origin: Origin::BuildKit(Some("stage-name-casing")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox AS Build
",
        says: &[(1, "Stage name 'Build' should be lowercase")],
        good: "\
FROM busybox AS build
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for line in view.stage_lines() {
        if let [_, _, name] = line.words
            && name.text != name.text.to_lowercase()
        {
            notes.add(line.comments, Place::from(line).mark(name.span), format!("Stage name '{}' should be lowercase", name.text));
        }
    }
}
