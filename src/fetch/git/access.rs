//! Who we are to a git server: BuildKit's secrets `GIT_AUTH_TOKEN` and `GIT_AUTH_HEADER`, bound to one repository.

use std::fmt;

use super::super::{Asker, Error};
use crate::{
    http::basic,
    remote::{GitAddress, Transport},
};

/// A header that git sends to URLs which begin with a scope, and what else the user has.
#[derive(Clone, Default)]
pub(super) struct Access {
    header: Option<(String, String)>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access(…)")
    }
}

impl Access {
    /// Of the repository that the user named; its submodules have the same, and so what is beside its scope has nothing.
    pub(super) fn of(address: &GitAddress, asker: &Asker<'_>) -> Result<Self, Error> {
        if !matches!(address.transport, Transport::Http | Transport::Https) {
            return Ok(Self::default());
        }
        let host = address.host();
        let names = [
            (format!("GIT_AUTH_HEADER.{host}"), false),
            (format!("GIT_AUTH_TOKEN.{host}"), true),
            ("GIT_AUTH_HEADER".to_owned(), false),
            ("GIT_AUTH_TOKEN".to_owned(), true),
        ];
        for (name, token) in names {
            if let Some(secret) = asker.secret(&name)? {
                let value = if token { basic("x-access-token", &secret).replacen("Basic", "basic", 1) } else { secret };
                return Ok(Self { header: Some((scope(address.url()), format!("Authorization: {value}"))) });
            }
        }
        Ok(Self::default())
    }

    /// Settings for git.
    pub(super) fn config(&self) -> Option<(String, String)> {
        self.header.as_ref().map(|(scope, header)| (format!("http.{scope}.extraheader"), header.clone()))
    }
}

/// The URLs that a header goes to: the repository's own; on one host, as BuildKit has it, all.
fn scope(url: &str) -> String {
    let whole = ["https://github.com/", "https://www.github.com/"];
    whole.into_iter().find(|prefix| url.starts_with(prefix)).unwrap_or(url).to_owned()
}
