//! A comment behind the character that was meant to continue the line.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::dockerfile::{CommandLine, is_cut_by_comment};

pub(super) const RULE: Rule = Rule {
    name: "CommentAfterContinuation",
    summary: "nothing follows the character that continues a line",
    origin: Origin::Own,
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
RUN echo one && \\ # the first
USER 1
",
        says: &[(2, r"The line is not continued, because a comment follows the \")],
        good: "\
FROM busybox
# the first
RUN echo one && \\
  echo two
USER 1
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    let Some(file) = view.file else { return };
    for instruction in view.instructions() {
        let is_array = matches!(instruction.command.line(), Some(CommandLine::Exec(..)));
        if !is_array && is_cut_by_comment(&instruction.original, file.escape.0) {
            let detail = format!("The line is not continued, because a comment follows the {}", file.escape.0);
            notes.advise(&instruction.comments, Place::from(instruction), detail, Some("put the comment on a line of its own"));
        }
    }
}
