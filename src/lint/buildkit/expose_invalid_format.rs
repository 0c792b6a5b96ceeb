//! `EXPOSE host:port`.

use super::super::{
    Example, Origin, Rule,
    view::{Notes, View},
};
use crate::dockerfile::Command;

pub(super) const RULE: Rule = Rule {
    name: "ExposeInvalidFormat",
    summary: "EXPOSE names ports of the container only; the host is chosen when it is started",
    origin: Origin::BuildKit(Some("expose-invalid-format")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
EXPOSE 8080:80
",
        says: &[(2, "EXPOSE instruction should not define an IP address or host-port mapping, found '8080:80'")],
        good: "\
FROM busybox
EXPOSE 80
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for command in view.commands().filter(|command| matches!(command.instruction.command, Command::Expose(_))) {
        for port in command.values().iter().filter(|port| names_the_host(port)) {
            let detail = format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
            notes.add(command.comments(), command.place, detail);
        }
    }
}

/// Is anything written before the container's port?
fn names_the_host(port: &str) -> bool {
    port.rsplit_once(':').is_some_and(|(host, _)| host.split(':').any(|part| !part.is_empty()))
}
