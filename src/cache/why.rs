//! The reason for a miss, as a value: what changed, or why nothing was looked for or found.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::oci::DiffId;

/// Why a step was not in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Why {
    /// No record of that instruction is known, in its place or with its text.
    First,
    /// It is not what it was when the nearest of its records was made.
    Changed {
        /// What is different; the nearer causes first.
        changes: Vec<Change>,
        /// So many more are not listed.
        more: usize,
        /// When that record was made, RFC 3339.
        since: String,
    },
    /// It was recorded, and the record is not there any more, or damaged.
    RecordGone,
    /// It is recorded, and its layer is not in the store any more.
    LayerGone {
        /// Which.
        layer: DiffId,
    },
    /// `--no-cache`
    NoCache,
    /// `--no-cache-filter`
    NoCacheFilter {
        /// Of this stage.
        stage: String,
    },
}

/// Something that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it is.
    pub of: Of,
    /// Its name: `ARG GIT_SHA`, `src/a.py`.
    pub name: String,
    /// `changed`, `added`, `removed`, `mode 0644→0664`.
    pub how: String,
}

/// What a change is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Of {
    /// A part of the instruction, or of what it is run with.
    Instruction,
    /// A file.
    File,
    /// The base image, or an instruction above.
    Below,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.how)
    }
}

impl Why {
    /// All that is known, a line for each.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::First => vec!["no earlier record of this instruction".to_owned()],
            Self::Changed { changes, more, .. } => {
                let mut lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
                if *more > 0 {
                    lines.push(format!("and {more} more"));
                }
                lines
            }
            Self::RecordGone => vec!["its record is gone from the store".to_owned()],
            Self::LayerGone { layer } => vec![format!("its layer {layer} is gone from the store")],
            Self::NoCache => vec!["--no-cache".to_owned()],
            Self::NoCacheFilter { stage } => vec![format!("--no-cache-filter {stage}")],
        }
    }
}

/// In one line: the first reason, and how many there are besides.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = if let Self::Changed { changes, more, .. } = self { changes.len().saturating_sub(1) + more } else { 0 };
        f.write_str(self.lines().first().map_or("", String::as_str))?;
        if others > 0 { write!(f, " (and {others} more)") } else { Ok(()) }
    }
}
