//! Instructions in capitals and in small letters.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};

pub(super) const RULE: Rule = Rule {
    name: "ConsistentInstructionCasing",
    summary: "all instructions are written in capitals, or all in small letters",
    origin: Origin::BuildKit(Some("consistent-instruction-casing")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
run echo
USER 1
",
        says: &[(2, "Command 'run' should match the case of the command majority (uppercase)")],
        good: "\
FROM busybox
RUN echo
USER 1
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    if view.file.is_none() {
        return;
    }
    // What stands before the first FROM has no part in it.
    let after = view.lines.iter().skip_while(|line| !line.keyword.text.eq_ignore_ascii_case("from"));
    let lower = |text: &str| text == text.to_lowercase();
    let upper = |text: &str| text == text.to_uppercase();
    let (mut lowers, mut uppers) = (0_usize, 0_usize);
    for line in after.clone() {
        lowers += usize::from(lower(&line.keyword.text));
        uppers += usize::from(upper(&line.keyword.text));
    }
    let (agrees, casing): (fn(&str) -> bool, _) = if lowers > uppers { (lower, "lowercase") } else { (upper, "uppercase") };
    for line in after.filter(|line| !agrees(&line.keyword.text)) {
        let detail = format!("Command '{}' should match the case of the command majority ({casing})", line.keyword.text);
        notes.add(&[], Place::from(*line).mark(line.keyword.span), detail);
    }
}
