//! Which front end a file asks for, and build arguments that nothing uses.
//!
//! There is one front end, this one. A file that asks for Docker's own gets it, any other is refused by name.

use std::collections::BTreeSet;

use super::{Report, Request, lookup::context_name, scope::PLATFORM_NAMES, special};
use crate::{
    diag::{Diagnostic, Label, Span, closest},
    dockerfile::Dockerfile,
};

/// The newest minor version of Docker's front end whose instructions are known here.
const NEWEST_MINOR: u32 = 26;

/// Checks `# syntax=` and `--build-arg BUILDKIT_SYNTAX=`, which wins.
pub(super) fn check(file: &Dockerfile, request: &Request, report: &mut Report) {
    let (wanted, span) = match request.build_args.get("BUILDKIT_SYNTAX") {
        Some(wanted) => (wanted.as_str(), None),
        None => match file.directives.iter().find(|directive| directive.name == "syntax") {
            Some(directive) => (directive.value.text.as_str(), Some(directive.value.span)),
            None => return,
        },
    };
    let name = wanted.split_whitespace().next().unwrap_or_default();
    let labels = |text: &str| Vec::from_iter(span.map(|span| Label { span, text: text.to_owned() }));
    // A context of that name would be another front end.
    match if context_name(request, name).is_some() { Known::No } else { known(name) } {
        Known::Yes => {}
        Known::Newer => {
            let headline = format!("`{name}` is newer than what is known here, docker/dockerfile:1.{NEWEST_MINOR}");
            let warning = Diagnostic {
                labels: labels("may have instructions that are not understood"),
                ..Diagnostic::warning(headline, Span::default())
            };
            report.warning(warning);
        }
        Known::No => {
            let headline = format!("the front end `{name}` cannot be run");
            let error = Diagnostic { labels: labels("not Docker's own"), ..Diagnostic::error(headline, Span::default()) };
            report.own_error(
                error
                    .note("front ends are not run, the one of docker/dockerfile:1 is built in")
                    .help("remove it, or write `# syntax=docker/dockerfile:1`"),
            );
        }
    }
}

enum Known {
    Yes,
    Newer,
    No,
}

fn known(name: &str) -> Known {
    let name = name.split_once('@').map_or(name, |(name, _digest)| name);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
    if name == "dockerfile.v0" {
        return Known::Yes;
    }
    if !matches!(repository, "docker/dockerfile" | "docker/dockerfile-upstream") {
        return Known::No;
    }
    let (version, channel) = tag.split_once('-').unwrap_or((tag, ""));
    let channel_known = matches!(channel, "" | "labs" | "experimental") || channel.starts_with("rc");
    let numbers: Option<Vec<u32>> = version.split('.').map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        _ if !channel_known => Known::No,
        None if matches!(version, "latest" | "labs" | "experimental" | "master") => Known::Yes,
        Some([1]) => Known::Yes,
        Some([1, minor] | [1, minor, _]) if *minor <= NEWEST_MINOR => Known::Yes,
        Some([1, _] | [1, _, _]) => Known::Newer,
        None | Some(_) => Known::No,
    }
}

/// Arguments that need no ARG to have an effect.
fn is_predefined(name: &str) -> bool {
    let proxy = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];
    PLATFORM_NAMES.contains(&name) || proxy.iter().any(|known| known.eq_ignore_ascii_case(name)) || special::NAMES.contains(&name)
}

/// Warns of build arguments that no ARG declares.
pub(super) fn unused_build_args(request: &Request, declared: &BTreeSet<&str>, report: &mut Report) {
    for name in request.build_args.keys().filter(|name| !is_predefined(name) && !declared.contains(name.as_str())) {
        let headline = format!("the build argument `{name}` is not used");
        let warning = Diagnostic { labels: Vec::new(), ..Diagnostic::warning(headline, Span::default()) };
        let warning = warning.note("no ARG declares it");
        report.warning(match closest(name, declared.iter().copied()) {
            Some(meant) => warning.help(format!("did you mean `{meant}`?")),
            None => warning,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_front_end_is_known_in_its_versions() {
        for name in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker.io/docker/dockerfile:1.7-labs",
            "docker/dockerfile:1.4.3",
            "docker/dockerfile:1@sha256:00",
            "docker/dockerfile-upstream:master",
            "docker/dockerfile:1.0.0-experimental",
            "docker/dockerfile:labs",
        ] {
            assert!(matches!(known(name), Known::Yes), "{name}");
        }
        assert!(matches!(known("docker/dockerfile:1.99"), Known::Newer));
        for name in ["", "x/y:1", "docker/dockerfile:2", "docker/dockerfilex", "docker/dockerfile:nope", "ghcr.io/docker/dockerfile:1"] {
            assert!(matches!(known(name), Known::No), "{name}");
        }
    }
}
