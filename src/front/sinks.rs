//! Where a finished image goes.

use std::{io::Write, path::PathBuf};

use super::Session;
use crate::{
    engine::Event,
    error::{Error, Kind},
    image::{Flavor, Image},
    layer::Compression,
    oci::Reference,
    output::{self, Dest, Named},
};

/// A file, or standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This file.
    File(PathBuf),
    /// `-`
    Stdout,
}

/// The kinds of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkKind {
    /// `type=oci`
    OciTar(Place),
    /// `type=oci,tar=false`
    OciDir(PathBuf),
    /// `type=docker,dest=…`
    DockerArchive(Place),
    /// `type=tar`
    Tar(Place),
    /// `type=local`
    Local(PathBuf),
    /// `type=registry`
    Registry,
    /// `type=image`: the local store, where it is anyway
    Store,
    /// `type=cacheonly`
    CacheOnly,
}

impl SinkKind {
    /// What is done for it, in words.
    pub fn task(&self) -> &'static str {
        match self {
            Self::OciTar(_) => "writing an OCI archive",
            Self::OciDir(_) => "writing an OCI layout",
            Self::DockerArchive(_) => "writing a docker archive",
            Self::Tar(_) => "writing a tar",
            Self::Local(_) => "writing a directory",
            Self::Registry => "pushing",
            Self::Store => "naming it in the store",
            Self::CacheOnly => "keeping it in the cache alone",
        }
    }
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// Which kind.
    pub kind: SinkKind,
    /// Names that hold for this output alone; none: those of `-t`.
    pub names: Vec<Reference>,
    /// How layers are to be compressed; `None`: as they are.
    pub compression: Option<Compression>,
    /// The base's layers too.
    pub force_compression: bool,
    /// Docker's media types.
    pub docker_types: bool,
    /// Has what the build made the time of the `SOURCE_DATE_EPOCH`? `None`: if there is one.
    pub rewrite_timestamp: Option<bool>,
}

impl Sink {
    /// With nothing said but the kind.
    pub fn plain(kind: SinkKind) -> Self {
        Self { kind, names: Vec::new(), compression: None, force_compression: false, docker_types: false, rewrite_timestamp: None }
    }

    /// Do its bytes go to standard output?
    pub fn writes_to_stdout(&self) -> bool {
        matches!(self.kind, SinkKind::OciTar(Place::Stdout) | SinkKind::DockerArchive(Place::Stdout) | SinkKind::Tar(Place::Stdout))
    }

    /// Do the layers keep the times that they were made with?
    pub fn keeps_times(&self) -> bool {
        self.rewrite_timestamp == Some(false)
    }

    /// Are an image's layers handed on as blobs?
    pub(super) fn has_layers(&self) -> bool {
        !matches!(self.kind, SinkKind::Tar(_) | SinkKind::Local(_) | SinkKind::CacheOnly)
    }

    /// Must all layers be in the store?
    pub fn needs_layers(&self) -> bool {
        !matches!(self.kind, SinkKind::Store | SinkKind::CacheOnly)
    }
}

/// Writes the image there; the words that say where it is.
pub(super) fn write(
    sink: &Sink,
    image: &Image,
    epoch: Option<i64>,
    tags: &[Reference],
    session: &Session<'_>,
    event: &mut dyn FnMut(Event),
    stdout: &mut dyn Write,
) -> Result<Vec<String>, Error> {
    let store = session.store;
    let shaped = shape(sink, image, session)?;
    let names = if sink.names.is_empty() { tags } else { &sink.names };
    let all = [Named::new(&shaped, names)];
    match &sink.kind {
        SinkKind::OciTar(place) => output::oci(store, &all, dest(place, stdout))?,
        SinkKind::OciDir(path) => output::oci_dir(store, &all, path)?,
        SinkKind::DockerArchive(place) => output::docker(store, &all, dest(place, stdout))?,
        SinkKind::Tar(place) => output::tar(store, &shaped, epoch, dest(place, stdout))?,
        SinkKind::Local(path) => {
            for text in output::local(store, &shaped, epoch, path)? {
                event(Event::Note { text });
            }
        }
        SinkKind::Registry => return push(&shaped, names, session, event),
        SinkKind::Store => return store_names(&shaped, &sink.names, session),
        SinkKind::CacheOnly => {}
    }
    Ok(sink_words(&sink.kind))
}

fn sink_words(kind: &SinkKind) -> Vec<String> {
    match kind {
        SinkKind::OciTar(Place::File(path)) | SinkKind::DockerArchive(Place::File(path)) | SinkKind::Tar(Place::File(path)) => {
            vec![path.display().to_string()]
        }
        SinkKind::OciDir(path) | SinkKind::Local(path) => vec![path.display().to_string()],
        SinkKind::OciTar(Place::Stdout) | SinkKind::DockerArchive(Place::Stdout) | SinkKind::Tar(Place::Stdout) => {
            vec!["standard output".into()]
        }
        SinkKind::CacheOnly => vec!["the cache alone".into()],
        SinkKind::Registry | SinkKind::Store => Vec::new(),
    }
}

fn dest<'a>(place: &'a Place, stdout: &'a mut dyn Write) -> Dest<'a> {
    match place {
        Place::File(path) => Dest::File(path),
        Place::Stdout => Dest::Stream(stdout),
    }
}

/// The image in the form that the output asks for.
fn shape(sink: &Sink, image: &Image, session: &Session<'_>) -> Result<Image, Error> {
    let mut shaped = image.clone();
    if let Some(compression) = sink.compression {
        shaped = output::recompress(session.store, &shaped, compression, sink.force_compression)?;
    }
    if sink.docker_types {
        shaped = shaped.in_flavor(session.store, Flavor::Docker)?;
    }
    Ok(shaped)
}

fn push(image: &Image, names: &[Reference], session: &Session<'_>, event: &mut dyn FnMut(Event)) -> Result<Vec<String>, Error> {
    if names.is_empty() {
        return Err(Error::new(Kind::Usage, "a push needs a name").help("give one with `-t REGISTRY/REPOSITORY:TAG`"));
    }
    let mut places = Vec::new();
    for name in names {
        session.registries.push(name, &image.manifest, session.store, event)?;
        places.push(name.to_string());
    }
    Ok(places)
}

fn store_names(image: &Image, names: &[Reference], session: &Session<'_>) -> Result<Vec<String>, Error> {
    let mut places = Vec::new();
    for name in names {
        session.store.put_ref(name, &image.manifest)?;
        places.push(format!("the local store as {}", name.familiar()));
    }
    Ok(places)
}
