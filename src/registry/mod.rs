//! The distribution protocol: pull and push, verified, bounded, streaming. It reads no environment and no home
//! directory: what it must know comes in [`Options`].
//!
//! ```text
//! Client ─ one for a process, shared by threads
//!   └ Endpoint ─ one for each registry: scheme found by a first `GET /v2/`, TLS roots, tokens
//!       ├ manifest, blob ─ bytes that have the digest and size they were promised with, or an error
//!       └ upload ─ POST → PATCH… → PUT, continued from where the server says it is
//! ```
//!
//! Invariants:
//! - Nothing from a registry reaches the store or the caller before its digest and size are checked.
//! - Every body, header, redirect chain, retry and wait has a limit.
//! - `Authorization` goes to the registry's own scheme, host and port, and the password to the token service that
//!   this registry names over HTTPS (HTTP only if the registry itself is spoken to so), and nowhere else.
//! - HTTPS, but for loopback hosts when HTTPS is not spoken there, and hosts that are configured `insecure`.
//! - No message has a query, a userinfo or a token in it.
//!
//! Source: distribution-spec `spec.md`; Docker's token authentication; RFC 9110 (ranges, challenges).

mod challenge;
mod client;
mod download;
mod endpoint;
mod error;
mod manifest;
mod options;
mod push;
mod token;
mod upload;

pub use client::{Client, Pulled, What};
pub use error::{Error, Failure};
pub use options::{Credentials, Host, Options};

pub use crate::http::{Limits, Proxies};
pub use push::Pushed;

use crate::oci::Digest;

/// How far the transfer of one blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The blob.
    pub what: Digest,
    /// Bytes so far; falls back when a transfer begins anew.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}
