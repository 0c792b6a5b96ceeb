//! The page of `--timings`: what the ledger has of each step, and what the store has of its layer, in one file of HTML.
//!
//! The values are JSON in an element that no browser executes; a script makes text of them, never markup. What does not come
//! from here is not executed at all: the page's policy names its own script by digest.

mod measured;

use std::path::Path;

use serde_json::{Value, json};

use super::{
    ledger::{Entry, Ledger, now},
    progress::visible,
};
use crate::{
    engine::timing::{Instant, Span, Spell},
    error::{Error, Kind},
    front::Built,
    http::base64,
    oci::Digest,
    store::Store,
};
use measured::{Measured, Weight};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The longest instruction that is shown whole, in characters: a heredoc may be a program.
const LONGEST: usize = 4000;

/// A build that has begun and is to have a page.
pub(super) struct Begun<'a> {
    /// Where the page is to be.
    pub(super) path: &'a Path,
    at: Instant,
    time: String,
}

impl<'a> Begun<'a> {
    /// Now, if a page is wanted.
    pub(super) fn of(path: Option<&'a Path>, builds_nothing: bool) -> Result<Option<Self>, Error> {
        let Some(path) = path else { return Ok(None) };
        if builds_nothing {
            return Err(Error::new(Kind::Usage, "`--timings` shows a build, and `--call` makes none").help("leave one of them out"));
        }
        Ok(Some(Self { path, at: Instant::now(), time: now() }))
    }

    /// The page.
    pub(super) fn html(&self, store: &Store, outcome: Result<&Built, &Error>, ledger: &Ledger) -> String {
        let measured = Measured::of(store, ledger, outcome.ok().and_then(|built| built.images.first()).map(|(_, image)| image));
        let steps: Vec<Value> = ledger.steps.iter().enumerate().map(|(number, entry)| self.step(entry, &measured.step(number))).collect();
        let asides: Vec<Value> = ledger.asides.iter().map(|(what, span)| self.span("what", &visible(what.as_bytes()), *span)).collect();
        let (image, error) = match outcome {
            Ok(built) => (built.images.first().map(|(_, image)| image.manifest.digest.to_string()), None),
            Err(error) => (None, Some(visible(error.to_string().as_bytes()))),
        };
        let all = json!({
            "version": 1,
            "program": concat!("lapstrake ", env!("CARGO_PKG_VERSION")),
            "began": self.time,
            "wall": Instant::now().micros_since(self.at),
            "image": image,
            "error": error,
            "total": measured.total().map(|total| json!({
                "layers": total.layers, "raw": total.raw, "compressed": total.compressed, "wasted": total.wasted,
            })),
            "steps": steps,
            "asides": asides,
        });
        page(&all)
    }

    fn step(&self, entry: &Entry, weight: &Weight) -> Value {
        let whole = entry.spells.iter().find(|(at, _)| *at == Spell::Whole).map(|(_, span)| *span);
        let spells = entry.spells.iter().filter(|(at, _)| *at != Spell::Whole);
        json!({
            "stage": visible(entry.info.stage.as_bytes()),
            "number": entry.info.number,
            "of": entry.info.of,
            "text": shown(&entry.info.shown),
            "needs": entry.info.needs,
            "how": entry.word(),
            "why": entry.why.as_ref().map(|why| why.lines().iter().map(|line| visible(line.as_bytes())).collect::<Vec<_>>()),
            "layer": entry.layer.as_ref().map(|(_, layer, _)| layer.to_string()),
            "from": whole.map(|span| span.from.micros_since(self.at)),
            "to": whole.map(|span| span.to.micros_since(self.at)),
            "wall": whole.map(|span| span.to.micros_since(span.from)),
            "spells": spells.map(|(at, span)| self.span("at", at, *span)).collect::<Vec<_>>(),
            "cpu": whole.map(|_| entry.used.cpu),
            "peak": entry.used.peak,
            "added": weight.changed.map(|changed| changed.added),
            "changed": weight.changed.map(|changed| changed.changed),
            "deleted": weight.changed.map(|changed| changed.deleted),
            "raw": weight.raw,
            "compressed": weight.compressed,
            "wasted": weight.wasted,
        })
    }

    fn span(&self, key: &str, value: &(impl serde::Serialize + ?Sized), span: Span) -> Value {
        json!({ key: value, "from": span.from.micros_since(self.at), "to": span.to.micros_since(self.at) })
    }
}

/// An instruction, line by line.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(LONGEST).collect();
    let lines: Vec<String> = cut.lines().map(|line| visible(line.as_bytes())).collect();
    lines.join("\n")
}

fn page(values: &Value) -> String {
    let [style, script] = [STYLE, SCRIPT].map(|text| base64(Digest::of(text.as_bytes()).as_bytes()));
    let policy =
        format!("default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'");
    // What is put in last is not looked at again: there is no place for another value in a value.
    let mut page = String::with_capacity(PAGE.len() + STYLE.len() + SCRIPT.len());
    let mut rest = PAGE;
    for (mark, value) in [("{{policy}}", policy.as_str()), ("{{style}}", STYLE), ("{{data}}", &embedded(values)), ("{{script}}", SCRIPT)] {
        if let Some((before, after)) = rest.split_once(mark) {
            page.push_str(before);
            page.push_str(value);
            rest = after;
        }
    }
    page.push_str(rest);
    page
}

/// JSON that can end no element, begin no comment and be no entity.
fn embedded(values: &Value) -> String {
    let mut text = String::new();
    for character in values.to_string().chars() {
        match character {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_can_neither_end_its_element_nor_be_a_place_for_another_one() {
        let hostile = "</script><!--<img src=x onerror=alert(1)>&lt;{{script}}\u{2028}";
        let page = page(&json!({ "text": hostile }));
        let (_, after) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
        let (data, after) = after.split_once("</script>").unwrap();
        assert!(!data.contains(['<', '>', '&', '\u{2028}']), "{data}");
        assert_eq!(serde_json::from_str::<Value>(data).unwrap()["text"], hostile);
        // Only our script follows.
        assert_eq!(after.matches("<script>").count(), 1);
        assert!(after.contains(SCRIPT) && !page.contains("onerror=alert(1)>"));
    }

    #[test]
    fn the_page_executes_its_own_script_alone_and_asks_for_nothing() {
        let page = page(&json!({}));
        assert!(page.contains("content=\"default-src 'none'; style-src 'sha256-") && page.contains("script-src 'sha256-"));
        assert!(!page.contains("{{") && !page.contains("http://www") && !page.contains("https://") && !SCRIPT.contains("innerHTML"));
    }

    #[test]
    fn an_instruction_keeps_its_lines_and_no_other_control() {
        assert_eq!(shown("RUN <<E\n\u{1b}[2J\u{202e}x\nE"), "RUN <<E\n␛[2J\\u{202e}x\nE");
    }
}
