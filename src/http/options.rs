//! Proxies, and bounds in time and number. Plain values.

use std::{fmt, time::Duration};

/// Proxies; loopback hosts are always reached directly.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `http:`, a URL.
    pub http: Option<String>,
    /// For `https:`, a URL.
    pub https: Option<String>,
    /// Hosts and domains that are reached directly; `*` is all.
    pub none_for: Vec<String>,
}

impl fmt::Debug for Proxies {
    /// Without the URLs: they may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |proxy: &Option<String>| proxy.is_some();
        write!(f, "Proxies {{ http: {}, https: {}, none_for: {:?} }}", set(&self.http), set(&self.https), self.none_for)
    }
}

impl Proxies {
    /// The proxy's URL for a host without its port, if there is one.
    pub fn url(&self, https: bool, host: &str) -> Option<&str> {
        let direct = |rule: &String| {
            let domain = rule.trim().trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
            let host = host.to_ascii_lowercase();
            rule.trim() == "*" || (!domain.is_empty() && (host == domain || host.ends_with(&format!(".{domain}"))))
        };
        let proxy = if https { &self.https } else { &self.http };
        proxy.as_deref().filter(|url| !url.is_empty() && !self.none_for.iter().any(direct))
    }
}

/// Bounds in time and number.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To connect, TLS included.
    pub connect: Duration,
    /// Without a byte from the other side.
    pub silence: Duration,
    /// For the head of an answer, and for a small body in all.
    pub answer: Duration,
    /// In which a large body must have brought [`Limits::least`] bytes.
    pub window: Duration,
    /// The bytes that make a transfer alive.
    pub least: u64,
    /// Tries of one thing, the first included.
    pub attempts: u32,
    /// The wait before the second try; doubles with each.
    pub backoff: Duration,
    /// The longest wait that a registry may ask for.
    pub patience: Duration,
    /// Transfers of blobs at once.
    pub parallel: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            answer: Duration::from_mins(1),
            window: Duration::from_mins(1),
            least: 64 * 1024,
            attempts: 5,
            backoff: Duration::from_millis(500),
            patience: Duration::from_mins(1),
            parallel: 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("r.io", true)]
    #[case("a.corp", false)]
    #[case("corp", false)]
    #[case("a.b.internal", false)]
    #[case("notcorp", true)]
    fn a_proxy_is_passed_by_for_the_domains_that_say_so(#[case] host: &str, #[case] used: bool) {
        let none_for = vec!["corp".into(), "*.internal".into(), String::new()];
        let proxies = Proxies { https: Some("http://u:hunter2@proxy:3128".into()), none_for, ..Proxies::default() };
        assert_eq!(proxies.url(true, host).is_some(), used);
        assert_eq!(proxies.url(false, host), None);
        assert!(!format!("{proxies:?}").contains("hunter2"));
    }
}
