//! Two stages of one name.

use std::collections::BTreeSet;

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::plan::quoted;

pub(super) const RULE: Rule = Rule {
    name: "DuplicateStageName",
    summary: "no two stages have one name: only the later could be referred to",
    origin: Origin::BuildKit(Some("duplicate-stage-name")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox AS build
FROM busybox AS build
",
        says: &[(2, r#"Duplicate stage name "build", stage names should be unique"#)],
        good: "\
FROM busybox AS build
FROM busybox AS test
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    let mut seen = BTreeSet::new();
    for stage in view.stages() {
        if let Some(name) = stage.name.as_ref().filter(|name| !seen.insert(name.text.as_str())) {
            let detail = format!("Duplicate stage name {}, stage names should be unique", quoted(&name.text));
            notes.add(&[], Place::from(stage).mark(name.span), detail);
        }
    }
}
