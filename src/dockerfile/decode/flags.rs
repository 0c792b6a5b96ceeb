//! Builder flags: what an instruction knows, and what was written.
//!
//! Source: BuildKit `instructions/bflag.go`.

use crate::diag::{Diagnostic, Span, closest};

use crate::dockerfile::ast::Word;
use crate::dockerfile::node::Node;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// `true`, `false` or nothing.
    Switch,
    /// One value; the flag may stand once.
    Value,
    /// A value; the flag may be repeated.
    Values,
}

/// The flags that an instruction knows.
pub(super) type Known = &'static [(&'static str, Takes)];

/// One flag as it was written.
#[derive(Debug)]
struct Given {
    name: &'static str,
    value: Word,
}

/// The flags of one instruction, checked.
#[derive(Debug, Default)]
pub(super) struct Flags {
    given: Vec<Given>,
}

impl Flags {
    /// Checks all flags; every wrong one is an error of its own.
    pub(super) fn read(node: &Node, known: Known) -> Result<Self, Vec<Diagnostic>> {
        let mut flags = Self::default();
        let mut errors = Vec::new();
        for flag in &node.flags {
            let text = flag.text.strip_prefix("--").unwrap_or(&flag.text);
            let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
            let Some((name, takes)) = known.iter().find(|(own, _)| *own == name) else {
                errors.push(unknown(node, name, flag.span, known));
                continue;
            };
            let value = value.map(|value| Word { text: value.to_owned(), span: flag.value });
            match flags.check(name, *takes, value, flag.span) {
                Ok(value) => flags.given.push(Given { name, value }),
                Err(error) => errors.push(*error),
            }
        }
        if errors.is_empty() { Ok(flags) } else { Err(errors) }
    }

    fn check(&self, name: &str, takes: Takes, value: Option<Word>, span: Span) -> Result<Word, Box<Diagnostic>> {
        if takes != Takes::Values
            && let Some(earlier) = self.given.iter().find(|given| given.name == name)
        {
            let error = Diagnostic::error(format!("the flag `--{name}` stands here twice"), span);
            return Err(Box::new(error.also(earlier.value.span, "the first one").help("remove one of them")));
        }
        let missing = || Box::new(Diagnostic::error(format!("the flag `--{name}` has no value"), span).help(format!("write `--{name}=…`")));
        match (takes, value) {
            (Takes::Switch, None) => Ok(Word { text: "true".to_owned(), span }),
            (Takes::Switch, Some(value)) => match value.text.to_lowercase().as_str() {
                lower @ ("true" | "false") => Ok(Word { text: lower.to_owned(), ..value }),
                "" => Err(missing()),
                _ => {
                    let error = Diagnostic::error(format!("`{}` is neither `true` nor `false`", value.text), value.span);
                    Err(Box::new(error.label(format!("the value of `--{name}`")).help(format!("write `--{name}` alone, or leave it out"))))
                }
            },
            (Takes::Value | Takes::Values, value) => value.ok_or_else(missing),
        }
    }

    /// The value of a flag, if there is one and it is not empty.
    pub(super) fn word(&self, name: &str) -> Option<Word> {
        self.given.iter().find(|given| given.name == name).map(|given| given.value.clone()).filter(|word| !word.text.is_empty())
    }

    /// The values of a flag that may be repeated.
    pub(super) fn words(&self, name: &str) -> Vec<Word> {
        self.given.iter().filter(|given| given.name == name).map(|given| given.value.clone()).collect()
    }

    /// A switch, if it was written.
    pub(super) fn switch(&self, name: &str) -> Option<(bool, Span)> {
        self.word(name).map(|word| (word.text == "true", word.span))
    }

    /// The distinct names, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let names: std::collections::BTreeSet<&str> = self.given.iter().map(|given| given.name).collect();
        names.into_iter().map(str::to_owned).collect()
    }
}

fn unknown(node: &Node, name: &str, span: Span, known: Known) -> Diagnostic {
    let keyword = node.keyword.text.to_uppercase();
    let error = Diagnostic::error(format!("{keyword} has no flag `--{name}`"), span);
    if let Some(near) = closest(name, known.iter().map(|(own, _)| *own)) {
        return error.help(format!("did you mean `--{near}`?"));
    }
    let home = super::ALL_FLAGS.iter().find(|(other, flags)| *other != keyword && flags.iter().any(|(own, _)| *own == name));
    if let Some((other, _)) = home {
        return error.help(format!("`--{name}` belongs to {other}"));
    }
    if known.is_empty() {
        return error.note(format!("{keyword} takes no flags")).help("remove it");
    }
    let names: Vec<String> = known.iter().map(|(own, _)| format!("`--{own}`")).collect();
    error.note(format!("{keyword} knows {}", names.join(", "))).help("remove it, or take one of these")
}
