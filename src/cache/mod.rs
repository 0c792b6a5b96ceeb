//! Step keys and records: labelled, length-framed, versioned fields. What a step is, this room does not know.
//!
//! A key is the BLAKE3 of its fields. Its record keeps the fields decomposed, values only as digests salted with the
//! store's own salt, so that a later miss can say which field changed; the digests by path of what a COPY selected
//! are kept beside it and read only then.
//!
//! In the store, with `<key>` and `<place>` as 64 hex digits:
//!
//! ```text
//! cache/<key>        the outcome and the salted fields
//! cache/<key>-0      the salted digests by path, if there are any
//! cache/<place>-1    the keys of the last records of an instruction, the most recent first
//! ```

mod fields;
mod path_value;
mod reason;
mod record;

pub use fields::{Fields, StepKey, VERSION};
pub use path_value::PathValue;
pub use reason::explain;
pub use record::{Outcome, look_up, record};

/// The label of a field that is a digest of what the paths of a record say: where the paths tell
/// what changed, [`explain`] does not name it.
pub const FILES: &str = "files";

#[cfg(test)]
mod tests;
