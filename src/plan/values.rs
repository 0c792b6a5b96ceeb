//! The values that a plan is made of. They hold no variable and no name that would still have to be looked up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::BaseImage;
use crate::{
    diag::{Diagnostic, Span},
    dockerfile::{MountKind, Sharing},
    oci::{Digest, ImageConfig, Platform},
    remote::{GitAddress, HttpAddress},
};

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
    /// What the build argument `SOURCE_DATE_EPOCH`, or a global ARG of that name, comes to, in seconds since 1970. As any
    /// argument it is in a step's environment only where an ARG declares it.
    pub epoch: Option<i64>,
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
#[expect(clippy::large_enum_variant, reason = "a plan holds few of them, and a box would show in every match of the engine")]
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
    /// Places of its parts, for errors at run time: `source 0` (as in [`Copy::sources`]), `dest`, `from`, `chown`, `chmod`,
    /// `mount 0` (as in [`Run::mounts`]).
    pub parts: BTreeMap<String, Span>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "a plan holds few of them, and a box would show in every match of the engine")]
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
    /// So many words of `argv` are the shell's; 0 in the exec form.
    pub shell: usize,
    /// ENV and declared ARGs in the order in which they were last set, each name once. `PATH` is always there.
    pub env: Vec<(String, String)>,
    /// Names in `env` that come from an ARG: their values are shown as digests in records.
    pub args: Vec<String>,
    /// Proxy variables: in the step's environment, in no key.
    pub proxy: Vec<(String, String)>,
    /// Absolute; as WORKDIR wrote it, so there may be a `..` or a `/` at its end.
    pub cwd: String,
    /// USER as it holds there; empty: root.
    pub user: String,
    /// `--network`
    pub network: NetworkMode,
    /// The name that the step sees of its host.
    pub hostname: String,
    /// Files made of heredocs: mounted read-only, mode 0755, at `/dev/pipes/NAME`.
    pub files: Vec<InlineFile>,
    /// `--mount`, in order.
    pub mounts: Vec<Mount>,
    /// `--security`
    pub security: Security,
    /// `--device`, in order.
    pub devices: Vec<Device>,
}

/// `--security`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Security {
    /// Confined, as every step.
    #[default]
    Sandbox,
    /// With all capabilities and without masked paths.
    Insecure,
}

/// `--device`: a device of the Container Device Interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// `vendor.com/class=name`
    pub name: String,
    /// Must it be there?
    pub required: bool,
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
    /// Its name, without a `/` (COPY), or absolute path (RUN).
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
    /// The variable that a secret appears in. With a `target` too, it is also a file.
    pub env: Option<String>,
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "a plan holds few of them, and a box would show in every match of the engine")]
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
    /// In order, heredocs last, as BuildKit copies them.
    pub sources: Vec<CopySource>,
    /// Absolute, made from WORKDIR; a trailing `/` is kept.
    pub dest: String,
    /// Where paths come from.
    pub from: Origin,
    /// `--chown` as expanded: `user[:group]`, names or numbers.
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<Chmod>,
    /// `--link`; with `--chmod` it is off, as BuildKit turns it off.
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
    /// A path or pattern in the origin, from its root: clean, `/`-rooted (`..` cannot leave it), no `/` at its end. With
    /// `--parents` it is as written, because `/./` in it is the pivot.
    Path(String),
    /// A heredoc.
    Inline(InlineFile),
    /// ADD of an http(s) URL.
    Http {
        /// The URL.
        url: HttpAddress,
        /// `--checksum`
        checksum: Option<Digest>,
    },
    /// ADD of a git repository. `--checksum` and `--keep-git-dir` are in its address.
    Git(GitAddress),
}

/// `--chmod`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chmod {
    /// Permission bits.
    Octal(u32),
    /// `u=rwX,go=rX`, checked.
    Symbolic(String),
}
