//! `lapstrake build --call …`: what is said of a build instead of doing it, on standard output.
//!
//! Source: docker buildx `build --call`, `--check`; BuildKit `frontend/subrequests`.

mod findings;
mod json;
mod tables;

use super::{Failure, args::Build, report};
use crate::{
    dockerfile,
    engine::Event,
    error::{Error, Kind},
    front::{self, Checked, Context, Request, Session, Text},
};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    method: Method,
    form: Form,
    /// Findings are no failure.
    ignore_status: bool,
}

/// What is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
}

/// How it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    /// As buildx.
    Json,
    /// Workflow commands, that become annotations.
    Github,
}

impl Call {
    /// What the flags ask for; `None`: a build.
    pub(super) fn of(args: &Build) -> Result<Option<Self>, Error> {
        let text = if args.check { "check" } else { &args.call };
        let usage = |what: String| Error::new(Kind::Usage, what);
        let mut fields = text.split(',');
        let mut method = fields.next().unwrap_or_default();
        let (mut form, mut ignore_status) = (Form::Text, false);
        for field in fields {
            match field.split_once('=').unwrap_or((field, "true")) {
                ("format", "text") => form = Form::Text,
                ("format", "json") => form = Form::Json,
                ("format", "github") => form = Form::Github,
                ("format", other) => return Err(usage(format!("`{other}` is no format: text, json or github"))),
                ("ignorestatus", "true" | "1") => ignore_status = true,
                ("ignorestatus", "false" | "0") => ignore_status = false,
                ("method", given) if method.is_empty() => method = given,
                _ => return Err(usage(format!("`{field}` in --call has no meaning")).help("the form is METHOD[,format=text|json|github]")),
            }
        }
        let method = match method {
            "build" | "" => return Ok(None),
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            other => return Err(usage(format!("`{other}` cannot be called: build, check, outline or targets"))),
        };
        if form == Form::Github && method != Method::Check {
            return Err(usage("only findings are annotations: `format=github` goes with `check`".to_owned()));
        }
        Ok(Some(Self { method, form, ignore_status }))
    }

    /// Says it. Findings of `check` are a failure, as with buildx.
    pub(super) fn run(
        self,
        request: &Request,
        context: &Context,
        text: &Text,
        session: &Session<'_>,
        event: &mut dyn FnMut(Event),
    ) -> Result<(), Failure> {
        let failure = |error| Failure::in_text(error, text.source.clone());
        match self.method {
            Method::Check => self.check(front::check(request, context, text, session, event), text),
            Method::Outline => {
                let outline = front::outline(request, context, text, session, event).map_err(failure)?;
                let shown = if self.form == Form::Json { json::outline(&outline, text)? } else { tables::outline(&outline) };
                report::print(&shown).map_err(Failure::from)
            }
            Method::Targets => {
                let parsed = dockerfile::parse(&text.source.text);
                if !parsed.errors.is_empty() {
                    return Err(failure(Error::at(Kind::Request, parsed.errors)));
                }
                let stages = &parsed.dockerfile.stages;
                let shown = if self.form == Form::Json { json::targets(stages, text)? } else { tables::targets(stages) };
                report::print(&shown).map_err(Failure::from)
            }
        }
    }

    fn check(self, checked: Checked, text: &Text) -> Result<(), Failure> {
        let shown = match self.form {
            Form::Text => findings::excerpts(&checked, text),
            Form::Json => json::findings(&checked, text)?,
            Form::Github => findings::annotations(&checked, text),
        };
        report::print(&shown)?;
        match checked.error {
            Some(error) => Err(Failure::in_text(error, text.source.clone())),
            None if checked.found.is_empty() || self.ignore_status => Ok(()),
            None => Err(Error::new(Kind::Request, format!("the check gave {}", findings::counted(checked.found.len()))).into()),
        }
    }
}
