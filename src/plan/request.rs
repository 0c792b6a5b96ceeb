//! What the user asks for, and the look-up of names that the file does not define.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CopySource, NetworkMode};
use crate::oci::{Descriptor, ImageConfig, Platform};

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `--target`; `None`: the last stage.
    pub target: Option<String>,
    /// `--build-arg`
    pub build_args: BTreeMap<String, String>,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// `--platform`; `None`: the host's.
    pub platform: Option<Platform>,
    /// Names of `--build-context`.
    pub contexts: Vec<String>,
    /// `--network`
    pub network: NetworkMode,
}

/// A base image or a named context, looked up by name.
pub trait Bases {
    /// What a name in FROM, `--from` or `from=` stands for. `Ok(None)`: no such image anywhere.
    fn base(&self, name: &str, platform: &Platform) -> Result<Option<Base>, BaseError>;

    /// When something was made, in seconds since 1970. `Ok(None)`: that is not known, as of a directory.
    fn time(&self, of: &Dated) -> Result<Option<i64>, BaseError> {
        let _ = of;
        Ok(None)
    }
}

/// What may have a time that `SOURCE_DATE_EPOCH` asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Dated {
    /// The build context: its commit, its archive.
    Context,
    /// A named context.
    Named(String),
    /// What the ADD of a stage takes: a URL or a repository.
    Far(CopySource),
}

/// Why a base could not be looked up.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct BaseError {
    /// What went wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// Whose fault.
    pub kind: crate::error::Kind,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "a plan holds few of them, and a box would show in every match of the engine")]
pub enum Base {
    /// An image.
    Image(BaseImage),
    /// Nothing: a named context that is `docker-image://scratch`.
    Scratch,
    /// A named context that is a directory: it can be copied from, and `FROM` it is `FROM scratch` + `COPY . /`.
    Directory(String),
}

/// An image that a build starts from or copies from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseImage {
    /// The complete name, for messages.
    pub name: String,
    /// Of its manifest (never of an index).
    pub manifest: Descriptor,
    /// Its config.
    pub config: ImageConfig,
    /// The layers' blobs, base first.
    pub layers: Vec<Descriptor>,
}
