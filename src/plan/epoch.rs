//! `SOURCE_DATE_EPOCH`: seconds, or the name of something that has a time: the build context, a named context, a stage that
//! is one remote ADD. What it comes to takes the place of what was written, so that an ARG sees the number.
//!
//! Source: BuildKit `dockerfile2llb/epoch.go`, `convert.go: setBuildArgValue`.

use super::{
    BaseError, Bases, CopySource, Dated, Report, Request,
    lookup::{SCRATCH, context_name},
    scope::{Globals, Scope, Setter, cannot_expand},
};
use crate::{
    diag::{Diagnostic, Label, Span},
    dockerfile::{self, Add, Command, Dockerfile, Escape, Mode, Stage, Word},
    remote::Remote,
};

const NAME: &str = "SOURCE_DATE_EPOCH";
const ONE_ADD: &str = "a stage that gives the SOURCE_DATE_EPOCH is `FROM scratch` and one ADD of a URL";

/// What the build argument says, else the global ARG, as seconds since 1970; it is written back to where it came from. Blank
/// is as good as nothing, and so is a context that has no time.
pub(super) fn settle(
    file: &Dockerfile,
    request: &mut Request,
    globals: &mut Globals,
    bases: &dyn Bases,
    report: &mut Report,
) -> Option<i64> {
    let given = request.build_args.get(NAME).cloned();
    let declared = globals.scope.value(NAME).map(str::to_owned);
    let text = given.clone().or_else(|| declared.clone())?;
    let seconds = Asked { file, request, globals, bases, given: given.is_some() }.seconds(&text, report);
    let value = seconds.map(|seconds| seconds.to_string());
    if given.is_some() {
        match &value {
            Some(value) => drop(request.build_args.insert(NAME.to_owned(), value.clone())),
            None => drop(request.build_args.remove(NAME)),
        }
    }
    if declared.is_some() {
        match value {
            Some(value) => globals.scope.set(NAME, value, Setter::Arg),
            None => globals.scope.unset(NAME),
        }
    }
    seconds
}

/// The question.
struct Asked<'a> {
    file: &'a Dockerfile,
    request: &'a Request,
    globals: &'a Globals,
    bases: &'a dyn Bases,
    /// By a build argument; else by a global ARG.
    given: bool,
}

impl Asked<'_> {
    fn seconds(&self, text: &str, report: &mut Report) -> Option<i64> {
        if text.is_empty() {
            return None;
        }
        if let Ok(seconds) = text.parse::<i64>() {
            return Some(seconds);
        }
        let place = if self.given { None } else { declared(self.file) };
        if text == "context" {
            return self.ask(&Dated::Context, place, report);
        }
        if let Some(name) = context_name(self.request, text) {
            return self.ask(&Dated::Named(name.to_owned()), place, report);
        }
        let named = |stage: &&Stage| stage.name.as_ref().is_some_and(|name| name.text.eq_ignore_ascii_case(text));
        if let Some(stage) = self.file.stages.iter().find(named) {
            return match self.source(stage) {
                Ok((source, span)) => self.ask(&Dated::Far(source), Some(span), report),
                Err(error) => {
                    report.error(*error);
                    None
                }
            };
        }
        let error = placed(Diagnostic::error(format!("`{text}` is not a {NAME}"), Span::default()), place);
        report.error(error.help("give the seconds since 1970, `context`, a named context or a stage"));
        None
    }

    fn ask(&self, what: &Dated, place: Option<Span>, report: &mut Report) -> Option<i64> {
        self.bases.time(what).unwrap_or_else(|BaseError { message, help, kind }| {
            let error = placed(Diagnostic::error(message, Span::default()), place);
            report.blame(Diagnostic { help, ..error }, kind);
            None
        })
    }

    /// What the only ADD of a stage takes, and where it says so.
    fn source(&self, stage: &Stage) -> Result<(CopySource, Span), Box<Diagnostic>> {
        let wrong = |span: Span| Box::new(Diagnostic::error(ONE_ADD, span).label("but this is something else"));
        let escape = self.file.escape;
        let mut scope = self.globals.scope.clone();
        scope.unset(NAME);
        if expand(&scope, &stage.base, escape)? != SCRATCH {
            return Err(wrong(stage.base.span));
        }
        let mut found = None;
        for instruction in &stage.commands {
            let command = &instruction.command;
            if let Command::Arg(declarations) = command {
                for declaration in declarations {
                    let key = &declaration.key.text;
                    if let Some(value) = self.request.build_args.get(key) {
                        scope.set(key, value, Setter::Arg);
                    } else if let Some(value) = &declaration.value {
                        let value = expand(&scope, value, escape)?;
                        scope.set(key, value, Setter::Arg);
                    }
                }
            } else if let (Command::Add(add), None) = (command, &found) {
                let span = instruction.span;
                found = Some((added(&scope, add, escape)?.ok_or_else(|| wrong(span))?, span));
            } else {
                return Err(wrong(instruction.span));
            }
        }
        found.ok_or_else(|| wrong(stage.span))
    }
}

/// What an ADD of one URL takes; `None`: it takes something else.
fn added(scope: &Scope, add: &Add, escape: Escape) -> Result<Option<CopySource>, Box<Diagnostic>> {
    let [dockerfile::CopySource::Path(word)] = add.copy.sources.as_slice() else { return Ok(None) };
    let checksum = add.checksum.as_ref().map(|word| expand(scope, word, escape).map(|text| (text, word.span))).transpose()?;
    let unusable = |reason: String, span: Span| Box::new(Diagnostic::error(reason, span).label("cannot be used"));
    Ok(match Remote::of_source(&expand(scope, word, escape)?).map_err(|error| unusable(error.to_string(), word.span))? {
        Remote::Local => None,
        Remote::Http(url) => {
            let checksum =
                checksum.map(|(text, span)| text.parse().map_err(|error: crate::oci::BadDigest| unusable(error.to_string(), span)));
            Some(CopySource::Http { url, checksum: checksum.transpose()? })
        }
        Remote::Git(mut address) => {
            address.checksum = checksum.map(|(text, _)| text).or(address.checksum);
            Some(CopySource::Git(address.with_git_dir(add.keep_git_dir.map(|(keep, _)| keep))))
        }
    })
}

fn expand(scope: &Scope, word: &Word, escape: Escape) -> Result<String, Box<Diagnostic>> {
    let expanded = scope.expand(&word.text, escape, Mode::default());
    expanded.map(|expanded| expanded.text).map_err(|message| Box::new(cannot_expand(word, message)))
}

fn placed(error: Diagnostic, place: Option<Span>) -> Diagnostic {
    Diagnostic { labels: Vec::from_iter(place.map(|span| Label { span, text: "declared here".to_owned() })), ..error }
}

/// Where a global ARG declares it.
fn declared(file: &Dockerfile) -> Option<Span> {
    let declarations = file
        .meta_args
        .iter()
        .filter_map(|instruction| if let Command::Arg(declarations) = &instruction.command { Some(declarations) } else { None });
    declarations.flatten().rfind(|declaration| declaration.key.text == NAME).map(|declaration| declaration.key.span)
}
