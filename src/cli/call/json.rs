//! The JSON of buildx: its keys, its places, the text itself in base64.

use serde_json::{Map, Value, json};

use super::findings::line_of;
use crate::{
    dockerfile::Stage,
    error::{Error, Kind},
    front::{Checked, Text},
    http::base64,
    plan::{Outline, OutlineMount},
};

/// `--call check,format=json`
pub(super) fn findings(checked: &Checked, text: &Text) -> Result<String, Error> {
    let warnings: Vec<Value> = checked
        .found
        .iter()
        .map(|finding| {
            object([
                ("ruleName", json!(finding.rule.name)),
                ("description", json!(finding.rule.summary)),
                ("url", json!(finding.rule.url())),
                ("detail", json!(finding.detail)),
                ("location", location(finding.place.lines)),
            ])
        })
        .collect();
    let source = json!({"filename": text.source.name, "language": "Dockerfile", "data": base64(text.source.text.as_bytes())});
    let error = checked.error.as_ref().map(|error| {
        let line = error.places.first().map(|place| line_of(&text.source.text, place.span()));
        let line = line.and_then(|line| u32::try_from(line).ok());
        object([("message", json!(error.to_string())), ("location", line.map_or(json!({}), |line| location((line, line))))])
    });
    written(&object([("warnings", json!(warnings)), ("sources", json!([source])), ("buildError", json!(error))]))
}

/// `--call outline,format=json`
pub(super) fn outline(outline: &Outline, text: &Text) -> Result<String, Error> {
    let args: Vec<Value> = outline
        .args
        .iter()
        .map(|arg| {
            let value = Some(&arg.value).filter(|value| !value.is_empty());
            object([
                ("name", json!(arg.name)),
                ("description", json!(arg.description)),
                ("value", json!(value)),
                ("location", location(arg.lines)),
            ])
        })
        .collect();
    written(&object([
        ("name", json!(outline.name)),
        ("description", json!(outline.description)),
        ("args", filled(args)),
        ("secrets", mounts("name", &outline.secrets)),
        ("ssh", mounts("name", &outline.ssh)),
        ("cache", mounts("ID", &outline.caches)),
        ("sources", json!([base64(text.source.text.as_bytes())])),
    ]))
}

/// `--call targets,format=json`
pub(super) fn targets(stages: &[Stage], text: &Text) -> Result<String, Error> {
    let targets: Vec<Value> = stages
        .iter()
        .enumerate()
        .map(|(index, stage)| {
            object([
                ("name", json!(stage.name.as_ref().map(|name| &name.text))),
                ("default", json!((index + 1 == stages.len()).then_some(true))),
                ("description", json!(stage.doc)),
                ("base", json!(stage.base.text)),
                ("platform", json!(stage.platform.as_ref().map(|platform| &platform.text))),
                ("location", location(stage.lines)),
            ])
        })
        .collect();
    written(&json!({"targets": targets, "sources": [base64(text.source.text.as_bytes())]}))
}

fn mounts(key: &'static str, mounts: &[OutlineMount]) -> Value {
    let mounts: Vec<Value> = mounts
        .iter()
        .map(|mount| {
            object([
                (key, json!(mount.id)),
                ("required", json!(mount.required.then_some(true))),
                ("description", json!(mount.description)),
                ("location", location(mount.lines)),
            ])
        })
        .collect();
    filled(mounts)
}

/// A list, if there is something in it.
fn filled(items: Vec<Value>) -> Value {
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

/// Without what is not set.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(fields.map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
}

fn location((first, last): (u32, u32)) -> Value {
    json!({"ranges": [{"start": {"line": first}, "end": {"line": last}}]})
}

fn written(value: &Value) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::new(Kind::Bug, "no JSON").because(&error))?;
    Ok(text + "\n")
}
