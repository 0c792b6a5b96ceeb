//! `[registry/]repository[:tag][@digest]`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Digest;

/// The name of an image, complete: `busybox` is `docker.io/library/busybox:latest`.
///
/// Source: distribution/reference `regexp.go` and `normalize.go`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Reference {
    /// `docker.io`, `localhost:5000`
    pub registry: String,
    /// `library/busybox`
    pub repository: String,
    /// The tag; `latest` if the text had neither tag nor digest.
    pub tag: Option<String>,
    /// The digest; wins over the tag.
    pub digest: Option<Digest>,
}

/// A text that is no image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image name: {reason}")]
pub struct BadReference {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Reference {
    /// As users write it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        short.strip_prefix("library/").unwrap_or(short).to_owned()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl TryFrom<String> for Reference {
    type Error = BadReference;

    fn try_from(text: String) -> Result<Self, BadReference> {
        text.parse()
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        Err(BadReference { text: text.to_owned(), reason: "not written".into() })
    }
}
