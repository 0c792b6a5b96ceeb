//! The command line as clap reads it: first what was written, then (in `request`) what it means.

use std::{num::NonZero, path::PathBuf};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::{log::Level, store_limits::LimitFlags};
use crate::sandbox::driver::{Preset, SnapshotWish};

/// Turns a Dockerfile into an OCI image: no daemon, no root.
#[derive(Debug, Parser)]
#[command(name = "lapstrake", version, about, max_term_width = 120)]
pub(super) struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub(super) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What applies to every command.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// The store [default: $`XDG_DATA_HOME/lapstrake`]
    #[arg(long, global = true, env = "LAPSTRAKE_ROOT", value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// The configuration [default: $`XDG_CONFIG_HOME/lapstrake/config.toml`]
    #[arg(long, global = true, env = "LAPSTRAKE_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// How steps are run; `none` refuses to run any
    #[arg(long, global = true, value_name = "PRESET", default_value = "auto", value_parser = named(Preset::offered()))]
    pub(super) driver: Preset,
    /// How what a step changes is kept
    #[arg(long, global = true, value_name = "WAY", default_value = "auto", value_parser = named(SnapshotWish::offered()))]
    pub(super) snapshots: SnapshotWish,
    /// What is told on standard error besides: `info` what the command used, `debug` its parts and what each took, `trace` those of each step too
    #[arg(long, global = true, value_name = "LEVEL", value_enum, default_value = "off")]
    pub(super) log_level: Level,
}

/// A parser of these names: only what can be had is offered.
fn named<T: Copy + Send + Sync + 'static>(offered: impl Iterator<Item = (&'static str, T)>) -> impl TypedValueParser<Value = T> {
    let offered: Vec<(&str, T)> = offered.collect();
    let names = PossibleValuesParser::new(offered.iter().map(|(name, _)| *name));
    names.try_map(move |text| offered.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or("not offered"))
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<Build>),
    /// Fetch an image from a registry into the store
    Pull {
        /// The image
        reference: String,
        /// For this platform, not the host's
        #[arg(long)]
        platform: Option<String>,
        /// Print only the digest
        #[arg(short, long)]
        quiet: bool,
    },
    /// Send an image from the store to a registry
    Push {
        /// The image
        reference: String,
        /// All tags of the repository that the store has
        #[arg(long)]
        all_tags: bool,
        /// Print only the digest
        #[arg(short, long)]
        quiet: bool,
    },
    /// Give an image of the store another name
    Tag {
        /// The image
        source: String,
        /// The new name
        target: String,
    },
    /// List the images of the store
    Images {
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
        /// With digests
        #[arg(long)]
        digests: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Read images from an archive or an OCI layout into the store
    Load {
        /// A docker archive, an OCI archive or an OCI layout directory [default: standard input]
        #[arg(short, long)]
        input: Option<PathBuf>,
        /// Name the image (the archive must hold one)
        #[arg(short, long, value_name = "NAME")]
        tag: Option<String>,
        /// Print only ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// Make an image of a root file system's tar
    Import {
        /// The tar, compressed or not; `-` is standard input
        file: PathBuf,
        /// The image's name
        reference: String,
        /// A Dockerfile instruction for its config (CMD, ENV, ENTRYPOINT, …)
        #[arg(short, long, value_name = "INSTRUCTION")]
        change: Vec<String>,
    },
    /// Show what a Dockerfile is read as
    Parse {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// The Dockerfile; `-` is standard input
        file: PathBuf,
    },
    /// Show what the store holds
    Du {
        /// By image and by instruction too
        #[arg(short, long)]
        verbose: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what can be made again: all that no image with a name needs, or as much as limits ask
    Prune {
        /// Images with names too
        #[arg(short, long)]
        all: bool,
        /// Remove the whole store
        #[arg(long, conflicts_with_all = ["all", "reserved_space", "max_used_space", "min_free_space", "max_used_inodes"])]
        reset: bool,
        /// What is to be left
        #[command(flatten)]
        limits: LimitFlags,
    },
    /// Read and check all of the store, and remove what is wrong
    Fsck,
    /// Try what a build needs of this machine, and name what is missing
    Doctor {
        /// Print the `AppArmor` profile that lets this program make user namespaces on Ubuntu, and try nothing
        #[arg(long)]
        apparmor_profile: bool,
    },
}

/// `lapstrake build`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, clippy::struct_field_names, reason = "each is a flag as the user writes it")]
pub(super) struct Build {
    /// A directory, `-` for a Dockerfile or a tar on standard input, the URL of a tarball, or a git address[#ref[:subdir]]
    pub(super) context: Option<String>,
    /// The Dockerfile; `-` is standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "PATH")]
    pub(super) file: Option<PathBuf>,
    /// Name the image (repeatable)
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub(super) tags: Vec<String>,
    /// Build up to this stage
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// The value of an ARG; without one, the environment's
    #[arg(long = "build-arg", value_name = "K[=V]")]
    pub(super) build_args: Vec<String>,
    /// Another context: NAME=DIR, NAME=oci-layout://PATH[:TAG], NAME=docker-image://REF, NAME=URL
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    pub(super) build_contexts: Vec<String>,
    /// The time of the image, its history and the files that the build makes: seconds since 1970, or `context` for that of its commit or archive
    #[arg(long, value_name = "N|context")]
    pub(super) source_date_epoch: Option<String>,
    /// A secret for RUN --mount=type=secret: id=ID[,src=PATH|,env=VAR]
    #[arg(long = "secret", value_name = "SPEC")]
    pub(super) secrets: Vec<String>,
    /// An ssh agent for RUN --mount=type=ssh: default|ID[=SOCKET|KEYFILE[,KEYFILE…]]
    #[arg(long = "ssh", value_name = "SPEC")]
    pub(super) ssh: Vec<String>,
    /// The platform of the image [default: the host's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(super) platform: Vec<String>,
    /// A label of the image
    #[arg(long = "label", value_name = "K=V")]
    pub(super) labels: Vec<String>,
    /// A line of /etc/hosts for the steps
    #[arg(long = "add-host", value_name = "NAME:IP")]
    pub(super) add_hosts: Vec<String>,
    /// The network of the steps; the default is the host's
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(super) network: String,
    /// A limit of the processes of steps: NAME=SOFT[:HARD]
    #[arg(long = "ulimit", value_name = "SPEC")]
    pub(super) ulimits: Vec<String>,
    /// The size of /dev/shm in steps [default: 64m]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(super) shm_size: Option<String>,
    /// The memory of a step; needs control groups of version 2
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(super) memory: Option<String>,
    /// A limit of a step: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus or cpuset-mems
    #[arg(long = "resource", value_name = "KEY=VALUE")]
    pub(super) resources: Vec<String>,
    /// The control group in which steps get theirs, below /sys/fs/cgroup
    #[arg(long, value_name = "PATH")]
    pub(super) cgroup_parent: Option<String>,
    /// Stop a step that runs longer: 90s, 10m, 1h30m
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(super) step_timeout: Option<String>,
    /// Stop a step that writes more to the disk
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(super) step_disk: Option<String>,
    /// How many steps run at once; a step mostly waits
    #[arg(long, value_name = "N", default_value = "16")]
    pub(super) max_steps: NonZero<usize>,
    /// How many threads hash, compress and extract [default: the processors]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<NonZero<usize>>,
    /// What steps may ask for: network.host, security.insecure
    #[arg(long, value_name = "RIGHT", value_delimiter = ',')]
    pub(super) allow: Vec<String>,
    /// Do every step anew
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Do the steps of these stages anew
    #[arg(long, value_name = "STAGES", value_delimiter = ',')]
    pub(super) no_cache_filter: Vec<String>,
    /// A cache that was made elsewhere: type=local,src=DIR[,tag=TAG], or an image with an inline cache
    #[arg(long, value_name = "SPEC")]
    pub(super) cache_from: Vec<String>,
    /// Where the cache goes: type=local,dest=DIR[,mode=min|max][,tag=TAG], or type=inline
    #[arg(long, value_name = "SPEC")]
    pub(super) cache_to: Vec<String>,
    /// Ask the registry for base images first
    #[arg(long)]
    pub(super) pull: bool,
    /// Where the image goes: type=oci|docker|tar|local|registry|image|cacheonly[,dest=PATH][,name=REF]…
    #[arg(short, long = "output", value_name = "SPEC")]
    pub(super) outputs: Vec<String>,
    /// The same as --output=type=registry
    #[arg(long)]
    pub(super) push: bool,
    /// The image goes to the local store
    #[arg(long)]
    pub(super) load: bool,
    /// Write the config's digest to a file
    #[arg(long, value_name = "PATH")]
    pub(super) iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "PATH")]
    pub(super) metadata_file: Option<PathBuf>,
    /// Write a page that shows how long the steps took, what they used and what their layers hold
    #[arg(long, value_name = "FILE.html")]
    pub(super) timings: Option<PathBuf>,
    /// Build nothing: `check` the rules, `outline` what can be given, `targets` that can be built; METHOD[,format=text|json|github]
    #[arg(long, value_name = "METHOD", default_value = "build")]
    pub(super) call: String,
    /// The same as --call=check
    #[arg(long, conflicts_with = "call")]
    pub(super) check: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ProgressForm::Auto)]
    pub(super) progress: ProgressForm,
    /// Show every reason why a step is not cached, and the record of one that is
    #[arg(long)]
    pub(super) explain: bool,
    /// Print only the config's digest
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Only `false`: attestations are not built
    #[arg(long, value_name = "BOOL")]
    pub(super) provenance: Option<String>,
    /// Only `false`: attestations are not built
    #[arg(long, value_name = "BOOL")]
    pub(super) sbom: Option<String>,
    /// Means nothing here: there are no intermediate containers
    #[arg(long, hide = true)]
    pub(super) rm: bool,
    /// Means nothing here: there are no intermediate containers
    #[arg(long, hide = true)]
    pub(super) force_rm: bool,
    /// Means nothing here: the context is not sent anywhere
    #[arg(long, hide = true)]
    pub(super) compress: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressForm {
    /// Plain.
    Auto,
    /// Line by line.
    Plain,
    /// An object of JSON for each event, as buildx writes them.
    #[value(name = "rawjson")]
    RawJson,
    /// Only what a failing step printed.
    Quiet,
    /// Nothing.
    None,
}
