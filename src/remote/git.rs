//! The address of a git repository, with what is wanted of it.
//!
//! ```text
//! <repository>[?key=value&…][#ref[:subdir]]
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use super::percent::{decode, pairs};

/// An address that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAddress(pub String);

/// How a repository is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// `http://`
    Http,
    /// `https://`
    Https,
    /// `git://`
    Git,
    /// `ssh://` and `user@host:path`
    Ssh,
}

impl Transport {
    /// Git's own word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Git => "git",
            Self::Ssh => "ssh",
        }
    }
}

/// Which modification times the files of a checkout have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Times {
    /// That of the checkout.
    #[default]
    Checkout,
    /// That of the commit.
    Commit,
}

/// The address of a git repository, with what is wanted of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GitAddress {
    url: String,
    /// How it is spoken to.
    pub transport: Transport,
    /// A branch, a tag, `refs/…`, or a whole commit; `None`: the default branch.
    pub reference: Option<String>,
    /// Only this directory; no `/` at its ends. It may have `..` in it, which no checkout takes.
    pub subdir: Option<String>,
    /// What the commit, or the tag, must begin with.
    pub checksum: Option<String>,
    /// Is there to be a `.git`? `None`: the address does not say.
    pub keep_git_dir: Option<bool>,
    /// Are submodules fetched too?
    pub submodules: bool,
    /// Times of the files.
    pub times: Times,
    /// The checksum is the commit, whatever the reference leads to.
    pub fetch_by_commit: bool,
}

impl GitAddress {
    /// `Ok(None)`: it is no git repository's. `Err`: it is, with a query that says nothing sensible.
    pub fn parse(text: &str) -> Result<Option<Self>, BadAddress> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        match text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
            Some((scheme, rest)) => Parts::of_url(scheme, rest).map_or(Ok(None), |parts| parts.read().map(Some)),
            None => Parts::of_scp(text).map_or(Ok(None), |parts| parts.read().map(Some)),
        }
    }

    /// Of the URL of a submodule: any that git itself takes for one of our protocols, without a query or a fragment.
    pub fn of_repository(url: &str) -> Option<Self> {
        if url.bytes().any(|byte| byte.is_ascii_control()) {
            return None;
        }
        if let Some((scheme, rest)) = url.split_once("://") {
            let transport = transport(&scheme.to_ascii_lowercase())?;
            return Some(Self::plain(format!("{}://{rest}", transport.word()), transport));
        }
        // `ext::…` and its like are git's helpers, and may run anything.
        let (host, path) = url.split_once(':')?;
        let ssh = !host.is_empty() && !host.contains('/') && !path.is_empty() && !path.starts_with(':');
        ssh.then(|| Self::plain(url.to_owned(), Transport::Ssh))
    }

    /// All of it, as it is by default.
    fn plain(url: String, transport: Transport) -> Self {
        Self {
            url,
            transport,
            reference: None,
            subdir: None,
            checksum: None,
            keep_git_dir: None,
            submodules: true,
            times: Times::default(),
            fetch_by_commit: false,
        }
    }

    /// `github.com/owner/name…`, without its scheme.
    pub(super) fn at_host(text: &str) -> Result<Option<Self>, BadAddress> {
        Parts::split("https", Transport::Https, text).map_or(Ok(None), |parts| parts.read().map(Some))
    }

    /// With a `.git`, or without, if the address itself does not say.
    #[must_use]
    pub fn with_git_dir(self, keep: Option<bool>) -> Self {
        Self { keep_git_dir: self.keep_git_dir.or(keep), ..self }
    }

    /// Where the repository is, for git: it may have a password in it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the repository is, without a password.
    pub fn shown_url(&self) -> String {
        let Some((scheme, rest)) = self.url.split_once("://") else { return self.url.clone() };
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let Some((userinfo, host)) = authority.rsplit_once('@') else { return self.url.clone() };
        // Who logs in by ssh is part of the address; anywhere else a name alone may be a token.
        let user = userinfo.split(':').next().unwrap_or_default();
        let user = if self.transport == Transport::Ssh { format!("{user}@") } else { String::new() };
        format!("{scheme}://{user}{host}{path}")
    }

    /// The host, with its port if the address has one.
    pub fn host(&self) -> &str {
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let end = if self.url.contains("://") { rest.find('/') } else { rest.find(':') };
        let authority = rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest);
        authority.rsplit_once('@').map_or(authority, |(_, host)| host)
    }
}

impl fmt::Display for GitAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown_url())?;
        match (&self.reference, &self.subdir) {
            (None, None) => Ok(()),
            (reference, None) => write!(f, "#{}", reference.as_deref().unwrap_or_default()),
            (reference, Some(subdir)) => write!(f, "#{}:{subdir}", reference.as_deref().unwrap_or_default()),
        }
    }
}

impl fmt::Debug for GitAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{self} (checksum {:?}, keep-git-dir {:?}, submodules {}, times {:?}, fetch-by-commit {})",
            self.checksum, self.keep_git_dir, self.submodules, self.times, self.fetch_by_commit
        )
    }
}

/// An address in its parts, the query not yet read.
struct Parts {
    url: String,
    transport: Transport,
    query: String,
    fragment: String,
}

impl Parts {
    fn of_url(scheme: &str, rest: &str) -> Option<Self> {
        let scheme = scheme.to_ascii_lowercase();
        let transport = transport(&scheme)?;
        let parts = Self::split(&scheme, transport, rest)?;
        let web = matches!(transport, Transport::Http | Transport::Https);
        (!web || parts.path().is_some_and(|path| path.strip_suffix(".git").is_some())).then_some(parts)
    }

    /// `None`: no URL at all, for Go.
    fn split(scheme: &str, transport: Transport, rest: &str) -> Option<Self> {
        if rest.bytes().any(|byte| byte.is_ascii_control()) {
            return None;
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parts = Self { url: format!("{scheme}://{place}"), transport, query: query.to_owned(), fragment: decode(fragment, false)? };
        parts.path().map(|_path| parts)
    }

    /// The path of the URL, decoded.
    fn path(&self) -> Option<String> {
        let (_, place) = self.url.split_once("://")?;
        decode(place.find('/').and_then(|slash| place.get(slash..)).unwrap_or_default(), false)
    }

    /// `git@host:path`
    fn of_scp(text: &str) -> Option<Self> {
        let (user, rest) = text.split_once('@')?;
        let (host, path) = rest.split_once(':')?;
        let plain = |text: &str, extra: &str| {
            !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || extra.contains(letter))
        };
        if !plain(user, "-_") || !plain(host, "-.") || path.contains('\n') {
            return None;
        }
        // The query is what follows the first `?`, the fragment what follows the first `#` after it.
        let (before, query) = path.split_once('?').unwrap_or((path, ""));
        let (place, query, fragment) = if path.contains('?') {
            let (query, fragment) = query.split_once('#').unwrap_or((query, ""));
            (before, query, fragment)
        } else {
            let (place, fragment) = path.split_once('#').unwrap_or((path, ""));
            (place, "", fragment)
        };
        Some(Self {
            url: format!("{user}@{host}:{place}"),
            transport: Transport::Ssh,
            query: query.to_owned(),
            fragment: fragment.to_owned(),
        })
    }

    /// Reads query and fragment, refusing what contradicts itself.
    fn read(self) -> Result<GitAddress, BadAddress> {
        let (reference, subdir) = self.fragment.split_once(':').unwrap_or((&self.fragment, ""));
        let present = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let mut address = GitAddress { subdir: present(subdir.trim_matches('/')), ..GitAddress::plain(self.url, self.transport) };
        let mut refs = Vec::from_iter(present(reference));
        let mut seen: Vec<String> = Vec::new();
        for (key, value) in pairs(&self.query) {
            if seen.contains(&key) {
                return Err(bad(format!("the query says `{key}` twice")));
            }
            address.said(&key, value, &mut refs)?;
            seen.push(key);
        }
        if let [first, rest @ ..] = refs.as_slice()
            && rest.iter().any(|other| other != first)
        {
            return Err(bad(format!("the refs `{}` contradict each other", refs.join("`, `"))));
        }
        address.reference = refs.into_iter().next();
        Ok(address)
    }
}

impl GitAddress {
    /// One pair of the query.
    fn said(&mut self, key: &str, value: String, refs: &mut Vec<String>) -> Result<(), BadAddress> {
        let flag = matches!(key, "submodules" | "keep-git-dir" | "fetch-by-commit");
        if value.is_empty() && !flag {
            return Err(bad(format!("the query's `{key}` has no value")));
        }
        match key {
            "ref" => refs.push(value),
            "tag" => refs.push(prefixed("refs/tags/", &value)),
            "branch" => refs.push(prefixed("refs/heads/", &value)),
            "subdir" => {
                let wanted = value.trim_matches('/');
                if let Some(other) = self.subdir.as_ref().filter(|other| *other != wanted) {
                    return Err(bad(format!("the subdirectories `{other}` and `{value}` contradict each other")));
                }
                self.subdir = Some(wanted.to_owned()).filter(|wanted| !wanted.is_empty());
            }
            "checksum" | "commit" => self.checksum = Some(value),
            "keep-git-dir" => self.keep_git_dir = Some(boolean(key, &value)?),
            "submodules" => self.submodules = boolean(key, &value)?,
            "fetch-by-commit" => self.fetch_by_commit = boolean(key, &value)?,
            "mtime" if value == "checkout" => self.times = Times::Checkout,
            "mtime" if value == "commit" => self.times = Times::Commit,
            "mtime" => return Err(bad(format!("`{value}` is not an mtime: checkout and commit are"))),
            _ => return Err(bad(format!("the query's `{key}` is not known"))),
        }
        Ok(())
    }
}

fn bad(text: String) -> BadAddress {
    BadAddress(text)
}

fn transport(scheme: &str) -> Option<Transport> {
    [Transport::Http, Transport::Https, Transport::Git, Transport::Ssh].into_iter().find(|transport| transport.word() == scheme)
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn boolean(key: &str, value: &str) -> Result<bool, BadAddress> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(bad(format!("the query's `{key}` is true or false, not `{value}`"))),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn git(text: &str) -> GitAddress {
        GitAddress::parse(text).unwrap().unwrap()
    }

    #[rstest]
    #[case("https://h/r.git#v1:a/b", "https://h/r.git", Some("v1"), Some("a/b"))]
    #[case("https://h/r.git#:a/", "https://h/r.git", None, Some("a"))]
    #[case("https://h/r.git?tag=v1&subdir=/a", "https://h/r.git", Some("refs/tags/v1"), Some("a"))]
    #[case("https://h/r.git?branch=refs/heads/x", "https://h/r.git", Some("refs/heads/x"), None)]
    #[case("https://h/r.git?ref=a%2Fb#a/b:", "https://h/r.git", Some("a/b"), None)]
    #[case("git@h.org:o/r?ref=x#x:d", "git@h.org:o/r", Some("x"), Some("d"))]
    #[case("git@h.org:o/r#x", "git@h.org:o/r", Some("x"), None)]
    #[case("SSH://git@h:22/r", "ssh://git@h:22/r", None, None)]
    #[case("git://h/r#a%20b", "git://h/r", Some("a b"), None)]
    fn an_address_says_where_and_what(
        #[case] text: &str,
        #[case] url: &str,
        #[case] reference: Option<&str>,
        #[case] subdir: Option<&str>,
    ) {
        let address = git(text);
        assert_eq!((address.url(), address.reference.as_deref(), address.subdir.as_deref()), (url, reference, subdir));
    }

    #[test]
    fn the_query_says_how() {
        let address = git("https://h/r.git?commit=abc&keep-git-dir&submodules=0&mtime=commit&fetch-by-commit=true");
        assert_eq!(address.checksum.as_deref(), Some("abc"));
        assert_eq!(
            (address.keep_git_dir, address.submodules, address.times, address.fetch_by_commit),
            (Some(true), false, Times::Commit, true)
        );
    }

    #[rstest]
    #[case("?ref=a&ref=b")]
    #[case("?ref=a#b")]
    #[case("?tag=v&branch=b")]
    #[case("?x=1")]
    #[case("?ref=")]
    #[case("?keep-git-dir=maybe")]
    #[case("?subdir=a#r:b")]
    #[case("?mtime=now")]
    fn a_query_that_contradicts_itself_is_refused(#[case] query: &str) {
        assert!(GitAddress::parse(&format!("https://h/r.git{query}")).is_err());
    }

    #[test]
    fn a_password_is_not_shown() {
        let address = git("https://me:hunter2@h.org:81/r.git#v1:d");
        assert_eq!(format!("{address}"), "https://h.org:81/r.git#v1:d");
        assert!(!format!("{address:?}").contains("hunter2"));
        assert_eq!((address.host(), git("git@h.org:o/r").host(), git("ssh://git@h:22/r").host()), ("h.org:81", "h.org", "h:22"));
        assert_eq!(git("ssh://git:pw@h/r").shown_url(), "ssh://git@h/r");
    }
}
