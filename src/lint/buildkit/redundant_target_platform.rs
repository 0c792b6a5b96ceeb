//! A platform that is the default.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};

pub(super) const RULE: Rule = Rule {
    name: "RedundantTargetPlatform",
    summary: "`--platform=$TARGETPLATFORM` is left out, since it says what holds anyway",
    origin: Origin::BuildKit(Some("redundant-target-platform")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM --platform=$TARGETPLATFORM busybox
",
        says: &[(1, "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior")],
        good: "\
FROM busybox
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for from in view.facts.into_iter().flat_map(|facts| &facts.froms) {
        let (Some(platform), Some(stage)) = (&from.platform, view.stages().get(from.stage)) else { continue };
        let only = platform.expanded.unset.is_empty() && platform.expanded.used == ["TARGETPLATFORM"];
        if let Some(word) = stage.platform.as_ref().filter(|_| only && platform.is_target) {
            let detail = format!("Setting platform to predefined {} in FROM is redundant as this is the default behavior", word.text);
            notes.add(&stage.comments, Place::from(stage).mark(word.span), detail);
        }
    }
}
