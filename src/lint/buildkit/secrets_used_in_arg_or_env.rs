//! A secret that ends in the image.

use super::super::{
    Example, Origin, Rule,
    view::{Notes, View},
};
use crate::dockerfile::Command;
use crate::plan::quoted;

pub(super) const RULE: Rule = Rule {
    name: "SecretsUsedInArgOrEnv",
    summary: "no secret is an ARG or an ENV: both can be read in the image",
    origin: Origin::BuildKit(Some("secrets-used-in-arg-or-env")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
ARG API_TOKEN
",
        says: &[(2, r#"Do not use ARG or ENV instructions for sensitive data (ARG "API_TOKEN")"#)],
        good: "\
FROM busybox
RUN --mount=type=secret,id=api_token true
",
        files: &[],
    },
};

/// Parts of a name that say that its value is secret.
const SECRET: [&str; 10] = ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// Parts that say that it is not after all.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for command in view.commands() {
        let (keyword, names): (_, Vec<&str>) = if let Command::Arg(declarations) = &command.instruction.command {
            ("ARG", declarations.iter().map(|declaration| declaration.key.text.as_str()).collect())
        } else if let Command::Env(_) = command.instruction.command {
            ("ENV", command.values().iter().map(String::as_str).collect())
        } else {
            continue;
        };
        for name in names.into_iter().filter(|name| is_secret(name)) {
            let detail = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {})", quoted(name));
            notes.advise(command.comments(), command.place, detail, Some("use `RUN --mount=type=secret`"));
        }
    }
}

fn is_secret(name: &str) -> bool {
    let has = |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)));
    has(&SECRET) && !has(&HARMLESS)
}
