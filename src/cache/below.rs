//! What lies below a step, told apart: the image it began with, and the layers of the steps since.
//!
//! A key holds one digest of all diff ids below. This is kept beside it in the record, in no key, to name what is another.

use serde::{Deserialize, Serialize};

use super::fields::salted;

/// More layers are not told apart: each record would hold all of the others'.
const MOST: usize = 64;

/// So much of a digest tells layers and texts of one Dockerfile apart.
const SHORT: usize = 16;

/// What lies below a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Below {
    /// The image's complete name and its manifest's digest; `None`: scratch.
    pub image: Option<(String, String)>,
    /// A digest of the image's diff ids.
    pub image_layers: String,
    /// The diff id of each layer since, with the instruction that made it, as written.
    pub layers: Vec<(String, String)>,
}

/// The form in a record: texts salted, digests shortened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    image: Option<(String, String)>,
    image_layers: String,
    count: usize,
    layers: Vec<(String, String)>,
}

impl Below {
    pub(super) fn kept(&self, salt: &[u8; 32]) -> Kept {
        let short = |text: &str| text.chars().take(SHORT).collect::<String>();
        let each = |(diff_id, text): &(String, String)| {
            let bare = diff_id.strip_prefix("sha256:").unwrap_or(diff_id);
            (short(bare), short(&salted(salt, "instruction", text.as_bytes())))
        };
        let layers = if self.layers.len() > MOST { Vec::new() } else { self.layers.iter().map(each).collect() };
        Kept { image: self.image.clone(), image_layers: short(&self.image_layers), count: self.layers.len(), layers }
    }

    /// What is another now, as a name and how; `None` if that cannot be said.
    pub(super) fn change(&self, before: &Kept, salt: &[u8; 32]) -> Option<(String, String)> {
        let now = self.kept(salt);
        if now.image_layers != before.image_layers {
            return Some(image_change(before.image.as_ref(), now.image.as_ref()));
        }
        if now.layers.len() != now.count || before.layers.len() != before.count {
            return None;
        }
        let same = now.layers.iter().zip(&before.layers).take_while(|(one, other)| one.0 == other.0).count();
        let Some((_, text)) = now.layers.get(same) else {
            let gone = before.layers.len().checked_sub(same).filter(|gone| *gone > 0)?;
            let words = if gone == 1 { "1 instruction is".to_owned() } else { format!("{gone} instructions are") };
            return Some(("above".to_owned(), format!("{words} gone")));
        };
        let name = format!("`{}` above", first_line(&self.layers.get(same)?.1));
        let later = before.layers.get(same..).unwrap_or_default();
        Some((
            name,
            match later.iter().position(|(_, other)| other == text) {
                Some(0) => "made another layer",
                Some(_) => "has moved",
                None => "is new or changed",
            }
            .to_owned(),
        ))
    }
}

fn image_change(before: Option<&(String, String)>, now: Option<&(String, String)>) -> (String, String) {
    let digest = |image: Option<&(String, String)>| {
        image.map_or_else(|| "scratch".to_owned(), |(_, digest)| digest.chars().take("sha256:".len() + 12).collect())
    };
    match (before, now) {
        (Some((one, _)), Some((other, _))) if one == other => (format!("base {one}"), format!("{}→{}", digest(before), digest(now))),
        _ => {
            let name = |image: Option<&(String, String)>| image.map_or("scratch", |(name, _)| name).to_owned();
            ("base".to_owned(), format!("{}→{}", name(before), name(now)))
        }
    }
}

fn first_line(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= LONGEST { line.to_owned() } else { line.chars().take(LONGEST).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(layers: &[(&str, &str)]) -> Below {
        let layers = layers.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect();
        Below { image: Some(("busybox".into(), "sha256:0123456789abcdef".into())), image_layers: "aa".into(), layers }
    }

    fn told(before: &Below, now: &Below) -> Option<String> {
        now.change(&before.kept(&[1; 32]), &[1; 32]).map(|(name, how)| format!("{name}: {how}"))
    }

    #[test]
    fn the_first_layer_that_is_another_is_named_by_its_instruction() {
        let before = below(&[("1", "RUN a"), ("2", "RUN b")]);
        assert_eq!(told(&before, &before), None);
        assert_eq!(told(&before, &below(&[("3", "RUN a"), ("2", "RUN b")])).unwrap(), "`RUN a` above: made another layer");
        assert_eq!(told(&before, &below(&[("3", "RUN new"), ("1", "RUN a")])).unwrap(), "`RUN new` above: is new or changed");
        assert_eq!(told(&before, &below(&[("2", "RUN b"), ("1", "RUN a")])).unwrap(), "`RUN b` above: has moved");
        assert_eq!(told(&before, &below(&[("1", "RUN a")])).unwrap(), "above: 1 instruction is gone");
    }

    #[test]
    fn an_image_is_named_with_its_digests() {
        let before = below(&[]);
        let other = Below { image: Some(("busybox".into(), "sha256:ffff".into())), image_layers: "bb".into(), layers: Vec::new() };
        assert_eq!(told(&before, &other).unwrap(), "base busybox: sha256:0123456789ab→sha256:ffff");
        let none = Below { image: None, image_layers: "cc".into(), layers: Vec::new() };
        assert_eq!(told(&before, &none).unwrap(), "base: busybox→scratch");
    }

    #[test]
    fn many_layers_are_one() {
        let many: Vec<(String, &str)> = (0..100).map(|number| (number.to_string(), "RUN")).collect();
        let all: Vec<(&str, &str)> = many.iter().map(|(id, text)| (id.as_str(), *text)).collect();
        assert_eq!(told(&below(&all), &below(&all[1..])), None);
        assert!(below(&all).kept(&[0; 32]).layers.is_empty());
    }
}
