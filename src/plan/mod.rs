//! What a Dockerfile means: values, no variables, no stage names, no unreachable stages, no ONBUILD.
//!
//! [`resolve`] takes the tree and a [`Request`] and gives a [`Plan`] or all its errors at once. It touches no file and no
//! network but through [`Bases`].
//!
//! Source: BuildKit `frontend/dockerfile/dockerfile2llb/convert.go`, `dispatchers`; docs/reference.md.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    diag::{Diagnostic, Span},
    dockerfile::{Dockerfile, MountKind, Sharing},
    oci::{Descriptor, ImageConfig, Platform},
};

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
pub enum Base {
    /// An image.
    Image(BaseImage),
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

/// The number of a stage in [`Plan::stages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StageId(pub usize);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The stages that the target needs, each after those it needs.
    pub stages: Vec<Stage>,
    /// Whose image is the result.
    pub target: StageId,
    /// What it runs on.
    pub platform: Platform,
    /// What should be said and does not stop the build.
    pub warnings: Vec<Diagnostic>,
}

/// A stage: a start, steps, and the config that they make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// For progress and messages: its name, else `stage-N` with its number in the file.
    pub name: String,
    /// What it starts from.
    pub start: Start,
    /// In order. ONBUILD triggers of the base come first.
    pub steps: Vec<Step>,
    /// The image's config without `rootfs`, `history` and `created`: what FROM's base and all steps make of it.
    pub config: ImageConfig,
    /// FROM.
    pub span: Span,
}

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Start {
    /// Nothing.
    Scratch,
    /// Another stage.
    Stage(StageId),
    /// An image.
    Image(BaseImage),
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// As progress shows it: the instruction as written, heredocs shortened.
    pub shown: String,
    /// `created_by` of its history line.
    pub history: String,
    /// Where it stands. For ONBUILD's: FROM.
    pub span: Span,
    /// Places of its parts, for errors at run time: `source 0`, `dest`, `chown`, `mount 0`.
    pub parts: BTreeMap<String, Span>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Nothing but a history line: the config is the stage's.
    Metadata,
    /// RUN
    Run(Run),
    /// COPY and ADD
    Copy(Copy),
    /// WORKDIR: the directory is made, with its parents.
    Workdir {
        /// Absolute and clean.
        path: String,
        /// Who owns what is made: USER as it holds there; empty: root.
        user: String,
    },
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The shell included.
    pub argv: Vec<String>,
    /// ENV and declared ARGs, in order, each name once. `PATH` is always there.
    pub env: Vec<(String, String)>,
    /// Names in `env` that come from an ARG: their values are shown as digests in records.
    pub args: Vec<String>,
    /// Proxy variables: in the step's environment, in no key.
    pub proxy: Vec<(String, String)>,
    /// Absolute.
    pub cwd: String,
    /// USER as it holds there; empty: root.
    pub user: String,
    /// `--network`
    pub network: NetworkMode,
    /// Files made of heredocs: mounted read-only, mode 0755, at `/dev/pipes/NAME`.
    pub files: Vec<InlineFile>,
    /// `--mount`, in order.
    pub mounts: Vec<Mount>,
}

/// The network of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NetworkMode {
    /// What the build says: the host's.
    #[default]
    Default,
    /// The host's.
    Host,
    /// Only `lo`.
    None,
}

/// A file whose bytes stand in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineFile {
    /// Its name (COPY) or absolute path (RUN).
    pub name: String,
    /// Its bytes, expanded.
    pub data: String,
}

/// `--mount`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Which kind.
    pub kind: MountKind,
    /// Absolute; empty for a secret that is only a variable.
    pub target: String,
    /// For bind and cache.
    pub from: Origin,
    /// Below the origin's root.
    pub source: String,
    /// The id of a cache, secret or socket.
    pub id: String,
    /// How builds share a cache.
    pub sharing: Option<Sharing>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Must it be there?
    pub required: bool,
    /// Not writable.
    pub readonly: bool,
    /// tmpfs, in bytes.
    pub size: Option<u64>,
    /// The variable that a secret appears in.
    pub env: Option<String>,
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Origin {
    /// The build context.
    Context,
    /// A named context that is a directory.
    Named(String),
    /// A stage, as it is at its end.
    Stage(StageId),
    /// An image.
    Image(BaseImage),
    /// An empty tree.
    Scratch,
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Copy {
    /// Is it ADD?
    pub add: bool,
    /// In order.
    pub sources: Vec<CopySource>,
    /// Absolute, made from WORKDIR; a trailing `/` is kept.
    pub dest: String,
    /// Where paths come from.
    pub from: Origin,
    /// `--chown` as expanded: `user[:group]`, names or numbers.
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<Chmod>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`
    pub exclude: Vec<String>,
    /// ADD `--unpack`; `None`: archives among local files are unpacked, downloads are not.
    pub unpack: Option<bool>,
}

/// One source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CopySource {
    /// A path or pattern in the origin.
    Path(String),
    /// A heredoc.
    Inline(InlineFile),
    /// ADD of an http(s) URL.
    Http {
        /// The URL.
        url: String,
        /// `--checksum`
        checksum: Option<String>,
    },
    /// ADD of a git repository.
    Git {
        /// The URL with its fragment or query.
        url: String,
        /// `--checksum`
        checksum: Option<String>,
        /// `--keep-git-dir`
        keep_git_dir: bool,
    },
}

/// `--chmod`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chmod {
    /// Permission bits.
    Octal(u32),
    /// `u=rwX,go=rX`, checked.
    Symbolic(String),
}

/// Gives a Dockerfile its meaning. `Err`: all errors, in order of position; `Failed` when a base could not be had.
pub fn resolve(file: &Dockerfile, request: &Request, bases: &dyn Bases) -> Result<Plan, Unresolved> {
    let _ = (file, request, bases);
    Err(Unresolved { places: Vec::new(), kind: crate::error::Kind::Request })
}

/// Why there is no plan.
#[derive(Debug, Clone)]
pub struct Unresolved {
    /// All errors.
    pub places: Vec<Diagnostic>,
    /// Whose fault: the worst of them.
    pub kind: crate::error::Kind,
}
