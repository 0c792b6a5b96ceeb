//! Secrets: where each comes from. Their bytes are read when a step asks for them, and are kept nowhere.

use std::{fmt, io::Read as _, path::PathBuf};

use crate::error::{Error, Kind};

/// The most bytes a secret may have: BuildKit's limit.
const LIMIT: u64 = 500 * 1024;

/// Where a secret's bytes are.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// Given as a value, from a variable.
    Value(Vec<u8>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(…)"),
        }
    }
}

impl Secret {
    /// Its bytes. `id` is for messages.
    pub fn read(&self, id: &str) -> Result<Vec<u8>, Error> {
        match self {
            Self::Value(bytes) => Ok(bytes.clone()),
            Self::File(path) => {
                let unreadable = |error: std::io::Error| {
                    Error::new(Kind::Request, format!("cannot read the secret `{id}` from `{}`", path.display())).because(&error)
                };
                let mut bytes = Vec::new();
                let file = std::fs::File::open(path).map_err(unreadable)?;
                let length = file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
                if length as u64 > LIMIT {
                    return Err(Error::new(Kind::Request, format!("the secret `{id}` is larger than {LIMIT} bytes")));
                }
                Ok(bytes)
            }
        }
    }
}
