//! The data of the OCI specifications, as plain values.
//!
//! Own serde types: fields we do not know are kept, and the JSON is deterministic (sorted maps). Parsed
//! newtypes for what has a form: [`Digest`], [`DiffId`], [`Reference`], [`Platform`].
//!
//! Source: image-spec `manifest.md`, `image-index.md`, `config.md`, `descriptor.md`; moby's
//! `HealthConfig` and the fields that Docker adds (`OnBuild`, `Shell`, `ArgsEscaped`).

mod config;
mod digest;
mod manifest;
mod null;
mod platform;
mod reference;

pub use config::{Config, Health, History, ImageConfig, RootFs};
pub use digest::{BadDigest, DiffId, Digest};
pub use manifest::{Descriptor, Index, Manifest, media_type};
pub use platform::{BadPlatform, Platform};
pub use reference::{BadReference, Reference};
