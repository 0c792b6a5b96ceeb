//! A platform that cannot be chosen.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::plan::quoted;

pub(super) const RULE: Rule = Rule {
    name: "FromPlatformFlagConstDisallowed",
    summary: "`--platform` holds a variable, or the name of the stage says which platform it is for",
    origin: Origin::BuildKit(Some("from-platform-flag-const-disallowed")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM --platform=linux/amd64 busybox AS build
",
        says: &[(1, r#"FROM --platform flag should not use constant value "linux/amd64""#)],
        good: "\
FROM --platform=linux/amd64 busybox AS build-amd64
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for from in view.facts.into_iter().flat_map(|facts| &facts.froms) {
        let (Some(facts), Some(stage)) = (&from.platform, view.stages().get(from.stage)) else { continue };
        let is_constant = facts.expanded.used.is_empty() && facts.expanded.unset.is_empty();
        let Some(platform) = facts.platform.as_ref().filter(|_| is_constant) else { continue };
        let name = stage.name.as_ref().map(|name| name.text.as_str()).unwrap_or_default();
        if name.contains(&platform.os) || name.contains(&platform.architecture) {
            continue;
        }
        let detail = format!("FROM --platform flag should not use constant value {}", quoted(&facts.expanded.text));
        let span = stage.platform.as_ref().map_or(stage.span, |word| word.span);
        let help = "leave it out, use `$BUILDPLATFORM`, or name the stage after its platform";
        notes.advise(&stage.comments, Place::from(stage).mark(span), detail, Some(help));
    }
}
