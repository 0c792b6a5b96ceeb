//! An image made of a base, a config and what a build made; its manifest and config as blobs.
//!
//! Invariants: `rootfs.diff_ids`, the manifest's layers and the lines of the history that have a layer are equally
//! many; the bytes depend on the arguments alone; an OCI manifest names OCI media types only.

use std::collections::BTreeMap;

use crate::{
    oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, Platform, RootFs, media_type},
    store::Store,
};

use super::{Error, Image, history, read};

/// The comment on the history lines of a Dockerfile's instructions; tools look for it.
pub const COMMENT: &str = "buildkit.dockerfile.v0";

/// What an image is built on.
#[derive(Debug, Clone, Copy)]
pub struct BaseParts<'a> {
    /// Its config, as it came.
    pub config: &'a ImageConfig,
    /// Its layers' blobs, as its manifest names them.
    pub layers: &'a [Descriptor],
}

/// One instruction's line in the history, and its layer if it made one.
#[derive(Debug, Clone)]
pub struct Item {
    /// `RUN /bin/sh -c make # buildkit`
    pub created_by: String,
    /// [`COMMENT`]; empty: none.
    pub comment: String,
    /// The layer it made: of its tar, its blob, and when it was made (RFC 3339).
    pub layer: Option<(DiffId, Descriptor, String)>,
    /// When it was done, if a `SOURCE_DATE_EPOCH` says so and not its layer.
    pub time: Option<String>,
}

impl Item {
    /// A line without a layer.
    pub fn new(created_by: impl Into<String>) -> Self {
        Self { created_by: created_by.into(), comment: COMMENT.to_owned(), layer: None, time: None }
    }

    /// When it was done, or its layer was made.
    pub(super) fn created(&self) -> Option<&str> {
        self.time.as_deref().or_else(|| self.layer.as_ref().map(|(_, _, created)| created.as_str()))
    }
}

/// Whose media types a manifest uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// OCI's.
    Oci,
    /// Docker's schema 2 (`oci-mediatypes=false`).
    Docker,
}

/// Makes the image and puts its config and manifest into the store. `config` is final but for `rootfs`, `history`
/// and `created`; where it names no platform it gets `platform`.
pub fn assemble(
    store: &Store,
    base: Option<BaseParts<'_>>,
    config: ImageConfig,
    items: &[Item],
    platform: &Platform,
) -> Result<Image, Error> {
    let (base_lines, diff_ids, base_layers, base_created) = base.map_or(Ok(Default::default()), of_base)?;
    let made = || items.iter().filter_map(|item| item.layer.as_ref());
    let created = items.iter().rev().find_map(Item::created).map(str::to_owned).or_else(|| base_created.clone());
    let mut lines = base_lines;
    lines.extend(history::of_items(items, base_created.as_deref()));
    let config = ImageConfig {
        created,
        rootfs: RootFs { diff_ids: diff_ids.into_iter().chain(made().map(|(id, _, _)| *id)).collect(), ..RootFs::default() },
        history: lines,
        ..with_platform(config, platform)
    };
    let kept = base_layers.len();
    let layers: Vec<Descriptor> = base_layers.into_iter().chain(made().map(|(_, blob, _)| blob.clone())).collect();
    let text = json("config", &config)?;
    let config = ConfigBlob { digest: store.put_blob(&text)?, size: text.len() as u64, config };
    let image = seal(store, config, &layers, Dress { annotations: BTreeMap::new(), flavor: Flavor::Oci })?;
    Ok(Image { base_layers: kept, platform: platform.clone(), ..image })
}

type OfBase = (Vec<crate::oci::History>, Vec<DiffId>, Vec<Descriptor>, Option<String>);

fn of_base(base: BaseParts<'_>) -> Result<OfBase, Error> {
    let diff_ids = base.config.rootfs.diff_ids.clone();
    if diff_ids.len() != base.layers.len() {
        let reason = format!("its config names {} layers, its manifest {}", diff_ids.len(), base.layers.len());
        return Err(Error::bad("the base", reason));
    }
    let created = base.config.created.clone();
    let lines = history::of_base(&base.config.history, diff_ids.len(), created.as_deref());
    Ok((lines, diff_ids, base.layers.to_vec(), created))
}

fn with_platform(config: ImageConfig, platform: &Platform) -> ImageConfig {
    if !config.os.is_empty() && !config.architecture.is_empty() {
        return config;
    }
    ImageConfig { os: platform.os.clone(), architecture: platform.architecture.clone(), variant: platform.variant.clone(), ..config }
}

/// Writes the manifest for a config whose blob is in the store.
pub(super) fn seal(store: &Store, config: ConfigBlob, layers: &[Descriptor], dress: Dress) -> Result<Image, Error> {
    let ConfigBlob { digest, size, config } = config;
    let (config_type, manifest_type) = match dress.flavor {
        Flavor::Oci => (media_type::CONFIG, media_type::MANIFEST),
        Flavor::Docker => (media_type::DOCKER_CONFIG, media_type::DOCKER_MANIFEST),
    };
    let layers = layers.iter().map(|layer| in_flavor(layer, dress.flavor)).collect::<Result<Vec<_>, _>>()?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(manifest_type.to_owned()),
        config: Descriptor::new(config_type, digest, size),
        layers: layers.clone(),
        annotations: dress.annotations,
        other: BTreeMap::new(),
    };
    let text = json("manifest", &manifest)?;
    let manifest = Descriptor::new(manifest_type, store.put_blob(&text)?, text.len() as u64);
    let platform = read::platform_of(&config);
    Ok(Image { manifest, config_digest: digest, config, layers, base_layers: 0, platform })
}

/// A config and its blob in the store, whose bytes may be others' and then stay as they are.
pub(super) struct ConfigBlob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) config: ImageConfig,
}

/// How a manifest is written.
pub(super) struct Dress {
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) flavor: Flavor,
}

/// A layer's descriptor as a manifest of that flavor names it. What containerd and `BuildKit` note on descriptors for
/// themselves is left out, as they do.
fn in_flavor(layer: &Descriptor, flavor: Flavor) -> Result<Descriptor, Error> {
    use media_type as t;
    const PAIRS: [(&str, &str); 4] = [
        (t::LAYER, t::DOCKER_LAYER),
        (t::LAYER_GZIP, t::DOCKER_LAYER_GZIP),
        (t::FOREIGN, t::DOCKER_FOREIGN),
        (t::FOREIGN_GZIP, t::DOCKER_FOREIGN_GZIP),
    ];
    let same = layer.media_type.as_str();
    let pair = PAIRS.iter().find(|(oci, docker)| *oci == same || *docker == same);
    let media_type = match (flavor, pair) {
        (Flavor::Oci, Some((oci, _))) => oci,
        (Flavor::Docker, Some((_, docker))) => docker,
        (Flavor::Oci, None) => same,
        (Flavor::Docker, None) => {
            return Err(Error::bad(layer.digest.to_string(), format!("Docker's media types have none for `{same}`")));
        }
    };
    let internal = |key: &str| ["containerd.io/", "buildkit/"].iter().any(|prefix| key.starts_with(prefix));
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        annotations: layer.annotations.iter().filter(|(key, _)| !internal(key)).map(|(k, v)| (k.clone(), v.clone())).collect(),
        ..layer.clone()
    })
}

impl Image {
    /// The same image with these annotations added to its manifest.
    pub fn annotated(&self, store: &Store, annotations: &BTreeMap<String, String>) -> Result<Self, Error> {
        if annotations.is_empty() {
            return Ok(self.clone());
        }
        self.resealed(store, &self.layers, annotations, self.flavor())
    }

    /// The same image with other blobs for its layers: as many, base first, each of the same diff id.
    pub fn with_layers(&self, store: &Store, layers: &[Descriptor]) -> Result<Self, Error> {
        if layers.len() != self.layers.len() {
            return Err(Error::bad(self.manifest.digest.to_string(), "the number of layers would change"));
        }
        self.resealed(store, layers, &BTreeMap::new(), self.flavor())
    }

    /// The same image with a manifest of that flavor.
    pub fn in_flavor(&self, store: &Store, flavor: Flavor) -> Result<Self, Error> {
        if flavor == self.flavor() {
            return Ok(self.clone());
        }
        self.resealed(store, &self.layers, &BTreeMap::new(), flavor)
    }

    /// Whose media types its manifest uses.
    pub fn flavor(&self) -> Flavor {
        if self.manifest.media_type == media_type::DOCKER_MANIFEST { Flavor::Docker } else { Flavor::Oci }
    }

    /// A new manifest for the same config, whose bytes stay: they are the image's id.
    fn resealed(
        &self,
        store: &Store,
        layers: &[Descriptor],
        annotations: &BTreeMap<String, String>,
        flavor: Flavor,
    ) -> Result<Self, Error> {
        let old = read::manifest(store, &self.manifest)?;
        let config = ConfigBlob { digest: old.config.digest, size: old.config.size, config: self.config.clone() };
        let mut all = old.annotations;
        all.extend(annotations.clone());
        let image = seal(store, config, layers, Dress { annotations: all, flavor })?;
        Ok(Self { base_layers: self.base_layers, platform: self.platform.clone(), ..image })
    }
}

/// Deterministic: fields in the order of the types, maps sorted.
pub(super) fn json(what: &str, value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::bad(format!("the {what}"), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{image::fixture, oci::History};

    #[test]
    fn the_same_arguments_give_the_same_digests() {
        let (_one, first) = fixture::store();
        let (_two, second) = fixture::store();
        let files = [("a", "1"), ("b", "2")];
        assert_eq!(fixture::image(&first, &files).manifest, fixture::image(&second, &files).manifest);
    }

    #[test]
    fn what_a_base_has_stays_below_what_is_made() {
        let (_dir, store) = fixture::store();
        let base = fixture::image(&store, &[("a", "1")]);
        let mut config = base.config.clone();
        drop(config.other.insert("moby.unknown".into(), "kept".into()));
        let (id, blob) = fixture::layer(&store, &[("b", "2")]);
        let items = [Item::new("ENV x=y"), Item { layer: Some((id, blob, "2025-01-01T00:00:00Z".into())), ..Item::new("RUN x") }];
        let parts = BaseParts { config: &base.config, layers: &base.layers };
        let image = assemble(&store, Some(parts), config, &items, &fixture::platform()).unwrap();
        assert_eq!(image.config.history[..2], base.config.history[..]);
        assert_eq!(image.layers[..1], base.layers[..]);
        assert_eq!(image.base_layers, 1);
        assert_eq!(image.config.rootfs.diff_ids, [base.config.rootfs.diff_ids[0], id]);
        assert_eq!(image.config.created.as_deref(), Some("2025-01-01T00:00:00Z"));
        assert_eq!(image.config.other["moby.unknown"], "kept");
        let lines: Vec<&History> = image.config.history.iter().filter(|line| !line.empty_layer).collect();
        assert_eq!(lines.len(), image.layers.len());
    }

    #[test]
    fn an_image_that_made_no_layer_is_as_old_as_its_base() {
        let (_dir, store) = fixture::store();
        let base = fixture::image(&store, &[("a", "1")]);
        let parts = BaseParts { config: &base.config, layers: &base.layers };
        let image = assemble(&store, Some(parts), base.config.clone(), &[Item::new("ENV x=y")], &fixture::platform()).unwrap();
        assert_eq!(image.config.created, base.config.created);
        assert_eq!(image.config.history.last().unwrap().created, base.config.created);
    }

    #[test]
    fn a_base_of_docker_media_types_becomes_oci() {
        let (_dir, store) = fixture::store();
        let base = fixture::image(&store, &[("a", "1")]);
        let docker = base.in_flavor(&store, Flavor::Docker).unwrap();
        assert_eq!(docker.layers[0].media_type, media_type::DOCKER_LAYER_GZIP);
        assert_eq!(docker.config_digest, base.config_digest);
        let parts = BaseParts { config: &docker.config, layers: &docker.layers };
        let image = assemble(&store, Some(parts), docker.config.clone(), &[], &fixture::platform()).unwrap();
        assert_eq!(image.layers[0].media_type, media_type::LAYER_GZIP);
        assert_eq!(image.manifest.media_type, media_type::MANIFEST);
    }

    #[test]
    fn a_base_whose_layers_do_not_fit_its_config_is_refused() {
        let (_dir, store) = fixture::store();
        let base = fixture::image(&store, &[("a", "1")]);
        let parts = BaseParts { config: &base.config, layers: &[] };
        let error = assemble(&store, Some(parts), base.config.clone(), &[], &fixture::platform()).unwrap_err();
        assert!(error.to_string().contains("its config names 1 layers, its manifest 0"), "{error}");
    }

    #[test]
    fn annotations_change_the_manifest_and_not_the_image_id() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1")]);
        let more = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let annotated = image.annotated(&store, &more).unwrap();
        assert_eq!(annotated.config_digest, image.config_digest);
        assert_ne!(annotated.manifest.digest, image.manifest.digest);
        assert_eq!(read::manifest(&store, &annotated.manifest).unwrap().annotations, more);
    }

    #[test]
    fn notes_that_other_builders_leave_on_descriptors_are_not_copied() {
        let layer = Descriptor {
            annotations: BTreeMap::from([("containerd.io/uncompressed".into(), "x".into()), ("mine".into(), "y".into())]),
            ..Descriptor::new(media_type::LAYER_GZIP, Digest::of(b"x"), 1)
        };
        let kept = in_flavor(&layer, Flavor::Oci).unwrap().annotations;
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), ["mine"]);
    }
}
