//! Capitals in the protocol of a port.

use super::super::{
    Example, Origin, Rule,
    view::{Notes, View},
};
use crate::dockerfile::Command;

pub(super) const RULE: Rule = Rule {
    name: "ExposeProtoCasing",
    summary: "the protocol of a port is written in lower case",
    origin: Origin::BuildKit(Some("expose-proto-casing")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
EXPOSE 53/UDP
",
        says: &[(2, "Defined protocol '53/UDP' in EXPOSE instruction should be lowercase")],
        good: "\
FROM busybox
EXPOSE 53/udp
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for command in view.commands().filter(|command| matches!(command.instruction.command, Command::Expose(_))) {
        for port in command.values() {
            let protocol = port.rsplit(':').next().and_then(|port| port.split_once('/')).map(|(_, protocol)| protocol).unwrap_or_default();
            if protocol != protocol.to_lowercase() {
                let detail = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                notes.add(command.comments(), command.place, detail);
            }
        }
    }
}
