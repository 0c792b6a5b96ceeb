//! MAINTAINER.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};

pub(super) const RULE: Rule = Rule {
    name: "MaintainerDeprecated",
    summary: "who made an image is said by a label; MAINTAINER is no longer supported everywhere",
    origin: Origin::BuildKit(Some("maintainer-deprecated")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
MAINTAINER me@example.org
",
        says: &[(2, "Maintainer instruction is deprecated in favor of using label")],
        good: "\
FROM busybox
LABEL org.opencontainers.image.authors=\"me@example.org\"
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for line in view.lines.iter().filter(|line| line.keyword.text.eq_ignore_ascii_case("maintainer")) {
        let help = "write `LABEL org.opencontainers.image.authors=\"…\"`";
        notes.advise(line.comments, Place::from(*line), "Maintainer instruction is deprecated in favor of using label", Some(help));
    }
}
