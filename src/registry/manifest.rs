//! What a manifest's bytes are, before anybody trusts them.
//!
//! The type must be the same by all that name it: the `Content-Type`, the document's `mediaType`, the descriptor that
//! led here, and its fields. A document that could be read as a manifest and as an index is neither (CVE-2021-41190).
//!
//! Source: image-spec `manifest.md`, `image-index.md`; GHSA-77vh-xpmg-72qh.

use serde::{Deserialize, de::IgnoredAny};

use crate::{
    http::harmless,
    oci::{Descriptor, Index, Manifest, Platform, media_type},
};

/// The largest manifest, in bytes.
pub(super) const LARGEST: u64 = 4 * 1024 * 1024;
/// The largest config, in bytes.
pub(super) const LARGEST_CONFIG: u64 = 8 * 1024 * 1024;
/// The most layers.
const MOST_LAYERS: usize = 1024;

/// A manifest that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Document {
    Image(Box<Manifest>),
    Index(Index),
}

/// All manifest types that we ask for.
pub(super) const TYPES: [&str; 4] = [media_type::MANIFEST, media_type::INDEX, media_type::DOCKER_MANIFEST, media_type::DOCKER_INDEX];

/// The fields that decide what a document is. A field that is there twice is an error of the parser.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// The media type and the document. `declared` is the `Content-Type` or the type of a descriptor. `Err` is the reason.
pub(super) fn read(bytes: &[u8], declared: Option<&str>) -> Result<(&'static str, Document), String> {
    let no_json = |error: serde_json::Error| format!("its manifest cannot be read: {}", harmless(&error.to_string()));
    let shape: Shape = serde_json::from_slice(bytes).map_err(no_json)?;
    if shape.fs_layers.is_some() || shape.schema_version == Some(1) {
        return Err("it has Docker's old schema 1, which is no longer supported".into());
    }
    let is_index = shape.manifests.is_some();
    let is_image = shape.config.is_some() || shape.layers.is_some();
    if is_index == is_image {
        let what = if is_index { "a manifest and an index at once" } else { "neither a manifest nor an index" };
        return Err(format!("its manifest is {what}"));
    }
    let kind = media_type_of(declared, shape.media_type.as_deref(), is_index)?;
    let document = if is_index {
        Document::Index(serde_json::from_slice(bytes).map_err(no_json)?)
    } else {
        Document::Image(serde_json::from_slice(bytes).map_err(no_json)?)
    };
    if shape.schema_version != Some(2) {
        return Err("its manifest has a `schemaVersion` that is not 2".into());
    }
    Ok((kind, document))
}

fn media_type_of(declared: Option<&str>, own: Option<&str>, is_index: bool) -> Result<&'static str, String> {
    let essence = |text: &str| text.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let known = |text: &str| TYPES.into_iter().find(|known| *known == text);
    let own = match own.filter(|own| !own.is_empty()) {
        Some(text) => Some(known(text).ok_or_else(|| format!("its manifest is a `{}`, not an image", harmless(text)))?),
        None => None,
    };
    let declared = declared.map(essence).filter(|text| !is_vague(text));
    let declared = match declared {
        Some(text) => Some(known(&text).ok_or_else(|| format!("its manifest is served as `{}`, not an image", harmless(&text)))?),
        None => None,
    };
    if let (Some(own), Some(declared)) = (own, declared)
        && own != declared
    {
        return Err(format!("its manifest is served as `{declared}` and calls itself `{own}`"));
    }
    let kind = declared.or(own).unwrap_or(if is_index { media_type::INDEX } else { media_type::MANIFEST });
    if matches!(kind, media_type::INDEX | media_type::DOCKER_INDEX) != is_index {
        return Err(format!("its manifest is called `{kind}` and is none"));
    }
    Ok(kind)
}

/// Types that a server sends when it does not know.
fn is_vague(text: &str) -> bool {
    matches!(text, "" | "application/json" | "text/plain" | "application/octet-stream" | "binary/octet-stream")
}

/// Is it an image that we can use? `Err` is the reason.
pub(super) fn check_image(manifest: &Manifest) -> Result<(), String> {
    let config = manifest.config.media_type.as_str();
    if !matches!(config, media_type::CONFIG | media_type::DOCKER_CONFIG) {
        return Err(format!("it is not an image: its config is a `{}`", harmless(config)));
    }
    if manifest.config.size > LARGEST_CONFIG {
        return Err(format!("its config is larger than {LARGEST_CONFIG} bytes"));
    }
    if manifest.layers.len() > MOST_LAYERS {
        return Err(format!("it has more than {MOST_LAYERS} layers"));
    }
    manifest.layers.iter().try_for_each(check_layer)
}

fn check_layer(layer: &Descriptor) -> Result<(), String> {
    const KNOWN: [&str; 5] =
        [media_type::LAYER, media_type::LAYER_GZIP, media_type::LAYER_ZSTD, media_type::DOCKER_LAYER, media_type::DOCKER_LAYER_GZIP];
    let zstd_of_docker = layer.media_type == "application/vnd.docker.image.rootfs.diff.tar.zstd";
    if is_foreign(layer) {
        return Err("it has a foreign layer, to be fetched from elsewhere, which is not supported".into());
    }
    if !KNOWN.contains(&layer.media_type.as_str()) && !zstd_of_docker {
        return Err(format!("it has a layer of the unknown type `{}`", harmless(&layer.media_type)));
    }
    Ok(())
}

/// A layer that registries do not keep.
pub(super) fn is_foreign(layer: &Descriptor) -> bool {
    layer.media_type.contains(".nondistributable.") || layer.media_type.contains(".foreign.") || layer.other.contains_key("urls")
}

/// The entries of an index that may be the image for a platform, best first; those that do not say their platform last.
pub(super) fn candidates<'a>(index: &'a Index, platform: &Platform) -> Vec<&'a Descriptor> {
    let mut ranked: Vec<(usize, &Descriptor)> = index
        .manifests
        .iter()
        .filter(|entry| TYPES.contains(&entry.media_type.as_str()))
        .filter_map(|entry| match &entry.platform {
            Some(offered) => platform.preference(offered).map(|rank| (rank, entry)),
            None => Some((usize::MAX, entry)),
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, entry)| entry).collect()
}

/// The platforms of an index, for a message.
pub(super) fn offered(index: &Index) -> Vec<String> {
    const MOST: usize = 30;
    let platforms = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
    let mut names: Vec<String> =
        platforms.filter(|platform| platform.os != "unknown").map(|platform| harmless(&platform.to_string())).collect();
    names.sort();
    names.dedup();
    if names.len() > MOST {
        names.truncate(MOST);
        names.push("…".into());
    }
    names
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn image(own: &str) -> String {
        let config = format!("{{\"mediaType\":\"{}\",\"digest\":\"sha256:{HEX}\",\"size\":2}}", media_type::CONFIG);
        format!("{{\"schemaVersion\":2,{own}\"config\":{config},\"layers\":[]}}")
    }

    fn index(own: &str) -> String {
        format!("{{\"schemaVersion\":2,{own}\"manifests\":[]}}")
    }

    fn own(kind: &str) -> String {
        format!("\"mediaType\":\"{kind}\",")
    }

    #[rstest]
    #[case(&image(""), None, media_type::MANIFEST)]
    #[case(&image(""), Some("application/json"), media_type::MANIFEST)]
    #[case(&image(""), Some(media_type::DOCKER_MANIFEST), media_type::DOCKER_MANIFEST)]
    #[case(&image(&own(media_type::MANIFEST)), Some("Application/vnd.oci.image.manifest.v1+JSON; charset=utf-8"), media_type::MANIFEST)]
    #[case(&image(&own(media_type::DOCKER_MANIFEST)), None, media_type::DOCKER_MANIFEST)]
    #[case(&index(""), None, media_type::INDEX)]
    #[case(&index(&own(media_type::DOCKER_INDEX)), Some("text/plain"), media_type::DOCKER_INDEX)]
    fn a_type_is_what_all_say(#[case] bytes: &str, #[case] declared: Option<&str>, #[case] expected: &str) {
        assert_eq!(read(bytes.as_bytes(), declared).unwrap().0, expected);
    }

    #[rstest]
    #[case(&image(&own(media_type::INDEX)), None, "is none")]
    #[case(&index(&own(media_type::MANIFEST)), None, "is none")]
    #[case(&image(""), Some(media_type::INDEX), "is none")]
    #[case(&image(&own(media_type::MANIFEST)), Some(media_type::DOCKER_MANIFEST), "calls itself")]
    #[case(&image("\"manifests\":[],"), None, "at once")]
    #[case(&image("\"manifests\":[],"), Some(media_type::INDEX), "at once")]
    #[case(&image("\"schemaVersion\":2,"), None, "duplicate")]
    #[case(&image(""), Some("text/html"), "text/html")]
    #[case(&image(&own("application/vnd.cncf.helm")), None, "helm")]
    #[case("{\"schemaVersion\":2}", None, "neither")]
    #[case("{\"schemaVersion\":1,\"fsLayers\":[]}", None, "schema 1")]
    #[case("{\"schemaVersion\":3,\"manifests\":[]}", None, "not 2")]
    #[case("[]", None, "cannot be read")]
    #[case("", None, "cannot be read")]
    fn a_document_with_two_faces_is_refused(#[case] bytes: &str, #[case] declared: Option<&str>, #[case] reason: &str) {
        let error = read(bytes.as_bytes(), declared).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn a_deep_document_is_refused() {
        let deep = format!("{{\"schemaVersion\":2,\"manifests\":{}", "[".repeat(1_000_000));
        assert!(read(deep.as_bytes(), None).is_err());
    }

    #[test]
    fn foreign_and_unknown_layers_are_refused() {
        let Document::Image(mut manifest) = read(image("").as_bytes(), None).unwrap().1 else { panic!("an image") };
        assert_eq!(check_image(&manifest), Ok(()));
        let layer = |kind: &str| Descriptor::new(kind, manifest.config.digest, 1);
        let foreign = layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        let mut elsewhere = layer(media_type::LAYER_GZIP);
        drop(elsewhere.other.insert("urls".into(), serde_json::json!(["http://169.254.169.254/"])));
        let unknown = layer("text/html");
        for (bad, reason) in [(foreign, "foreign"), (elsewhere, "foreign"), (unknown, "text/html")] {
            manifest.layers = vec![bad];
            assert!(check_image(&manifest).unwrap_err().contains(reason));
        }
    }
}
