//! Instructions that a later one makes vain.

use std::collections::HashMap;

use super::super::{
    Example, Origin, Rule,
    view::{Notes, View},
};
use crate::dockerfile::Command;

pub(super) const RULE: Rule = Rule {
    name: "MultipleInstructionsDisallowed",
    summary: "a stage has one CMD, one ENTRYPOINT and one HEALTHCHECK: of several only the last counts",
    origin: Origin::BuildKit(Some("multiple-instructions-disallowed")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
CMD [\"one\"]
CMD [\"two\"]
",
        says: &[(2, "Multiple CMD instructions should not be used in the same stage because only the last one will be used")],
        good: "\
FROM busybox
CMD [\"two\"]
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    let mut last = HashMap::new();
    for command in view.commands() {
        let kind = std::mem::discriminant(&command.instruction.command);
        if !matches!(command.instruction.command, Command::Cmd(_) | Command::Entrypoint(_) | Command::Healthcheck(_)) {
            continue;
        }
        let Some(earlier) = last.insert((command.evaluated.stage, kind), command.place) else { continue };
        let name = &command.instruction.keyword.text;
        let detail = format!("Multiple {name} instructions should not be used in the same stage because only the last one will be used");
        // The place is that of the one without effect; what may be skipped is said above the later one.
        notes.advise(command.comments(), earlier, detail, Some("remove this one, it has no effect"));
    }
}
