//! Step keys and records: labelled, length-framed, versioned fields. What a step is, this room does not know.
//!
//! A key is the BLAKE3 of its fields. Its record keeps the fields decomposed, values only as digests salted with the
//! store's own salt, so that a later miss can say which field changed; the digests by path of what a COPY selected
//! are kept beside it and read only then.
//!
//! In the store, with `<key>` and `<place>` as 64 hex digits:
//!
//! ```text
//! cache/<key>        the outcome, the salted fields, and what lay below
//! cache/<key>-0      the salted digests by path, if there are any
//! cache/<place>-1    the keys of the last records of an instruction, the most recent first: a list for its place and
//!                    one for its text, so that one that moved is known as well as one that was edited
//! ```

mod below;
mod fields;
mod listing;
mod path_value;
mod paths;
mod reason;
mod record;
mod shared;
mod why;

pub use below::Below;
pub use fields::{Fields, StepKey, VERSION};
pub use listing::list;
pub use path_value::PathValue;
pub use paths::{Paths, Telling};
pub use reason::explain;
pub use record::{Instruction, Outcome, Subject, look_up, record};
pub use shared::{Shared, SharedRecord, shared_salt};
pub use why::{Change, Of, Why};

/// How labels of fields begin that are digests of what the paths of a record say: where the paths tell
/// what changed, [`explain`] does not name them.
pub const FILES: &str = "files";

/// The label of the field that is a digest of what lies [`Below`].
pub const BELOW: &str = "below";

#[cfg(test)]
mod tests;
