//! The user's side: reads what the user has (Dockerfile, contexts, secrets), looks up bases, fetches blobs, starts the
//! engine's process and answers its questions, and hands the finished image to its outputs. It runs with the user's own
//! identity and sees no tree.

mod agent;
mod bases;
mod build;
mod cache;
mod cancel;
mod context;
mod dockerfile_text;
mod engine_process;
mod judge;
mod judged_files;
mod named;
mod registries;
mod remotes;
mod secret;
mod sinks;
mod upkeep;

pub use agent::Agent;
pub use bases::NamedContext;
pub use build::{Built, Request, Session, build};
pub use cache::{CacheFrom, CacheTo};
pub use cancel::Cancel;
pub use context::{Context, ContextFrom, Sent, Stream};
pub use dockerfile_text::{DockerfileFrom, LIMIT as LARGEST_DOCKERFILE, Text, read as read_dockerfile};
pub use engine_process::{ENGINE, engine_main};
pub use judge::{Checked, check, outline};
pub use registries::{Registries, RegistrySettings};
pub use remotes::{Order, Remotes};
pub use secret::Secret;
pub use sinks::{Place, Sink, SinkKind};
pub use upkeep::{UPKEEP, upkeep, upkeep_main};
