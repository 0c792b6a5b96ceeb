//! An http or https URL as it was written, and the name that its file gets.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::percent::decode;

/// An http or https URL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HttpAddress {
    url: String,
}

impl HttpAddress {
    /// Of any text that begins with `http://` or `https://`; whether it can be asked for is found out by asking.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into() }
    }

    /// All of it, for the wire and for keys: it may have a password in it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `user[:password]` of the URL, decoded.
    pub fn userinfo(&self) -> Option<(String, String)> {
        let (userinfo, _) = self.authority().rsplit_once('@')?;
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        Some((decode(user, false)?, decode(password, false)?))
    }

    /// The URL without user, password and fragment.
    pub fn without_userinfo(&self) -> String {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let rest = rest.split('#').next().unwrap_or_default();
        let after = rest.get(self.authority().len()..).unwrap_or_default();
        let host = self.authority().rsplit_once('@').map_or(self.authority(), |(_, host)| host);
        format!("{}://{host}{after}", self.scheme())
    }

    /// The host, without a port and without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        let host = self.authority().rsplit_once('@').map_or(self.authority(), |(_, host)| host);
        match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => host.split(':').next().unwrap_or(host),
        }
    }

    /// The name that ADD gives the file: the last component of the path, decoded; `__unnamed__` without one. Never a path,
    /// never `.` or `..`, and without control characters: BuildKit's CVE-2026-33748 was a name that led elsewhere.
    ///
    /// What the server calls it (`Content-Disposition`) does not count.
    pub fn file_name(&self) -> String {
        const UNNAMED: &str = "__unnamed__";
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let target = rest.get(self.authority().len()..).unwrap_or_default();
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let Some(path) = decode(path, false) else { return UNNAMED.to_owned() };
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().trim();
        match name {
            "" | "." => UNNAMED.to_owned(),
            ".." => "download".to_owned(),
            name if name.chars().any(char::is_control) || name.len() > 255 => "download".to_owned(),
            name => name.to_owned(),
        }
    }

    fn scheme(&self) -> &str {
        self.url.split_once("://").map_or("http", |(scheme, _)| scheme)
    }

    fn authority(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', '?', '#']).next().unwrap_or_default()
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.without_userinfo();
        f.write_str(shown.split('?').next().unwrap_or_default())
    }
}

impl fmt::Debug for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://h/a/b.tar.gz?x=/c", "b.tar.gz")]
    #[case("http://h/a%20b", "a b")]
    #[case("http://h/dir/", "dir")]
    #[case("http://h", "__unnamed__")]
    #[case("http://h/", "__unnamed__")]
    #[case("http://h/?f=x", "__unnamed__")]
    #[case("http://h/a%2fb", "b")]
    #[case("http://h/%zz", "__unnamed__")]
    #[case("http://h/x/..", "download")]
    #[case("http://h/x/%2e%2e", "download")]
    #[case("http://h/%2e%2e%2fetc%2f..", "download")]
    #[case("http://h/a%00b", "download")]
    #[case("http://h/a%0ab", "download")]
    fn the_name_of_a_file_is_one_component_whatever_the_url(#[case] url: &str, #[case] name: &str) {
        assert_eq!(HttpAddress::new(url).file_name(), name);
    }

    #[test]
    fn a_password_and_a_query_are_not_shown() {
        let address = HttpAddress::new("https://me:hunter%32@h.org:81/f?token=hunter2#part");
        assert_eq!(address.userinfo(), Some(("me".into(), "hunter2".into())));
        assert_eq!(format!("{address} {address:?}"), "https://h.org:81/f https://h.org:81/f");
        assert_eq!(address.without_userinfo(), "https://h.org:81/f?token=hunter2");
        assert_eq!((address.host(), HttpAddress::new("http://[::1]:80/f").host()), ("h.org", "::1"));
    }
}
