//! What can go wrong between a client and a registry.

use std::{fmt, io, time::Duration};

use crate::{oci::Digest, store};

/// What went wrong. No variant has a query, a userinfo or a token in its text; texts of a server are cut and escaped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry does not have it.
    #[error("{what} does not exist in the registry `{registry}`")]
    NotFound {
        /// The registry.
        registry: String,
        /// Which manifest or blob.
        what: String,
    },
    /// The name is there, but not for this platform.
    #[error("`{name}` has no image for {wanted}; it has {}", Listed(offered))]
    NoPlatform {
        /// The image.
        name: String,
        /// What was asked for.
        wanted: String,
        /// What is there.
        offered: Vec<String>,
    },
    /// 401 or 403, after what credentials there were.
    #[error("the registry `{registry}` refuses access to {what}{detail}")]
    Unauthorized {
        /// The registry.
        registry: String,
        /// Which manifest, blob or repository.
        what: String,
        /// What the registry said, with a `: ` before it, or nothing.
        detail: String,
    },
    /// It cannot be reached, or the connection was lost, or it is overloaded.
    #[error("the registry `{registry}` cannot be used: {detail}")]
    Network {
        /// The registry.
        registry: String,
        /// What happened.
        detail: String,
        /// One thing to do.
        help: Option<String>,
    },
    /// It answers in a way that the protocol does not allow, or that is not safe to follow.
    #[error("the registry `{registry}` breaks the protocol: {detail}")]
    Protocol {
        /// The registry.
        registry: String,
        /// How.
        detail: String,
    },
    /// An image that we do not take: old schema, foreign layers, confused media types.
    #[error("`{name}` cannot be used: {detail}")]
    Unusable {
        /// The image.
        name: String,
        /// Why.
        detail: String,
    },
    /// Bytes did not have the digest or size they were promised with.
    #[error("{what} from the registry `{registry}`: expected {expected}, found {found}")]
    Mismatch {
        /// The registry.
        registry: String,
        /// Which manifest or blob.
        what: String,
        /// What was promised.
        expected: String,
        /// What came.
        found: String,
    },
    /// What is configured for a registry cannot be used.
    #[error("the configuration of the registry `{registry}`: {detail}")]
    Options {
        /// The registry.
        registry: String,
        /// Why.
        detail: String,
    },
    /// A push of what the store does not have.
    #[error("blob {digest} is not in the store, and no registry is known to have it")]
    Missing {
        /// The blob.
        digest: Digest,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A blob of the store could not be read or written.
    #[error("blob {digest} in the store")]
    Disk {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
}

/// The kinds that a caller tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The image, or the platform of it, does not exist: the request is wrong.
    NotFound,
    /// Credentials are missing or refused.
    Unauthorized,
    /// The network, or an overloaded registry.
    Network,
    /// The registry or the image is broken or hostile.
    Protocol,
    /// Bytes are not what was promised.
    Mismatch,
    /// The configuration.
    Options,
    /// The local store.
    Store,
}

impl Error {
    /// Its kind.
    pub fn failure(&self) -> Failure {
        match self {
            Self::NotFound { .. } | Self::NoPlatform { .. } => Failure::NotFound,
            Self::Unauthorized { .. } => Failure::Unauthorized,
            Self::Network { .. } => Failure::Network,
            Self::Protocol { .. } | Self::Unusable { .. } => Failure::Protocol,
            Self::Mismatch { .. } => Failure::Mismatch,
            Self::Options { .. } => Failure::Options,
            Self::Missing { .. } | Self::Store(_) | Self::Disk { .. } => Failure::Store,
        }
    }

    /// One thing to do, if there is one.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Network { help, .. } => help.clone(),
            Self::Unauthorized { registry, .. } => {
                Some(format!("if the image exists, it is not public: `{registry}` wants other credentials than it got"))
            }
            Self::NotFound { .. }
            | Self::NoPlatform { .. }
            | Self::Protocol { .. }
            | Self::Unusable { .. }
            | Self::Mismatch { .. }
            | Self::Options { .. }
            | Self::Missing { .. }
            | Self::Store(_)
            | Self::Disk { .. } => None,
        }
    }
}

/// `linux/amd64, linux/arm64`, or `none`.
struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&if self.0.is_empty() { "none".to_owned() } else { self.0.join(", ") })
    }
}

/// Whether a second try may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It would be the same.
    No,
    /// After a pause.
    Soon,
    /// After the pause that the registry asks for.
    After(Duration),
}

/// The failure of one try.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) error: Error,
    pub(super) again: Again,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self { error, again: Again::No }
    }
}

impl From<store::Error> for Trouble {
    fn from(error: store::Error) -> Self {
        Error::from(error).into()
    }
}
