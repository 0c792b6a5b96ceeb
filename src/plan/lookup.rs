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
pub(super) struct Wanted<'a> {
    /// The name, expanded.
    pub(super) name: &'a str,
    /// `--platform` of FROM.
    pub(super) platform: Option<&'a Platform>,
    /// Where it stands.
    pub(super) span: Span,
    /// Who asks.
    pub(super) asker: Asker,
    /// Names of stages that could have been meant.
    pub(super) stages: Vec<&'a str>,
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
    pub(super) fn find(&mut self, wanted: &Wanted<'_>) -> Result<Base, Blamed> {
        let name = context_name(self.request, wanted.name).unwrap_or(wanted.name);
        let platform = wanted.platform.unwrap_or(&self.platform).clone();
        let bases = self.bases;
        let key = (name.to_owned(), platform);
        let answer = self.known.entry(key).or_insert_with_key(|(name, platform)| bases.base(name, platform));
        match answer.clone() {
            Ok(Some(base)) => Ok(base),
            Ok(None) => {
                let note = (wanted.asker != Asker::From).then(|| format!("there is no image `{}` either", wanted.name));
                Err(Box::new((self.missing(wanted, note), Kind::Request)))
            }
            Err(error) => Err(Box::new(self.failed(wanted, &error))),
        }
    }

    /// The look-up itself failed. When a stage has nearly that name, that is the likelier fault, and the file's.
    fn failed(&self, wanted: &Wanted<'_>, error: &BaseError) -> (Diagnostic, Kind) {
        if matches!(error.kind, Kind::Request | Kind::Remote) && self.meant(wanted).is_some() {
            return (self.missing(wanted, Some(error.message.clone())), Kind::Request);
        }
        let mut diagnostic = Diagnostic::error(error.message.clone(), wanted.span).label("needed here");
        diagnostic.help.clone_from(&error.help);
        (diagnostic, error.kind)
    }

    fn missing(&self, wanted: &Wanted<'_>, note: Option<String>) -> Diagnostic {
        let headline = match wanted.asker {
            Asker::From => format!("no image, stage or named context is called `{}`", wanted.name),
            Asker::Copy | Asker::Mount => format!("no stage or named context is called `{}`", wanted.name),
        };
        let mut diagnostic = Diagnostic::error(headline, wanted.span).label("not found");
        diagnostic.notes.extend(note);
        if wanted.asker == Asker::Mount && wanted.name.bytes().all(|byte| byte.is_ascii_digit()) {
            return diagnostic.help("a mount takes its stage by name: give the stage one with AS");
        }
        match self.meant(wanted) {
            Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
            None => diagnostic,
        }
    }

    /// The stage or context with nearly that name.
    fn meant(&self, wanted: &Wanted<'_>) -> Option<String> {
        let contexts = self.request.contexts.iter().map(String::as_str);
        let candidates = wanted.stages.iter().copied().chain(contexts).filter(|name| *name != wanted.name);
        closest(wanted.name, candidates).map(str::to_owned)
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
