//! A blank line inside a continued instruction.

use super::super::{
    Example, Origin, Rule,
    view::{Notes, View},
};

pub(super) const RULE: Rule = Rule {
    name: "NoEmptyContinuation",
    summary: "an instruction is not continued over a blank line, since later versions of the syntax may end it there",
    origin: Origin::BuildKit(Some("no-empty-continuation")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
RUN echo one \\

  two
",
        says: &[(4, "Empty continuation line")],
        good: "\
FROM busybox
RUN echo one \\
  two
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for place in &view.blank_lines {
        notes.advise(&[], *place, "Empty continuation line", Some("remove the blank line, or put a `#` on it"));
    }
}
