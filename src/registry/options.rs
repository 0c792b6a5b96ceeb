//! What a client must know: hosts and credentials. Plain values; the file they come from is read elsewhere.

use std::{collections::BTreeMap, fmt};

use crate::http::{Limits, Proxies};

/// What a client must know.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// By registry, as references name it: `docker.io`, `10.0.0.5:5000`.
    pub hosts: BTreeMap<String, Host>,
    /// Proxies.
    pub proxies: Proxies,
    /// Bounds in time and number.
    pub limits: Limits,
}

/// What is configured for one registry.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Certificates are not checked, and HTTP is spoken where HTTPS is not.
    pub insecure: bool,
    /// Certificates of authorities (PEM), trusted beside the system's.
    pub ca: Option<Vec<u8>>,
    /// Who we are there.
    pub credentials: Option<Credentials>,
}

/// Who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Sent to the registry if it asks for it, or to its token service.
    Basic {
        /// The user.
        username: String,
        /// The password or access token.
        password: String,
    },
    /// A token that the registry itself takes, sent as it is.
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_printed() {
        let basic = Credentials::Basic { username: "me".into(), password: "hunter2".into() };
        assert!(!format!("{basic:?} {:?}", Credentials::Bearer("hunter2".into())).contains("hunter2"));
    }
}
