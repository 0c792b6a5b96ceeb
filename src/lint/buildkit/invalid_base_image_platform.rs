//! A base for another platform.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::plan::{OtherPlatform, quoted};

pub(super) const RULE: Rule = Rule {
    name: "InvalidBaseImagePlatform",
    summary: "a base is for the platform that is built for",
    origin: Origin::BuildKit(None),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM arm64v8/busybox
",
        says: &[(1, r#"Base image arm64v8/busybox was pulled with platform "linux/arm64", expected "linux/amd64" for current build"#)],
        good: "\
FROM busybox
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for OtherPlatform { stage, name, expected, actual } in view.facts.into_iter().flat_map(|facts| &facts.other_platforms) {
        let Some(stage) = view.stages().get(*stage) else { continue };
        let (actual, expected) = (quoted(actual), quoted(expected));
        let detail = format!("Base image {name} was pulled with platform {actual}, expected {expected} for current build");
        notes.add(&[], Place::from(stage).mark(stage.base.span), detail);
    }
}
