//! `SOURCE_DATE_EPOCH`.
//!
//! Source: BuildKit `dockerfile2llb/epoch.go`.

use super::{Epoch, Report, Request, graph::Graph, lookup::context_name, scope::Globals};
use crate::{
    diag::{Diagnostic, Label, Span},
    dockerfile::{Command, Dockerfile},
};

const NAME: &str = "SOURCE_DATE_EPOCH";

/// What the build argument says, else the global ARG. Blank is as good as nothing.
pub(super) fn wanted(file: &Dockerfile, request: &Request, globals: &Globals, graph: &Graph<'_>, report: &mut Report) -> Option<Epoch> {
    let given = request.build_args.get(NAME).map(String::as_str);
    let text = given.or_else(|| globals.scope.value(NAME)).filter(|text| !text.is_empty())?;
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(Epoch::Seconds(seconds));
    }
    if text == "context" {
        return Some(Epoch::Context);
    }
    let stage = graph.stage_names().iter().any(|name| name.eq_ignore_ascii_case(text));
    if stage || context_name(request, text).is_some() {
        return Some(Epoch::Named(text.to_owned()));
    }
    let place = if given.is_none() { declared(file) } else { None };
    let labels = Vec::from_iter(place.map(|span| Label { span, text: "declared here".to_owned() }));
    let error = Diagnostic { labels, ..Diagnostic::error(format!("`{text}` is not a {NAME}"), Span::default()) };
    report.error(error.help("give the seconds since 1970, `context`, a named context or a stage"));
    None
}

/// Where a global ARG declares it.
fn declared(file: &Dockerfile) -> Option<Span> {
    let declarations = file
        .meta_args
        .iter()
        .filter_map(|instruction| if let Command::Arg(declarations) = &instruction.command { Some(declarations) } else { None });
    declarations.flatten().rfind(|declaration| declaration.key.text == NAME).map(|declaration| declaration.key.span)
}
