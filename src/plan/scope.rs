//! Variables: what ARG and ENV set, in the order in which they were last set.
//!
//! ARG and ENV overwrite each other, the last wins; a variable that is set again moves to the end, as in BuildKit's `EnvList`.
//!
//! Source: BuildKit `client/llb/meta.go`, `dockerfile2llb/convert.go: buildMetaArgs`, `platform.go: defaultArgs`.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use super::{Argument, Report, Request, facts::cut, history};
use crate::{
    diag::{Diagnostic, closest},
    dockerfile::{self, ArgDeclaration, Command, Dockerfile, Escape, ExpandError, Expanded, Mode, Word},
    oci::Platform,
};

/// What one expansion may read from variables: a value longer than the kernel takes is useless, and values double easily.
const EXPANSION_BYTES: usize = 4 << 20;

/// Who set a variable last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setter {
    /// ENV, the base's config, the platform.
    Env,
    /// ARG.
    Arg,
}

#[derive(Debug, Clone)]
struct Variable {
    order: u64,
    value: String,
    setter: Setter,
}

impl Variable {
    fn bytes(&self, name: &str) -> usize {
        name.len() + self.value.len() + 64
    }
}

/// The variables that hold at one place.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    variables: BTreeMap<String, Variable>,
    next: u64,
    /// Of all names and values: it is asked for at every ARG.
    bytes: usize,
}

impl Scope {
    /// Sets a variable; it is the last in order now.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>, setter: Setter) {
        self.unset(name);
        let variable = Variable { order: self.next, value: value.into(), setter };
        self.next += 1;
        self.bytes += variable.bytes(name);
        self.variables.insert(name.to_owned(), variable);
    }

    /// It is as if it had never been set.
    pub(super) fn unset(&mut self, name: &str) {
        if let Some(gone) = self.variables.remove(name) {
            self.bytes -= gone.bytes(name);
        }
    }

    /// The value of a variable, if it is set.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|variable| variable.value.as_str())
    }

    /// Names and values in order, with who set them.
    pub(super) fn in_order(&self) -> Vec<(&str, &str, Setter)> {
        let mut all: Vec<_> = self.variables.iter().collect();
        all.sort_by_key(|(_, variable)| variable.order);
        all.into_iter().map(|(name, variable)| (name.as_str(), variable.value.as_str(), variable.setter)).collect()
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The names that are set.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// Expands a text; `Err` holds what is wrong.
    pub(super) fn expand(&self, text: &str, escape: Escape, mode: Mode) -> Result<Expanded, ExpandError> {
        let budget = Budget::default();
        let expanded = dockerfile::expand(text, escape.0, mode, &|name| budget.spend(self.value(name)));
        budget.check()?;
        expanded.map_err(|error| self.explained(error))
    }

    /// Expands and splits a text; `Err` holds what is wrong.
    pub(super) fn expand_words(&self, text: &str, escape: Escape) -> Result<Vec<String>, ExpandError> {
        let budget = Budget::default();
        let words = dockerfile::expand_words(text, escape.0, Mode::default(), &|name| budget.spend(self.value(name)));
        budget.check()?;
        words.map_err(|error| self.explained(error))
    }

    /// Names the variable that was probably meant.
    fn explained(&self, error: ExpandError) -> ExpandError {
        match error.unset.as_deref().and_then(|name| closest(name, self.names())) {
            Some(meant) => {
                let help = format!("did you mean `${{{meant}}}`?");
                error.help(help)
            }
            None => error,
        }
    }
}

/// Values by name, in the order in which their names first came.
#[derive(Debug, Clone)]
pub(super) struct Ordered<V> {
    items: Vec<(String, V)>,
    places: BTreeMap<String, usize>,
}

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Self { items: Vec::new(), places: BTreeMap::new() }
    }
}

impl<V> Ordered<V> {
    /// Sets a value; a name that is there keeps its place.
    pub(super) fn set(&mut self, name: &str, value: V) {
        if let Some((_, known)) = self.places.get(name).and_then(|place| self.items.get_mut(*place)) {
            *known = value;
        } else {
            self.places.insert(name.to_owned(), self.items.len());
            self.items.push((name.to_owned(), value));
        }
    }

    /// Is there a value of that name?
    pub(super) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Names and values in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.items.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// Bounds what one expansion reads.
#[derive(Default)]
struct Budget {
    spent: Cell<usize>,
}

impl Budget {
    fn spend(&self, value: Option<&str>) -> Option<String> {
        let value = value?;
        self.spent.set(self.spent.get().saturating_add(value.len()));
        // Beyond the budget the expansion fails anyway; until then it costs nothing.
        Some(if self.spent.get() > EXPANSION_BYTES { String::new() } else { value.to_owned() })
    }

    fn check(&self) -> Result<(), String> {
        if self.spent.get() > EXPANSION_BYTES { Err("the values of its variables are larger than 4 MiB".to_owned()) } else { Ok(()) }
    }
}

/// The global scope: the platform's variables and the ARGs before the first FROM. FROM lines see it, stages import from it.
#[derive(Debug)]
pub(super) struct Globals {
    /// The values.
    pub(super) scope: Scope,
    /// Names that an ARG before the first FROM declares, with or without a value.
    pub(super) declared: BTreeSet<String>,
}

impl Globals {
    /// Evaluates the ARGs before the first FROM.
    pub(super) fn of(file: &Dockerfile, request: &Request, platform: &Platform, report: &mut Report) -> Self {
        let mut globals = Self { scope: predefined(file, request, platform), declared: BTreeSet::new() };
        let bases = default_bases(file, globals.scope.clone());
        report.note(|facts| facts.default_bases = bases);
        for instruction in &file.meta_args {
            if let Command::Arg(declarations) = &instruction.command {
                for declaration in declarations {
                    if report.is_exhausted() {
                        break;
                    }
                    globals.declare(declaration, file.escape, request, report);
                }
            }
        }
        globals
    }

    /// The names that a FROM line may use: those that are set, in order, then those that are only declared.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.scope.in_order().into_iter().map(|(name, ..)| name.to_owned()).collect();
        names.extend(self.declared.iter().filter(|name| self.scope.value(name).is_none()).cloned());
        names
    }

    fn declare(&mut self, declaration: &ArgDeclaration, escape: Escape, request: &Request, report: &mut Report) {
        let key = &declaration.key.text;
        self.declared.insert(key.clone());
        let mut argument = Argument { name: key.clone(), ..Argument::default() };
        if let Some(value) = request.build_args.get(key) {
            self.scope.set(key, value, Setter::Arg);
        } else if let Some(value) = &declaration.value {
            match self.scope.expand(&value.text, escape, Mode::default()) {
                Ok(expanded) if report.charge(key.len() + expanded.text.len(), value.span) => {
                    argument.uses = expanded.used;
                    self.scope.set(key, expanded.text, Setter::Arg);
                }
                Ok(_) => {}
                Err(message) => report.error(cannot_expand(value, message)),
            }
        }
        argument.value = self.scope.value(key).map(cut).unwrap_or_default();
        report.note(|facts| facts.globals.push(argument));
    }
}

/// The base of every stage when no build argument is given, up to the first that cannot be expanded.
fn default_bases(file: &Dockerfile, mut scope: Scope) -> Vec<String> {
    let arguments = file.meta_args.iter().filter_map(|argument| if let Command::Arg(each) = &argument.command { Some(each) } else { None });
    for declaration in arguments.flatten() {
        let Some(value) = &declaration.value else { continue };
        match scope.expand(&value.text, file.escape, Mode::default()) {
            Ok(expanded) if scope.bytes() + expanded.text.len() < EXPANSION_BYTES => {
                scope.set(&declaration.key.text, expanded.text, Setter::Arg);
            }
            Ok(_) | Err(_) => return Vec::new(),
        }
    }
    let mut left = EXPANSION_BYTES;
    let bases = file.stages.iter().map_while(|stage| {
        let base = scope.expand(&stage.base.text, file.escape, Mode::default()).ok()?.text;
        left = left.checked_sub(base.len())?;
        Some(base)
    });
    bases.collect()
}

/// An error in a word's variables. The lexer's words repeat the word, which the excerpt shows already.
pub(super) fn cannot_expand(word: &Word, error: ExpandError) -> Diagnostic {
    let repeated = format!("failed to process {}: ", history::quote(&word.text));
    let ended = error.message.contains("unsupported modifier (\u{fffd})");
    let error = if ended { ExpandError { message: "a substitution is not closed".to_owned(), ..error } } else { error };
    let headline = error.message.strip_prefix(&repeated).map(str::to_owned).unwrap_or(error.message);
    Diagnostic { help: error.help, ..Diagnostic::error(headline, word.span).label("cannot be expanded") }
}

/// Names that are set in the global scope although no ARG declares them.
pub(super) const PLATFORM_NAMES: [&str; 11] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

fn predefined(file: &Dockerfile, request: &Request, target: &Platform) -> Scope {
    let build = Platform::host();
    let last = file.stages.last().and_then(|stage| stage.name.as_ref()).map(|name| name.text.clone());
    let stage = request.target.clone().or(last).unwrap_or_else(|| "default".to_owned());
    let optional = |part: &Option<String>| part.clone().unwrap_or_default();
    let values = [
        build.to_string(),
        build.os.clone(),
        optional(&build.os_version),
        build.architecture.clone(),
        optional(&build.variant),
        target.to_string(),
        target.os.clone(),
        optional(&target.os_version),
        target.architecture.clone(),
        optional(&target.variant),
        stage,
    ];
    let mut scope = Scope::default();
    for (name, value) in PLATFORM_NAMES.into_iter().zip(values) {
        scope.set(name, request.build_args.get(name).cloned().unwrap_or(value), Setter::Arg);
    }
    scope
}
