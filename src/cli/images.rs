//! `lapstrake images` and `tag`.

use super::{Failure, report, surroundings::Surroundings};
use crate::{
    error::{Error, Kind},
    image::{self, Image},
    oci::{Platform, Reference},
    store::Store,
};

/// What is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    pub(super) quiet: bool,
    pub(super) digests: bool,
    pub(super) json: bool,
}

/// An image's name, or why it is none.
pub(super) fn reference(text: &str) -> Result<Reference, Error> {
    text.parse().map_err(|error: crate::oci::BadReference| Error::new(Kind::Usage, error.to_string()))
}

/// Gives an image another name.
pub(super) fn tag(around: &Surroundings, source: &str, target: &str) -> Result<(), Failure> {
    let store = around.store()?;
    let (source, target) = (reference(source)?, reference(target)?);
    if target.digest.is_some() {
        return Err(Error::new(Kind::Usage, "a new name cannot have a digest").into());
    }
    let found = store.resolve_ref(&source)?;
    let found = found.ok_or_else(|| unknown(&store, &source))?;
    store.put_ref(&target, &found)?;
    Ok(())
}

/// The error of a name that the store does not have.
pub(super) fn unknown(store: &Store, name: &Reference) -> Error {
    let known: Vec<String> = store.refs().unwrap_or_default().into_iter().map(|(name, _)| name.familiar()).collect();
    let familiar = name.familiar();
    let error = Error::new(Kind::Request, format!("the store has no image called `{familiar}`"));
    match crate::diag::closest(&familiar, known.iter().map(String::as_str)) {
        Some(close) => error.help(format!("did you mean `{close}`?")),
        None => error.help("`lapstrake images` lists what there is"),
    }
}

/// Lists the images. One whose blobs are damaged is listed without its details.
pub(super) fn list(around: &Surroundings, columns: Columns) -> Result<(), Failure> {
    let store = around.store()?.looking();
    let refs = store.refs()?;
    let rows: Vec<(Reference, crate::oci::Descriptor, Option<Image>)> = refs
        .into_iter()
        .map(|(name, target)| {
            let image = image::read(&store, &target, &Platform::host()).ok();
            (name, target, image)
        })
        .collect();
    let text = if columns.json { as_json(&rows)? } else { as_table(&rows, columns) };
    Ok(report::print(&text)?)
}

type Row = (Reference, crate::oci::Descriptor, Option<Image>);

fn short_id(image: Option<&Image>) -> String {
    image.map_or_else(|| "<damaged>".to_owned(), |image| image.config_digest.hex().chars().take(12).collect())
}

fn size(image: &Image) -> u64 {
    image.layers.iter().map(|layer| layer.size).sum()
}

fn as_json(rows: &[Row]) -> Result<String, Error> {
    let all: Vec<serde_json::Value> = rows
        .iter()
        .map(|(name, target, image)| {
            serde_json::json!({
                "name": name.familiar(),
                "digest": target.digest.to_string(),
                "id": image.as_ref().map(|image| image.config_digest.to_string()),
                "created": image.as_ref().and_then(|image| image.config.created.clone()),
                "size": image.as_ref().map(size),
                "platform": image.as_ref().map(|image| image.platform.to_string()),
            })
        })
        .collect();
    serde_json::to_string_pretty(&all).map(|text| text + "\n").map_err(|error| Error::new(Kind::Bug, "no JSON").because(&error))
}

fn as_table(rows: &[Row], columns: Columns) -> String {
    let mut table: Vec<Vec<String>> = Vec::new();
    if !columns.quiet {
        let digest = columns.digests.then_some("DIGEST");
        table.push(["REPOSITORY", "TAG"].into_iter().chain(digest).chain(["IMAGE ID", "CREATED", "SIZE"]).map(str::to_owned).collect());
    }
    for (name, target, image) in rows {
        if columns.quiet {
            table.push(vec![short_id(image.as_ref())]);
            continue;
        }
        let tag = name.tag.clone().unwrap_or_else(|| "<none>".into());
        let familiar = name.familiar();
        let familiar = familiar.strip_suffix(&format!(":{tag}")).unwrap_or(&familiar).to_owned();
        let mut row = vec![familiar, tag];
        if columns.digests {
            row.push(target.digest.to_string());
        }
        row.push(short_id(image.as_ref()));
        row.push(
            image
                .as_ref()
                .and_then(|image| image.config.created.clone())
                .map_or_else(|| "-".into(), |created| created.chars().take(19).collect()),
        );
        row.push(image.as_ref().map_or_else(|| "-".into(), |image| human(size(image))));
        table.push(row);
    }
    align(&table)
}

/// Bytes as `docker images` shows them.
fn human(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.*}{}", usize::from(unit > 0 && value < 100.0), units.get(unit).unwrap_or(&"B"))
}

/// Columns as wide as their widest cell.
pub(super) fn align(table: &[Vec<String>]) -> String {
    let count = table.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        (0..count).map(|column| table.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in table {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}
