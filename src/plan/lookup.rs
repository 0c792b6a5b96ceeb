//! Bases and named contexts, each looked up once, and what is said when one is not there.

use std::collections::BTreeMap;

use super::{Base, BaseError, Bases, Request};
use crate::{
    diag::{Diagnostic, Span, closest},
    error::Kind,
    oci::{Platform, Reference},
};

/// The base that means nothing.
pub(super) const SCRATCH: &str = "scratch";

/// Looks names up, remembers the answers.
pub(super) struct Lookup<'a> {
    bases: &'a dyn Bases,
    request: &'a Request,
    /// What a name is looked up for when no FROM says otherwise.
    platform: Platform,
    known: BTreeMap<(String, Platform), Result<Option<Base>, BaseError>>,
}

/// Who asks: it decides the words of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// FROM
    From,
    /// `COPY --from`
    Copy,
    /// `RUN --mount=from=`
    Mount,
}

/// A question.
pub(super) struct Question<'a> {
    /// The name, expanded.
    pub(super) name: &'a str,
    /// `--platform` of FROM.
    pub(super) platform: Option<&'a Platform>,
    /// Where it stands.
    pub(super) span: Span,
    /// Who asks.
    pub(super) asker: Asker,
    /// Names of stages that could have been meant: asked for only when there is no such base, because there may be many.
    pub(super) stages: &'a dyn Fn() -> Vec<&'a str>,
}

/// What to say, and whose fault it is.
pub(super) type Blamed = Box<(Diagnostic, Kind)>;

impl<'a> Lookup<'a> {
    /// Nothing is looked up yet.
    pub(super) fn new(bases: &'a dyn Bases, request: &'a Request, platform: Platform) -> Self {
        Self { bases, request, platform, known: BTreeMap::new() }
    }

    /// What the build is for.
    pub(super) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// What the name stands for, or what to say and whose fault it is.
    pub(super) fn find(&mut self, question: &Question<'_>) -> Result<Base, Blamed> {
        let name = context_name(self.request, question.name).unwrap_or(question.name);
        let platform = question.platform.unwrap_or(&self.platform).clone();
        let bases = self.bases;
        let key = (name.to_owned(), platform);
        let answer = self.known.entry(key).or_insert_with_key(|(name, platform)| bases.base(name, platform));
        match answer.clone() {
            Ok(Some(base)) => Ok(base),
            Ok(None) => {
                let note = (question.asker != Asker::From).then(|| format!("there is no image `{}` either", question.name));
                Err(Box::new((self.missing(question, note), Kind::Request)))
            }
            Err(error) => Err(Box::new(self.failed(question, &error))),
        }
    }

    /// The look-up itself failed. When a stage has nearly that name, that is the likelier fault, and the file's.
    fn failed(&self, question: &Question<'_>, error: &BaseError) -> (Diagnostic, Kind) {
        if matches!(error.kind, Kind::Request | Kind::Remote) && self.meant(question).is_some() {
            return (self.missing(question, Some(error.message.clone())), Kind::Request);
        }
        let mut diagnostic = Diagnostic::error(error.message.clone(), question.span).label("needed here");
        diagnostic.help.clone_from(&error.help);
        (diagnostic, error.kind)
    }

    fn missing(&self, question: &Question<'_>, note: Option<String>) -> Diagnostic {
        let headline = match question.asker {
            Asker::From => format!("no image, stage or named context is called `{}`", question.name),
            Asker::Copy | Asker::Mount => format!("no stage or named context is called `{}`", question.name),
        };
        let mut diagnostic = Diagnostic::error(headline, question.span).label("not found");
        diagnostic.notes.extend(note);
        if question.asker == Asker::Mount && question.name.bytes().all(|byte| byte.is_ascii_digit()) {
            return diagnostic.help("a mount takes its stage by name: give the stage one with AS");
        }
        match self.meant(question) {
            Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
            None => diagnostic,
        }
    }

    /// The stage or context with nearly that name.
    fn meant(&self, question: &Question<'_>) -> Option<String> {
        let contexts = self.request.contexts.iter().map(String::as_str);
        let candidates = (question.stages)().into_iter().chain(contexts).filter(|name| *name != question.name);
        closest(question.name, candidates).map(str::to_owned)
    }
}

/// The named context that a name stands for, as the request spells it: `docker.io/library/alpine:latest` is `alpine`.
pub(super) fn context_name<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    // BuildKit never lets a context stand in for these two.
    if name.eq_ignore_ascii_case(SCRATCH) || name.eq_ignore_ascii_case("context") {
        return None;
    }
    let contexts = || request.contexts.iter().map(String::as_str);
    if let Some(exact) = contexts().find(|context| *context == name) {
        return Some(exact);
    }
    let familiar = familiar(name)?;
    contexts().find(|context| self::familiar(context).as_deref() == Some(&familiar))
}

fn familiar(name: &str) -> Option<String> {
    let familiar = name.parse::<Reference>().ok()?.familiar();
    Some(familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned())
}
