//! A base that is no image unless a build argument says more.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::plan::is_image_name;

pub(super) const RULE: Rule = Rule {
    name: "InvalidDefaultArgInFrom",
    summary: "every FROM names an image also when no build argument is given",
    origin: Origin::BuildKit(Some("invalid-default-arg-in-from")),
    experimental: false,
    look,
    example: Example {
        bad: "\
ARG TAG
FROM busybox:${TAG}
",
        says: &[(2, "Default value for ARG busybox:${TAG} results in empty or invalid base image name")],
        good: "\
ARG TAG=latest
FROM busybox:${TAG}
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    let bases = view.facts.map(|facts| facts.default_bases.as_slice()).unwrap_or_default();
    for (stage, base) in view.stages().iter().zip(bases).filter(|(_, base)| !is_image_name(base)) {
        let detail = format!("Default value for ARG {} results in empty or invalid base image name", stage.base.text);
        let help = if base.is_empty() { "give the global ARG a default" } else { "give the global ARG a default that completes the name" };
        notes.advise(&[], Place::from(stage).mark(stage.base.span), detail, Some(help));
    }
}
