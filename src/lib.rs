#![doc = include_str!("../ARCHITECTURE.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on may say so by a panic"))]

pub mod cache;
pub mod cli;
pub mod context;
pub mod diag;
pub mod dockerfile;
pub mod engine;
pub mod error;
pub mod fetch;
pub mod front;
pub mod http;
pub mod image;
pub mod layer;
pub mod lint;
pub mod oci;
pub mod output;
pub mod pattern;
pub mod plan;
pub mod registry;
pub mod remote;
pub mod rootfs;
pub mod sandbox;
pub mod store;
pub mod sys;
pub mod tree;

pub use error::{Error, Kind};
