//! An image out of the store, checked: nothing of a manifest, an index or a config is believed before.
//!
//! Bounds: a manifest or index has at most 4 MiB, a config 8 MiB, JSON at most 128 levels (`serde_json`'s own
//! limit), an index at most [`DEPTH`] indexes below it and [`ENTRIES`] entries in all. A document that could be read as
//! both a manifest and an index is refused (CVE-2021-41190).

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    oci::{Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, Platform, media_type},
    store::Store,
};

use super::{Error, Image};

/// The largest manifest or index, in bytes: what registries must accept.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// The largest config, in bytes.
pub const CONFIG_LIMIT: u64 = 8 << 20;
/// How deep indexes may lie in indexes.
const DEPTH: usize = 4;
/// How many entries of indexes are looked at.
const ENTRIES: usize = 10_000;

/// Reads the image that a descriptor of a manifest, or of an index with one for the platform, stands for. The
/// layers' blobs need not be there.
pub fn read(store: &Store, descriptor: &Descriptor, platform: &Platform) -> Result<Image, Error> {
    let descriptor = choose(store, descriptor, platform)?;
    let manifest = manifest(store, &descriptor)?;
    let config = config(store, &manifest)?;
    check_layers(&descriptor, &manifest, &config)?;
    let bare = Descriptor::new(&descriptor.media_type, descriptor.digest, descriptor.size);
    Ok(Image {
        manifest: bare,
        config_digest: manifest.config.digest,
        platform: platform_of(&config),
        config,
        layers: manifest.layers,
        base_layers: 0,
    })
}

/// The manifest for a platform: the descriptor itself if it is a manifest's, else the best entry of its index.
pub fn choose(store: &Store, descriptor: &Descriptor, platform: &Platform) -> Result<Descriptor, Error> {
    if is_manifest(&descriptor.media_type) {
        return Ok(descriptor.clone());
    }
    let mut found = Vec::new();
    collect(store, descriptor, 0, &mut found)?;
    let best = found
        .iter()
        .enumerate()
        .filter_map(|(at, (offered, each))| platform.preference(offered).map(|rank| ((rank, at), each)))
        .min_by_key(|(key, _)| *key);
    best.map(|(_, each)| each.clone()).ok_or_else(|| {
        let mut offered: Vec<String> = found.iter().map(|(platform, _)| platform.to_string()).collect();
        offered.sort();
        offered.dedup();
        let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
        Error::NoPlatform { what: descriptor.digest.to_string(), platform: Box::new(platform.clone()), offered }
    })
}

/// An index, checked by itself.
pub(super) fn index(store: &Store, descriptor: &Descriptor) -> Result<Index, Error> {
    let what = descriptor.digest.to_string();
    if !is_index(&descriptor.media_type) {
        return Err(Error::bad(what, format!("the media type `{}` is not that of an image", shown(&descriptor.media_type))));
    }
    let index: Index = document(store, descriptor, MANIFEST_LIMIT, "the index")?;
    check_envelope(&what, descriptor, index.schema_version, index.media_type.as_deref())?;
    if ["config", "layers", "fsLayers"].iter().any(|key| index.other.contains_key(*key)) {
        return Err(Error::bad(what, "it can be read as an index and as something else"));
    }
    Ok(index)
}

/// The manifest of an image, checked by itself.
pub fn manifest(store: &Store, descriptor: &Descriptor) -> Result<Manifest, Error> {
    let manifest = any_manifest(store, descriptor)?;
    let kind = manifest.config.media_type.as_str();
    if is_config(kind) {
        return Ok(manifest);
    }
    let reason = format!("its config has the media type `{}`: an artifact, no container image", shown(kind));
    Err(Error::bad(descriptor.digest.to_string(), reason))
}

/// A manifest of an image or of an artifact, checked by itself.
pub(super) fn any_manifest(store: &Store, descriptor: &Descriptor) -> Result<Manifest, Error> {
    let what = descriptor.digest.to_string();
    if !is_manifest(&descriptor.media_type) {
        return Err(Error::bad(what, format!("the media type `{}` is not that of an image", shown(&descriptor.media_type))));
    }
    let manifest: Manifest = document(store, descriptor, MANIFEST_LIMIT, "the manifest")?;
    check_envelope(&what, descriptor, manifest.schema_version, manifest.media_type.as_deref())?;
    if manifest.other.contains_key("manifests") || manifest.other.contains_key("fsLayers") {
        return Err(Error::bad(what, "it can be read as a manifest and as something else"));
    }
    Ok(manifest)
}

/// What a config says it runs on, under Go's names.
pub(super) fn platform_of(config: &ImageConfig) -> Platform {
    let version = config.other.get("os.version").and_then(Value::as_str).map(str::to_owned);
    let (os, architecture, variant) = (config.os.clone(), config.architecture.clone(), config.variant.clone());
    Platform { os, architecture, variant, os_version: version, os_features: Vec::new() }.normalized()
}

pub(super) fn is_config(kind: &str) -> bool {
    [media_type::CONFIG, media_type::DOCKER_CONFIG].contains(&kind)
}

pub(super) fn is_manifest(kind: &str) -> bool {
    [media_type::MANIFEST, media_type::DOCKER_MANIFEST].contains(&kind)
}

pub(super) fn is_index(kind: &str) -> bool {
    [media_type::INDEX, media_type::DOCKER_INDEX].contains(&kind)
}

/// All manifests of images below an index, with their platforms. Entries of other kinds are passed over, as the
/// specification says; so are attestations, whose platform is `unknown/unknown`.
fn collect(store: &Store, descriptor: &Descriptor, depth: usize, found: &mut Vec<(Platform, Descriptor)>) -> Result<(), Error> {
    let what = descriptor.digest.to_string();
    if depth > DEPTH {
        return Err(Error::bad(what, "indexes lie too deep in indexes"));
    }
    let index = index(store, descriptor)?;
    for entry in &index.manifests {
        if found.len() >= ENTRIES {
            return Err(Error::bad(what, "too many entries"));
        }
        if is_index(&entry.media_type) {
            collect(store, entry, depth + 1, found)?;
        } else if is_manifest(&entry.media_type)
            && let Some(platform) = entry_platform(store, entry)?
        {
            found.push((platform, entry.clone()));
        }
    }
    Ok(())
}

/// An entry's platform: its own word, else its config's. `None`: no image that could run.
fn entry_platform(store: &Store, entry: &Descriptor) -> Result<Option<Platform>, Error> {
    if entry.annotations.contains_key("vnd.docker.reference.type") {
        return Ok(None);
    }
    match &entry.platform {
        Some(platform) if platform.os == "unknown" => Ok(None),
        Some(platform) => Ok(Some(platform.clone())),
        None => {
            let kind = match manifest(store, entry) {
                Ok(manifest) => manifest,
                // An artifact may stand beside images.
                Err(Error::Bad { .. }) => return Ok(None),
                Err(other) => return Err(other),
            };
            Ok(Some(platform_of(&config(store, &kind)?)))
        }
    }
}

fn check_envelope(what: &str, descriptor: &Descriptor, schema: u32, kind: Option<&str>) -> Result<(), Error> {
    if schema != 2 {
        return Err(Error::bad(what, format!("schemaVersion is {schema}, only 2 can be read")));
    }
    match kind {
        Some(kind) if kind != descriptor.media_type => {
            let reason = format!("it calls itself `{}`, its descriptor `{}`", shown(kind), shown(&descriptor.media_type));
            Err(Error::bad(what, reason))
        }
        _ => Ok(()),
    }
}

fn config(store: &Store, manifest: &Manifest) -> Result<ImageConfig, Error> {
    let config: ImageConfig = document(store, &manifest.config, CONFIG_LIMIT, "the config")?;
    if config.rootfs.kind != "layers" {
        return Err(Error::bad(manifest.config.digest.to_string(), format!("rootfs.type is `{}`", shown(&config.rootfs.kind))));
    }
    Ok(config)
}

/// Layers are as many as diff ids, each of a kind that is known, and a blob that appears twice means the same twice.
fn check_layers(descriptor: &Descriptor, manifest: &Manifest, config: &ImageConfig) -> Result<(), Error> {
    let what = descriptor.digest.to_string();
    let ids = &config.rootfs.diff_ids;
    if ids.len() != manifest.layers.len() {
        let reason = format!("its config names {} layers, its manifest {}", ids.len(), manifest.layers.len());
        return Err(Error::bad(what, reason));
    }
    let mut seen: BTreeMap<Digest, (DiffId, u64)> = BTreeMap::new();
    for (layer, id) in manifest.layers.iter().zip(ids) {
        if !is_layer(&layer.media_type) {
            return Err(Error::bad(what, format!("a layer has the media type `{}`", shown(&layer.media_type))));
        }
        let first = seen.entry(layer.digest).or_insert((*id, layer.size));
        if *first != (*id, layer.size) {
            return Err(Error::bad(what, format!("the layer {} is named twice with different sizes or diff ids", layer.digest)));
        }
    }
    Ok(())
}

fn is_layer(kind: &str) -> bool {
    use media_type as t;
    [
        t::LAYER,
        t::LAYER_GZIP,
        t::LAYER_ZSTD,
        t::DOCKER_LAYER,
        t::DOCKER_LAYER_GZIP,
        t::FOREIGN,
        t::FOREIGN_GZIP,
        t::FOREIGN_ZSTD,
        t::DOCKER_FOREIGN,
        t::DOCKER_FOREIGN_GZIP,
    ]
    .contains(&kind)
}

/// A JSON document of the store: there, of the size it should have, within the bound, one value and nothing after it.
pub(super) fn document<T: DeserializeOwned>(store: &Store, descriptor: &Descriptor, limit: u64, what: &'static str) -> Result<T, Error> {
    let name = descriptor.digest.to_string();
    if descriptor.size > limit {
        return Err(Error::bad(name, format!("{what} has {} bytes, more than {limit}", descriptor.size)));
    }
    let Some(bytes) = store.blob(&descriptor.digest, limit)? else {
        return Err(Error::Missing { digest: descriptor.digest, what });
    };
    if bytes.len() as u64 != descriptor.size {
        return Err(Error::bad(name, format!("{what} has {} bytes, its descriptor says {}", bytes.len(), descriptor.size)));
    }
    parse(&name, &bytes)
}

/// JSON from outside.
pub(super) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::bad(what, format!("its JSON is not what it should be: {}", shown(&error.to_string()))))
}

/// A text from outside for a message: escaped, cut.
fn shown(text: &str) -> String {
    text.chars().take(200).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::fixture;

    fn put(store: &Store, kind: &str, text: &str) -> Descriptor {
        Descriptor::new(kind, store.put_blob(text.as_bytes()).unwrap(), text.len() as u64)
    }

    fn index_of(store: &Store, entries: &[(&Descriptor, Option<&str>)]) -> Descriptor {
        let manifests: Vec<Descriptor> = entries
            .iter()
            .map(|(each, platform)| Descriptor { platform: platform.map(|text| text.parse().unwrap()), ..(*each).clone() })
            .collect();
        let text = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests }).to_string();
        put(store, media_type::INDEX, &text)
    }

    fn refusal(store: &Store, descriptor: &Descriptor) -> String {
        read(store, descriptor, &fixture::platform()).unwrap_err().to_string()
    }

    #[test]
    fn an_image_is_read_as_it_was_made() {
        let (_dir, store) = fixture::store();
        let made = fixture::image(&store, &[("a", "1"), ("b", "2")]);
        let image = read(&store, &made.manifest, &fixture::platform()).unwrap();
        assert_eq!((image.config, image.layers, image.platform), (made.config, made.layers, made.platform));
    }

    #[test]
    fn of_an_index_the_entry_for_the_platform_is_taken() {
        let (_dir, store) = fixture::store();
        let (one, two) = (fixture::image(&store, &[("a", "1")]), fixture::image(&store, &[("b", "2")]));
        let index = index_of(&store, &[(&one.manifest, Some("linux/arm64")), (&two.manifest, Some("linux/amd64"))]);
        let nested = index_of(&store, &[(&index, None)]);
        for each in [index, nested] {
            assert_eq!(read(&store, &each, &fixture::platform()).unwrap().manifest, two.manifest);
        }
    }

    #[test]
    fn an_entry_without_a_platform_is_what_its_config_says() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1")]);
        let index = index_of(&store, &[(&image.manifest, None)]);
        assert_eq!(read(&store, &index, &fixture::platform()).unwrap().manifest, image.manifest);
        let error = read(&store, &index, &"linux/s390x".parse().unwrap()).unwrap_err();
        assert!(error.to_string().ends_with("has no image for linux/s390x; it has linux/amd64"), "{error}");
    }

    #[test]
    fn a_document_that_is_both_a_manifest_and_an_index_is_refused() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1")]);
        let bytes = store.blob(&image.manifest.digest, MANIFEST_LIMIT).unwrap().unwrap();
        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        value["manifests"] = serde_json::json!([]);
        let both = put(&store, media_type::MANIFEST, &value.to_string());
        assert!(refusal(&store, &both).contains("as a manifest and as something else"));
        let index = put(&store, media_type::INDEX, r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#);
        assert!(refusal(&store, &index).contains("as an index and as something else"));
    }

    #[test]
    fn a_document_that_calls_itself_something_else_is_refused() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1")]);
        let docker = Descriptor { media_type: media_type::DOCKER_MANIFEST.into(), ..image.manifest.clone() };
        assert!(refusal(&store, &docker).contains("it calls itself"));
        let other = Descriptor { media_type: "text/plain".into(), ..image.manifest };
        assert!(refusal(&store, &other).contains("is not that of an image"));
    }

    #[test]
    fn layers_and_diff_ids_must_be_equally_many_and_agree() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1"), ("b", "2")]);
        let manifest = manifest(&store, &image.manifest).unwrap();
        let few = Manifest { layers: manifest.layers[..1].to_vec(), ..manifest.clone() };
        let few = put(&store, media_type::MANIFEST, &serde_json::to_string(&few).unwrap());
        assert!(refusal(&store, &few).contains("its config names 2 layers, its manifest 1"));
        let twice = Manifest { layers: vec![manifest.layers[0].clone(); 2], ..manifest.clone() };
        let twice = put(&store, media_type::MANIFEST, &serde_json::to_string(&twice).unwrap());
        assert!(refusal(&store, &twice).contains("is named twice"));
    }

    #[test]
    fn json_that_is_deep_doubled_or_too_large_is_refused() {
        let (_dir, store) = fixture::store();
        let deep = format!(r#"{{"schemaVersion":2,"manifests":[],"x":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
        assert!(refusal(&store, &put(&store, media_type::INDEX, &deep)).contains("recursion limit"));
        let doubled = put(&store, media_type::INDEX, r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#);
        assert!(refusal(&store, &doubled).contains("duplicate field"));
        let large = Descriptor::new(media_type::INDEX, Digest::of(b""), MANIFEST_LIMIT + 1);
        assert!(refusal(&store, &large).contains("more than 4194304"));
        let short = Descriptor { size: 1, ..put(&store, media_type::INDEX, r#"{"schemaVersion":2,"manifests":[]}"#) };
        assert!(refusal(&store, &short).contains("its descriptor says 1"));
    }

    #[test]
    fn an_index_that_holds_itself_in_layers_of_indexes_ends() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1")]);
        let deep = (0..8).fold(image.manifest, |inner, _| index_of(&store, &[(&inner, None)]));
        assert!(refusal(&store, &deep).contains("too deep"));
    }

    #[test]
    fn null_where_go_writes_it_is_an_empty_list() {
        let (_dir, store) = fixture::store();
        let config = put(
            &store,
            media_type::DOCKER_CONFIG,
            r#"{"architecture":"amd64","os":"linux","config":null,"history":null,"rootfs":{"type":"layers","diff_ids":null}}"#,
        );
        let text =
            format!(r#"{{"schemaVersion":2,"config":{},"layers":null,"annotations":null}}"#, serde_json::to_string(&config).unwrap());
        let manifest = put(&store, media_type::DOCKER_MANIFEST, &text);
        assert!(read(&store, &manifest, &fixture::platform()).unwrap().layers.is_empty());
    }
}
