//! Every raw syscall, and the only `unsafe`. It decides no policy and knows no word of OCI or Dockerfile.

#![allow(unsafe_code, reason = "this is the one room that may; every block argues its own case")]

mod clock;
pub mod dir;
mod error;

pub use clock::now;
pub use error::PathError;
