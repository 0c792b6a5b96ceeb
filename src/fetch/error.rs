//! Why something could not be fetched.

use crate::{store, sys::PathError};

/// Why something could not be fetched. `what` is an address as it may be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address, a ref, a name in a repository that is not taken.
    #[error("`{what}` is refused: {detail}")]
    Refused {
        /// The address.
        what: String,
        /// Why.
        detail: String,
        /// One thing to do.
        help: Option<String>,
    },
    /// The other side answers that it is not there.
    #[error("`{what}` is not there: {detail}")]
    Missing {
        /// The address.
        what: String,
        /// Its words, or what is missing of it.
        detail: String,
        /// One thing to do.
        help: Option<String>,
    },
    /// What came is not what was asked for.
    #[error("`{what}` is not what the checksum says: expected {expected}, found {found}")]
    Mismatch {
        /// The address.
        what: String,
        /// The checksum.
        expected: String,
        /// What came.
        found: String,
    },
    /// It wants to know who we are.
    #[error("`{what}` refuses access: {detail}")]
    Denied {
        /// The address.
        what: String,
        /// Its words.
        detail: String,
        /// One thing to do.
        help: Option<String>,
    },
    /// It cannot be reached, or the connection was lost, or it is overloaded.
    #[error("`{what}` cannot be fetched: {detail}")]
    Network {
        /// The address.
        what: String,
        /// What happened.
        detail: String,
    },
    /// It answers in a way that is not safe to follow.
    #[error("`{what}` answers what is not followed: {detail}")]
    Hostile {
        /// The address.
        what: String,
        /// What.
        detail: String,
    },
    /// A program of this machine is missing, or cannot do it.
    #[error("the program `{program}` {detail}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What is wrong.
        detail: String,
        /// One thing to do.
        help: Option<String>,
    },
    /// A secret that cannot be used.
    #[error("the secret `{id}` cannot be used")]
    Secret {
        /// Its id.
        id: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is no longer wanted.
    #[error("the build was interrupted")]
    Cancelled,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The disk refused.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// What a caller tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The request is wrong.
    Request,
    /// The network, or the other side.
    Remote,
    /// This machine.
    Environment,
    /// Nobody wants it any more.
    Interrupted,
}

impl Error {
    /// Whose fault.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Refused { .. } | Self::Missing { .. } | Self::Mismatch { .. } | Self::Secret { .. } => Failure::Request,
            Self::Denied { .. } | Self::Network { .. } | Self::Hostile { .. } => Failure::Remote,
            Self::Program { .. } | Self::Store(_) | Self::Path(_) => Failure::Environment,
            Self::Cancelled => Failure::Interrupted,
        }
    }

    /// One thing to do, if there is one.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Refused { help, .. } | Self::Missing { help, .. } | Self::Denied { help, .. } | Self::Program { help, .. } => {
                help.as_deref()
            }
            Self::Mismatch { .. } => Some("if the change is wanted, write the new checksum"),
            Self::Network { .. } | Self::Hostile { .. } | Self::Secret { .. } | Self::Cancelled | Self::Store(_) | Self::Path(_) => None,
        }
    }
}
