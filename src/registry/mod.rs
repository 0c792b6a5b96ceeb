//! The distribution protocol: pull and push, verified, bounded, streaming. It reads no environment and no home
//! directory: what it must know comes in [`Options`].
//!
//! Source: distribution-spec `spec.md`; Docker's token authentication.
