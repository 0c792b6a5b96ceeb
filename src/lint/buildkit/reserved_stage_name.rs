//! A stage with a name that is taken.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::plan::quoted;

pub(super) const RULE: Rule = Rule {
    name: "ReservedStageName",
    summary: "no stage is called `scratch` or `context`, which mean something else",
    origin: Origin::BuildKit(Some("reserved-stage-name")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox AS context
",
        says: &[(1, r#"Stage name should not use the same name as reserved stage "context""#)],
        good: "\
FROM busybox AS sources
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for stage in view.stages() {
        if let Some(name) = stage.name.as_ref().filter(|name| matches!(name.text.as_str(), "scratch" | "context")) {
            let detail = format!("Stage name should not use the same name as reserved stage {}", quoted(&name.text));
            notes.add(&[], Place::from(stage).mark(name.span), detail);
        }
    }
}
