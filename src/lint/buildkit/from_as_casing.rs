//! `FROM … as`.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};

pub(super) const RULE: Rule = Rule {
    name: "FromAsCasing",
    summary: "`AS` is written as `FROM` is, both in capitals or both in small letters",
    origin: Origin::BuildKit(Some("from-as-casing")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox as build
",
        says: &[(1, "'as' and 'FROM' keywords' casing do not match")],
        good: "\
FROM busybox AS build
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for line in view.stage_lines() {
        let [_, word, _, ..] = line.words else { continue };
        let (from, small, large) = (&line.keyword.text, line.keyword.text.to_lowercase(), line.keyword.text.to_uppercase());
        let expected = match from {
            _ if *from == small => word.text.to_lowercase(),
            _ if *from == large => word.text.to_uppercase(),
            // A keyword that is neither is another rule's.
            _ => continue,
        };
        if word.text != expected {
            let detail = format!("'{}' and '{from}' keywords' casing do not match", word.text);
            notes.add(line.comments, Place::from(line).mark(word.span), detail);
        }
    }
}
