//! Outlines and targets for people.

use super::super::progress::visible;
use crate::{
    dockerfile::Stage,
    plan::{Outline, OutlineMount},
};

/// `--call outline`
pub(super) fn outline(outline: &Outline) -> String {
    let heading = (outline.name.is_some() || outline.description.is_some()).then(|| {
        let name = outline.name.as_deref().unwrap_or("(default)");
        let description = outline.description.as_ref().map(|text| format!("DESCRIPTION: {}\n", cell(text)));
        format!("TARGET: {}\n{}", cell(name), description.unwrap_or_default())
    });
    let args = outline.args.iter().map(|arg| [arg.name.as_str(), &arg.value, arg.description.as_deref().unwrap_or_default()]);
    let tables = [
        table(["BUILD ARG", "VALUE", "DESCRIPTION"], args),
        table(["SECRET", "REQUIRED", "DESCRIPTION"], outline.secrets.iter().map(mount)),
        table(["SSH", "REQUIRED", "DESCRIPTION"], outline.ssh.iter().map(mount)),
        table(
            ["CACHE", "DESCRIPTION"],
            outline.caches.iter().map(|cache| {
                let [id, _, description] = mount(cache);
                [id, description]
            }),
        ),
    ];
    heading.into_iter().chain(tables.into_iter().flatten()).collect::<Vec<_>>().join("\n")
}

/// `--call targets`
pub(super) fn targets(stages: &[Stage]) -> String {
    let names: Vec<String> = stages
        .iter()
        .enumerate()
        .map(|(index, stage)| match (&stage.name, index + 1 == stages.len()) {
            (Some(name), true) => format!("{} (default)", name.text),
            (None, true) => "(default)".to_owned(),
            (Some(name), false) => name.text.clone(),
            (None, false) => index.to_string(),
        })
        .collect();
    let rows = names.iter().zip(stages).map(|(name, stage)| [name.as_str(), stage.doc.as_deref().unwrap_or_default()]);
    table(["TARGET", "DESCRIPTION"], rows).unwrap_or_default()
}

fn mount(mount: &OutlineMount) -> [&str; 3] {
    [&mount.id, if mount.required { "true" } else { "" }, mount.description.as_deref().unwrap_or_default()]
}

/// Columns of equal width; `None`: there is no row.
fn table<'a, const N: usize>(head: [&'a str; N], rows: impl Iterator<Item = [&'a str; N]>) -> Option<String> {
    let rows: Vec<[String; N]> = std::iter::once(head).chain(rows).map(|row| row.map(cell)).collect();
    if rows.len() < 2 {
        return None;
    }
    let mut widths = [0; N];
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = text.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(text, width)| format!("{text:width$}")).collect();
        cells.join("   ").trim_end().to_owned() + "\n"
    };
    Some(rows.iter().map(line).collect())
}

/// A text on one line, without what a terminal would obey.
fn cell(text: &str) -> String {
    visible(text.as_bytes())
}
