//! A comment above a stage or an ARG that is not its description.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};

pub(super) const RULE: Rule = Rule {
    name: "InvalidDefinitionDescription",
    summary: "the comment directly above a named stage or an ARG begins with its name, because it is shown as its description",
    origin: Origin::BuildKit(Some("invalid-definition-description")),
    experimental: true,
    look,
    example: Example {
        bad: "\
# check=experimental=InvalidDefinitionDescription
# Where programs go
ARG PREFIX=/usr
FROM busybox
",
        says: &[(3, "Comment for ARG should follow the format: `# PREFIX <description>`")],
        good: "\
# check=experimental=InvalidDefinitionDescription
# PREFIX Where programs go
ARG PREFIX=/usr
FROM busybox
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for line in view.lines.iter().filter(|line| !line.rejected) {
        let Some(comment) = line.comments.last() else { continue };
        let first = comment.split(' ').next().unwrap_or_default();
        let keyword = line.keyword.text.to_uppercase();
        let names: Vec<String> = match (keyword.as_str(), line.words) {
            ("FROM", [_, _, name]) => vec![name.text.to_lowercase()],
            ("ARG", words) => words.iter().map(|word| word.text.split('=').next().unwrap_or_default().to_owned()).collect(),
            _ => continue,
        };
        if names.iter().any(|name| name == first) {
            continue;
        }
        let example = if let [name] = names.as_slice() { name } else { "<arg_key>" };
        let detail = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
        let help = "if the comment is no description, put a blank `#` line between it and the instruction";
        notes.advise(line.comments, Place::from(*line), detail, Some(help));
    }
}
