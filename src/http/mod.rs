//! One HTTP exchange, with limits: what the registry client and the downloads of ADD stand on. It reads no environment.
//!
//! Invariants: no redirect is followed by itself, every wait has a bound, no message has a query or a password in it.

mod options;
mod text;
mod transport;
mod url;

pub use options::{Limits, Proxies};
pub use text::{base64, basic, harmless};
pub use transport::{Answer, Cause, Content, Fault, Pace, Request, Transport, Trust, classify_io};
pub use url::{Scheme, Url, bare_host, is_internal, is_loopback};
