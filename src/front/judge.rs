//! The plan of a Dockerfile and what the rules say of it.

use std::cell::RefCell;

use super::{Context, Request, Session, bases::LookUp, named::Named};
use crate::{
    diag::Diagnostic,
    dockerfile::Parsed,
    engine::Event,
    error::{Error, Kind},
    lint::{self, BadOptions, Options, Subject},
    plan::{self, Plan, Survey, Wanted},
};

/// The plan of an accepted file. What the rules find are warnings, unless the file or the user wants them to be errors.
pub(super) fn plan(
    request: &Request,
    contexts: (&Context, &Named),
    text: &str,
    parsed: &Parsed,
    session: &Session<'_>,
    event: &mut dyn FnMut(Event),
) -> Result<Plan, Error> {
    let options = options(request, text)?;
    let Survey { facts, plan } = survey(request, contexts, parsed, session, Wanted::Target, event);
    let plan = plan.map_err(|unresolved| Error::at(unresolved.kind, unresolved.places))?;
    let found = lint::check(Subject { text, parsed, facts: Some(&facts), files: None }, &options);
    for diagnostic in found.iter().map(lint::Finding::diagnostic).chain(plan.warnings.iter().cloned()) {
        event(Event::Warning { diagnostic });
    }
    match lint::violation(&options, &found) {
        None => Ok(plan),
        Some(violation) => Err(Error::new(Kind::Request, violation)
            .help("mend what the warnings say, skip the rules with `# check=skip=…`, or leave `error=true` out")),
    }
}

fn options(request: &Request, text: &str) -> Result<Options, Error> {
    let argument = request.plan.build_args.get("BUILDKIT_DOCKERFILE_CHECK").map(String::as_str);
    Options::of(text, argument).map_err(|error| {
        let help = "the form is `skip=RULE,…;experimental=RULE,…;error=true`";
        match &error {
            BadOptions { span: Some(span), .. } => Error::at(Kind::Request, vec![Diagnostic::error(error.to_string(), *span).help(help)]),
            BadOptions { span: None, .. } => Error::new(Kind::Request, error.to_string()).help(help),
        }
    })
}

fn survey(
    request: &Request,
    contexts: (&Context, &Named),
    parsed: &Parsed,
    session: &Session<'_>,
    wanted: Wanted,
    event: &mut dyn FnMut(Event),
) -> Survey {
    let (context, named) = contexts;
    let bases = LookUp { session, request, context, named, event: RefCell::new(event) };
    plan::survey(&parsed.dockerfile, &request.plan, &bases, wanted)
}
