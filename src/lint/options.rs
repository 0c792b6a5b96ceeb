//! `# check=skip=A,B;error=true;experimental=C`: which rules hold.
//!
//! Source: BuildKit `linter.go: ParseLintOptions, WithMergedConfigFromComments`.

use std::collections::BTreeSet;

use super::Rule;
use crate::{
    diag::Span,
    dockerfile::{boolean, check_comment, check_directive},
};

/// Which rules hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    skip: Names,
    experimental: Names,
    /// Do findings make the build fail?
    pub error: bool,
}

/// Names of rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    named: BTreeSet<String>,
}

/// Options that cannot be read: BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse check options: {message}")]
pub struct BadOptions {
    /// What is wrong.
    pub message: String,
    /// The directive's value; `None`: they are not in the file.
    pub span: Option<Span>,
}

impl Options {
    /// Those of a build: of the build argument `BUILDKIT_DOCKERFILE_CHECK` if it is given, else of the file's directive.
    pub fn of(text: &str, argument: Option<&str>) -> Result<Self, BadOptions> {
        let bad = |span| move |message| BadOptions { message, span };
        match (argument, check_directive(text)) {
            (Some(argument), _) => Self::parse(argument).map_err(bad(None)),
            (None, Some(value)) => Self::parse(&value.text).map_err(bad(Some(value.span))),
            (None, None) => Ok(Self::default()),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.splitn(3, ';') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("invalid check option {part:?}"))?;
            match key.trim() {
                "skip" => options.skip = Names::parse(value),
                "experimental" => options.experimental = Names::parse(value),
                "error" => options.error = boolean(value.trim()).ok_or_else(|| format!("failed to parse check option {part:?}"))?,
                other => return Err(format!("invalid check option {other:?}")),
            }
        }
        Ok(options)
    }

    /// Does the rule hold for an instruction with these comments above it? Comments that cannot be read say nothing.
    pub(super) fn allow(&self, rule: &Rule, comments: &[String]) -> bool {
        let inline = check_comment(comments).and_then(|value| Self::parse(value).ok());
        let each = || std::iter::once(self).chain(&inline);
        if rule.experimental {
            return each().any(|options| options.experimental.hold(rule.name));
        }
        // `skip=all` was written with BuildKit's rules in mind, and means ours as well.
        !each().any(|options| options.skip.hold(rule.name))
    }
}

impl Names {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self { all: true, named: BTreeSet::new() },
            names => Self { all: false, named: names.split(',').map(|name| name.trim().to_owned()).collect() },
        }
    }

    fn hold(&self, name: &str) -> bool {
        self.all || self.named.contains(name)
    }
}
