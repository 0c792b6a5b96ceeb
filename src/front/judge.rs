//! What is said of a Dockerfile: its plan with the rules' warnings, the rules alone, or what it can be given.

use std::cell::RefCell;

use super::{Context, Request, Session, Text, bases::LookUp, judged_files::JudgedFiles, named::Named};
use crate::{
    diag::Diagnostic,
    dockerfile::{self, Parsed},
    engine::{
        Event,
        timing::{By, Laps},
    },
    error::{Error, Kind},
    lint::{self, BadOptions, Files, Finding, Options, Subject},
    plan::{self, Outline, Plan, Survey, Wanted},
};

/// The build context, and the named ones that were brought here.
type Contexts<'a> = (&'a Context, &'a Named);

/// What the rules say of a Dockerfile.
#[derive(Debug)]
pub struct Checked {
    /// What they found, in order of lines.
    pub found: Vec<Finding>,
    /// Why it could not be built.
    pub error: Option<Error>,
}

/// Looks at everything and builds nothing: at all stages, unless the request names a target.
pub fn check(request: &Request, context: &Context, text: &Text, session: &Session<'_>, event: &mut dyn FnMut(Event)) -> Checked {
    let parsed = dockerfile::parse(&text.source.text);
    let options = match options(request, &text.source.text) {
        Ok(options) => options,
        Err(error) => return Checked { found: Vec::new(), error: Some(error) },
    };
    let files = JudgedFiles::of(context, text.path.as_deref());
    let files = files.as_ref().map(|files| files as &dyn Files);
    let subject = Subject { text: &text.source.text, parsed: &parsed, facts: None, files };
    if !parsed.errors.is_empty() {
        let found = lint::check(subject, &options);
        return Checked { found, error: Some(Error::at(Kind::Request, parsed.errors)) };
    }
    let Survey { facts, plan } = survey(request, (context, &Named::default()), &parsed, session, Wanted::All, event);
    let found = lint::check(Subject { facts: Some(&facts), ..subject }, &options);
    let error = match plan {
        Ok(plan) => {
            tell(plan.warnings.iter().cloned(), event);
            lint::violation(&options, &found).map(violated)
        }
        Err(unresolved) => Some(Error::at(unresolved.kind, unresolved.places)),
    };
    Checked { found, error }
}

/// What the target can be given.
pub fn outline(
    request: &Request,
    context: &Context,
    text: &Text,
    session: &Session<'_>,
    event: &mut dyn FnMut(Event),
) -> Result<Outline, Error> {
    let parsed = dockerfile::parse(&text.source.text);
    if !parsed.errors.is_empty() {
        return Err(Error::at(Kind::Request, parsed.errors));
    }
    let Survey { facts, plan } = survey(request, (context, &Named::default()), &parsed, session, Wanted::Target, event);
    let plan = plan.map_err(|unresolved| Error::at(unresolved.kind, unresolved.places))?;
    Ok(plan::outline(&parsed.dockerfile, &facts, &plan))
}

/// The plan of an accepted file. What the rules find are warnings, unless the file or the user wants them to be errors.
pub(super) fn plan(
    request: &Request,
    contexts: Contexts<'_>,
    (text, parsed): (&Text, &Parsed),
    session: &Session<'_>,
    event: &mut dyn FnMut(Event),
) -> Result<Plan, Error> {
    let mut laps = Laps::begin(By::Front);
    let options = options(request, &text.source.text)?;
    let Survey { facts, plan } = survey(request, contexts, parsed, session, Wanted::Target, event);
    let plan = plan.map_err(|unresolved| Error::at(unresolved.kind, unresolved.places))?;
    let steps: usize = plan.stages.iter().map(|stage| stage.steps.len()).sum();
    event(Event::Phase(laps.lap(format!("planned {} stages of {steps} steps, with their bases", plan.stages.len()))));
    let files = JudgedFiles::of(contexts.0, text.path.as_deref());
    let files = files.as_ref().map(|files| files as &dyn Files);
    let found = lint::check(Subject { text: &text.source.text, parsed, facts: Some(&facts), files }, &options);
    event(Event::Phase(laps.lap("applied the rules")));
    tell(found.iter().map(Finding::diagnostic).chain(plan.warnings.iter().cloned()), event);
    match lint::violation(&options, &found) {
        None => Ok(plan),
        Some(violation) => Err(violated(violation)),
    }
}

fn tell(warnings: impl Iterator<Item = Diagnostic>, event: &mut dyn FnMut(Event)) {
    for diagnostic in warnings {
        event(Event::Warning { diagnostic });
    }
}

fn violated(violation: String) -> Error {
    let help = "mend what the warnings say, skip the rules with `# check=skip=…`, or leave `error=true` out";
    Error::new(Kind::Request, violation).help(help)
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
    contexts: Contexts<'_>,
    parsed: &Parsed,
    session: &Session<'_>,
    wanted: Wanted,
    event: &mut dyn FnMut(Event),
) -> Survey {
    let (context, named) = contexts;
    let bases = LookUp { session, request, context, named, event: RefCell::new(event) };
    plan::survey(&parsed.dockerfile, &request.plan, &bases, wanted)
}
