//! Caches that come from elsewhere and go elsewhere: `--cache-from`, `--cache-to`.
//!
//! However it travels, a cache is an image: its layers, and the records of the steps that made them in a field of its config.
//! `type=local` is such an image alone, in an OCI layout; `type=inline` is the image that was built. A registry has images too,
//! so that where one is read from a registry nothing else is needed. Layers are brought when a step asks for them.
//!
//! Believed only when verified: index, manifest, config and layers by their digests, a layer's tar by its diff id. That a layer
//! is what a key's step makes is the word of whoever wrote the cache.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{Session, engine_process::Answers};
use crate::{
    cache::{Shared, SharedRecord},
    engine::{Event, Import, Job},
    error::{Error, Kind},
    image::{self, Image, MANIFEST_LIMIT},
    oci::{Descriptor, DiffId, Digest, Index, Platform, Reference},
    output::{self, Named},
    store::Store,
    sys::PathError,
};

/// The field of a config that holds records.
const FIELD: &str = "lapstrake.cache.v1";

/// The annotation of a layout's index by which one of its images is chosen.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Where a cache comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheFrom {
    /// An OCI layout directory, and the tag or digest in it.
    Layout {
        /// Where.
        dir: PathBuf,
        /// Which.
        selector: String,
    },
    /// An image that was built with `--cache-to type=inline`, of the store or of a registry.
    Image(Reference),
}

/// Where the cache goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheTo {
    /// Into an OCI layout directory.
    Layout {
        /// Where.
        dir: PathBuf,
        /// The tag in it.
        tag: String,
        /// All steps, not only those whose layers the image has?
        max: bool,
    },
    /// Into the image that is built.
    Inline,
}

impl std::fmt::Display for CacheFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Layout { dir, .. } => write!(f, "`{}`", dir.display()),
            Self::Image(name) => write!(f, "`{}`", name.familiar()),
        }
    }
}

/// The caches that can be had. One that cannot is told and does without.
pub(super) fn bring(
    all: &[CacheFrom],
    platform: &Platform,
    session: &Session<'_>,
    event: &mut dyn FnMut(Event),
) -> (Vec<CacheFrom>, Vec<Import>) {
    let (mut sources, mut imports) = (Vec::new(), Vec::new());
    for from in all {
        match import(from, platform, session) {
            Ok(import) => {
                sources.push(from.clone());
                imports.push(import);
            }
            Err(error) => event(Event::Note { text: format!("no cache from {from}: {error}") }),
        }
    }
    (sources, imports)
}

fn import(from: &CacheFrom, platform: &Platform, session: &Session<'_>) -> Result<Import, Error> {
    let image = match from {
        CacheFrom::Layout { dir, selector } => of_layout(dir, selector, platform, session.store)?,
        CacheFrom::Image(name) => of_image(name, platform, session)?,
    };
    let none = || Error::new(Kind::Request, "it holds no records of lapstrake");
    let noted = image.config.other.get(FIELD).ok_or_else(none)?;
    let shared: Shared =
        serde_json::from_value(noted.clone()).map_err(|error| Error::new(Kind::Request, "its records cannot be read").because(&error))?;
    if !shared.is_sound() {
        return Err(Error::new(Kind::Request, "its records are of another version of lapstrake"));
    }
    let blobs = image.config.rootfs.diff_ids.iter().copied().zip(image.layers).collect();
    Ok(Import { shown: from.to_string(), shared, blobs })
}

fn of_image(name: &Reference, platform: &Platform, session: &Session<'_>) -> Result<Image, Error> {
    let target = match session.store.resolve_ref(name)? {
        Some(target) => target,
        None => session
            .registries
            .pull_config(name, platform, session.store)?
            .ok_or_else(|| Error::new(Kind::Request, "there is no such image"))?,
    };
    Ok(image::read(session.store, &target, platform)?)
}

fn of_layout(dir: &Path, selector: &str, platform: &Platform, store: &Store) -> Result<Image, Error> {
    let bytes = bounded(&dir.join("index.json"), MANIFEST_LIMIT)?;
    let index: Index = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(Kind::Request, "its `index.json` is no index of an OCI layout").because(&error))?;
    let wanted =
        |entry: &&Descriptor| entry.digest.to_string() == selector || entry.annotations.get(REF_NAME).is_some_and(|name| name == selector);
    let entry = index.manifests.iter().find(wanted);
    let entry = entry.ok_or_else(|| Error::new(Kind::Request, format!("it has no cache called `{}`", selector.escape_debug())))?;
    small(dir, entry, MANIFEST_LIMIT, store)?;
    let manifest = image::manifest(store, entry)?;
    small(dir, &manifest.config, image::CONFIG_LIMIT, store)?;
    Ok(image::read(store, entry, platform)?)
}

/// Brings a blob that is read whole.
fn small(dir: &Path, blob: &Descriptor, limit: u64, store: &Store) -> Result<(), Error> {
    let bytes = bounded(&path_of(dir, &blob.digest), limit)?;
    if Digest::of(&bytes) != blob.digest {
        return Err(Error::new(Kind::Request, format!("its blob {} has other bytes", blob.digest)));
    }
    let _digest: Digest = store.put_blob(&bytes)?;
    Ok(())
}

fn path_of(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

fn open(path: &Path) -> Result<File, Error> {
    // Who opens a pipe waits.
    if !std::fs::metadata(path).map_err(PathError::new("look at", path))?.is_file() {
        return Err(Error::new(Kind::Request, format!("`{}` is no file", path.display())));
    }
    Ok(File::open(path).map_err(PathError::new("open", path))?)
}

fn bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(limit + 1).read_to_end(&mut bytes);
    if read.map_err(PathError::new("read", path))? as u64 > limit {
        return Err(Error::new(Kind::Request, format!("`{}` is larger than it may be", path.display())));
    }
    Ok(bytes)
}

/// Brings a layer into the store, verified by its digest.
pub(super) fn fetch(from: &CacheFrom, blob: &Descriptor, answers: &Answers<'_>, event: &mut dyn FnMut(Event)) -> Result<(), Error> {
    let store = answers.store;
    match from {
        CacheFrom::Image(_) if store.has_whole_blob(blob) => Ok(()),
        CacheFrom::Image(name) => answers.registries.blob(&name.to_string(), blob, store, event),
        CacheFrom::Layout { dir, .. } => {
            let path = path_of(dir, &blob.digest);
            let mut writer = store.blob_writer()?;
            // One byte more than promised is enough to see that it is more.
            let mut bytes = open(&path)?.take(blob.size.saturating_add(1));
            let _copied = io::copy(&mut bytes, &mut writer).map_err(PathError::new("copy", &path))?;
            let _written: (Digest, u64) = writer.commit(Some((&blob.digest, blob.size)))?;
            Ok(())
        }
    }
}

/// The images with the records of their layers, if that is asked for.
pub(super) fn inline(all: &[CacheTo], image: Image, records: &[SharedRecord], job: &Job, store: &Store) -> Result<Image, Error> {
    if !all.contains(&CacheTo::Inline) {
        return Ok(image);
    }
    let Some(salt) = &job.share else { return Ok(image) };
    let value = value(&Shared::new(salt, of_image_alone(&image, records)))?;
    Ok(image.noting(store, FIELD, value)?)
}

fn value(shared: &Shared) -> Result<serde_json::Value, Error> {
    serde_json::to_value(shared).map_err(|error| Error::new(Kind::Bug, "records are no JSON").because(&error))
}

/// The records whose layers the image has.
fn of_image_alone(image: &Image, records: &[SharedRecord]) -> Vec<SharedRecord> {
    let layers: BTreeSet<DiffId> = image.config.rootfs.diff_ids.iter().copied().collect();
    records.iter().filter(|record| layers.contains(&record.layer)).cloned().collect()
}

/// Writes what goes to directories; where it is, for the last line.
pub(super) fn write(all: &[CacheTo], image: &Image, records: &[SharedRecord], job: &Job, store: &Store) -> Result<Vec<String>, Error> {
    let mut places = Vec::new();
    for to in all {
        let (CacheTo::Layout { dir, tag, max }, Some(salt)) = (to, &job.share) else { continue };
        let records = if *max { records.to_vec() } else { of_image_alone(image, records) };
        let mut seen = BTreeSet::new();
        let mut layers = Vec::new();
        for record in records.iter().filter(|record| seen.insert(record.layer)) {
            let blob = store.layer_blob(&record.layer, &job.compression.id()).or_else(|| store.any_layer_blob(&record.layer));
            let gone = || Error::new(Kind::Environment, format!("the layer {} is not in the store", record.layer));
            layers.push((record.layer, blob.ok_or_else(gone)?));
        }
        let carrier = image::carrier(store, &layers, &image.platform, FIELD, value(&Shared::new(salt, records))?)?;
        let name =
            format!("lapstrake.local/cache:{tag}").parse::<Reference>().map_err(|error| Error::new(Kind::Usage, error.to_string()))?;
        output::oci_dir(store, &[Named::new(&carrier, &[name])], dir)?;
        places.push(format!("its cache in {}", dir.display()));
    }
    Ok(places)
}
