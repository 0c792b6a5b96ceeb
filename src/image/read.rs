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
        Error::NoPlatform { what: descriptor.digest.to_string(), platform: platform.clone(), offered }
    })
}

/// A manifest, checked by itself.
pub fn manifest(store: &Store, descriptor: &Descriptor) -> Result<Manifest, Error> {
    let what = descriptor.digest.to_string();
    if !is_manifest(&descriptor.media_type) {
        return Err(Error::bad(what, format!("the media type `{}` is not that of an image", shown(&descriptor.media_type))));
    }
    let manifest: Manifest = document(store, descriptor, MANIFEST_LIMIT, "the manifest")?;
    check_envelope(&what, descriptor, manifest.schema_version, manifest.media_type.as_deref())?;
    if manifest.other.contains_key("manifests") || manifest.other.contains_key("fsLayers") {
        return Err(Error::bad(what, "it can be read as a manifest and as something else"));
    }
    let kind = manifest.config.media_type.as_str();
    if ![media_type::CONFIG, media_type::DOCKER_CONFIG].contains(&kind) {
        return Err(Error::bad(what, format!("its config has the media type `{}`: an artifact, no container image", shown(kind))));
    }
    Ok(manifest)
}

/// What a config says it runs on, under Go's names.
pub(super) fn platform_of(config: &ImageConfig) -> Platform {
    let version = config.other.get("os.version").and_then(Value::as_str).map(str::to_owned);
    let (os, architecture, variant) = (config.os.clone(), config.architecture.clone(), config.variant.clone());
    Platform { os, architecture, variant, os_version: version, os_features: Vec::new() }.normalized()
}

fn is_manifest(kind: &str) -> bool {
    [media_type::MANIFEST, media_type::DOCKER_MANIFEST].contains(&kind)
}

fn is_index(kind: &str) -> bool {
    [media_type::INDEX, media_type::DOCKER_INDEX].contains(&kind)
}

/// All manifests of images below an index, with their platforms. Entries of other kinds are passed over, as the
/// specification says; so are attestations, whose platform is `unknown/unknown`.
fn collect(store: &Store, descriptor: &Descriptor, depth: usize, found: &mut Vec<(Platform, Descriptor)>) -> Result<(), Error> {
    let what = descriptor.digest.to_string();
    if !is_index(&descriptor.media_type) {
        return Err(Error::bad(what, format!("the media type `{}` is not that of an image", shown(&descriptor.media_type))));
    }
    if depth > DEPTH {
        return Err(Error::bad(what, "indexes lie too deep in indexes"));
    }
    let index: Index = document(store, descriptor, MANIFEST_LIMIT, "the index")?;
    check_envelope(&what, descriptor, index.schema_version, index.media_type.as_deref())?;
    if ["config", "layers", "fsLayers"].iter().any(|key| index.other.contains_key(*key)) {
        return Err(Error::bad(what, "it can be read as an index and as something else"));
    }
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
