//! An absolute `http:` or `https:` URL, and the resolution of a `Location`.
//!
//! The path and query are kept byte for byte: signed upload URLs break otherwise. A URL with userinfo is refused.
//! Shown, it has no query.
//!
//! Source: RFC 3986 5.2 (without dot segments, which no registry sends and servers resolve themselves).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http:`
    Http,
    /// `https:`
    Https,
}

/// An absolute URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// The scheme.
    pub scheme: Scheme,
    /// `host` or `host:port`, lower case.
    authority: String,
    /// Path and query; begins with `/`.
    target: String,
}

impl Url {
    /// `scheme://authority` and a path that begins with `/`.
    pub fn new(scheme: Scheme, authority: &str, target: &str) -> Self {
        Self { scheme, authority: authority.to_ascii_lowercase(), target: target.to_owned() }
    }

    /// `Err` says what is wrong, without the URL.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("a URL is not absolute")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err("a URL is neither http nor https"),
        };
        let rest = rest.split('#').next().unwrap_or("");
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let slash = if target.starts_with('/') { "" } else { "/" };
        check_authority(authority)?;
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a URL has characters that must be escaped");
        }
        Ok(Self::new(scheme, authority, &format!("{slash}{target}")))
    }

    /// What a `Location` in an answer from here means.
    pub fn join(&self, location: &str) -> Result<Self, &'static str> {
        let location = location.trim();
        let colon = location.find("://").filter(|at| !location.chars().take(*at).any(|char| matches!(char, '/' | '?' | '#')));
        if colon.is_some() {
            return Self::parse(location);
        }
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        if location.starts_with("//") {
            return Self::parse(&format!("{scheme}:{location}"));
        }
        let path = self.target.split('?').next().unwrap_or("/");
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let target = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{path}{location}"),
            Some(_) => format!("{folder}/{location}"),
            None => return Err("a `Location` is empty"),
        };
        Self::parse(&format!("{scheme}://{}{target}", self.authority))
    }

    /// With one more item in its query; the value is escaped.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        let joint = if self.target.contains('?') { '&' } else { '?' };
        Self { target: format!("{}{joint}{key}={}", self.target, escaped(value)), ..self.clone() }
    }

    /// All of it, for the wire.
    pub fn whole(&self) -> String {
        format!("{}{}", self.origin(), self.target)
    }

    /// The host without its port, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        bare_host(&self.authority)
    }

    /// Same scheme, host and port.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.host() == other.host() && self.port() == other.port()
    }

    fn port(&self) -> u16 {
        let after = self.authority.rsplit_once(']').map_or(self.authority.as_str(), |(_, after)| after);
        let default = if self.scheme == Scheme::Http { 80 } else { 443 };
        after.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(default)
    }

    fn origin(&self) -> String {
        format!("{}://{}", if self.scheme == Scheme::Http { "http" } else { "https" }, self.authority)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.target.split('?').next().unwrap_or(""))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The host of `host[:port]`, without brackets.
pub fn bare_host(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// `localhost`, its subdomains and loopback addresses.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|address| canonical(address).is_loopback())
}

/// Hosts that a stranger's registry has no business to send us to: this machine and the local link (cloud metadata).
pub fn is_internal(host: &str) -> bool {
    let internal = |address: IpAddr| match canonical(address) {
        IpAddr::V4(four) => four.is_link_local() || four.is_unspecified() || four.is_broadcast(),
        IpAddr::V6(six) => six.is_unicast_link_local() || six.is_unspecified(),
    };
    is_loopback(host)
        || host.parse::<IpAddr>().is_ok_and(internal)
        || odd_ipv4(host).is_some_and(|four| internal(four.into()) || four.is_loopback())
}

fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4),
        IpAddr::V4(four) => IpAddr::V4(four),
    }
}

/// `127.1`, `2130706433`, `0x7f.1`: forms that `getaddrinfo` takes for an address.
fn odd_ipv4(host: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| match part.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if part.len() > 1 && part.starts_with('0') => u64::from_str_radix(part, 8).ok(),
        None => part.parse().ok(),
    };
    let parts: Vec<u64> = host.trim_end_matches('.').split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    let high = first.iter().enumerate().fold(0u64, |sum, (place, part)| sum | part << (24 - 8 * place));
    u32::try_from(high + last).ok().map(Ipv4Addr::from)
}

fn check_authority(authority: &str) -> Result<(), &'static str> {
    if authority.contains('@') {
        return Err("a URL has a user or password in it");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or("a URL has a broken IPv6 address")?;
            address.parse::<Ipv6Addr>().map_err(|_odd| "a URL has a broken IPv6 address")?;
            (None, if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or("a URL has a broken port")?) })
        }
        None => authority.split_once(':').map_or((Some(authority), None), |(host, port)| (Some(host), Some(port))),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.is_some_and(|host| host.is_empty() || !host.bytes().all(fits)) {
        return Err("a URL has no proper host");
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() => Err("a URL has a broken port"),
        Some(_) | None => Ok(()),
    }
}

fn escaped(value: &str) -> String {
    use fmt::Write as _;
    value.bytes().fold(String::with_capacity(value.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',') {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ignored = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://b.io/x?y=1", "https://b.io/x?y=1")]
    #[case("/v2/x/?_state=a%2Fb==&z", "https://r.io:5000/v2/x/?_state=a%2Fb==&z")]
    #[case("//b.io:81/x", "https://b.io:81/x")]
    #[case("?a=b", "https://r.io:5000/v2/a/b?a=b")]
    #[case("c?u=http://x/", "https://r.io:5000/v2/a/c?u=http://x/")]
    #[case("https://b.io", "https://b.io/")]
    #[case("https://b.io?x#frag", "https://b.io/?x")]
    fn a_location_is_followed_to_the_letter(#[case] location: &str, #[case] expected: &str) {
        let base = Url::parse("https://R.io:5000/v2/a/b?digest=x").unwrap();
        assert_eq!(base.join(location).unwrap().whole(), expected);
    }

    #[rstest]
    #[case("https://user:pw@r.io/")]
    #[case("ftp://r.io/")]
    #[case("file:///etc/passwd")]
    #[case("https:///x")]
    #[case("https://r.io:99999/")]
    #[case("https://r.io/a b")]
    #[case("https://r.io/\r\nx: y")]
    #[case("https://[::1/")]
    fn what_is_no_proper_url_is_refused(#[case] text: &str) {
        assert!(Url::parse(text).is_err());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| Url::parse(a).unwrap().same_origin(&Url::parse(b).unwrap());
        assert!(same("https://r.io/a", "https://R.io:443/b"));
        assert!(!same("https://r.io/a", "http://r.io/a"));
        assert!(!same("https://r.io/a", "https://r.io:444/a"));
        assert!(!same("https://r.io/a", "https://r.io.evil.com/a"));
        assert!(same("http://[::1]:5000/", "http://[::1]:5000/x"));
    }

    #[rstest]
    #[case("localhost", true, true)]
    #[case("127.0.0.53", true, true)]
    #[case("::1", true, true)]
    #[case("::ffff:127.0.0.1", true, true)]
    #[case("127.1", false, true)]
    #[case("2130706433", false, true)]
    #[case("0x7f.1", false, true)]
    #[case("169.254.169.254", false, true)]
    #[case("fe80::1", false, true)]
    #[case("0.0.0.0", false, true)]
    #[case("10.0.0.5", false, false)]
    #[case("localhost.evil.com", false, false)]
    #[case("r.io", false, false)]
    fn hosts_of_this_machine_are_known(#[case] host: &str, #[case] loopback: bool, #[case] internal: bool) {
        assert_eq!((is_loopback(host), is_internal(host)), (loopback, internal));
    }

    #[test]
    fn a_query_is_not_shown() {
        let url = Url::parse("https://r.io/x?token=hunter2").unwrap().with("a", "b c&d");
        assert!(url.whole().ends_with("?token=hunter2&a=b%20c%26d"));
        assert!(!format!("{url} {url:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_location_is_followed_or_refused(location in "\\PC{0,60}") {
            let base = Url::parse("https://r.io/v2/").unwrap();
            if let Ok(url) = base.join(&location) {
                prop_assert!(Url::parse(&url.whole()).is_ok());
            }
        }
    }
}
