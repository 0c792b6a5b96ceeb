//! What names something far off: the grammar of http URLs and git addresses, as ADD and build contexts take them. Nothing
//! is fetched here, and nothing is looked up.
//!
//! A [`HttpAddress`] is any `http://` or `https://` URL that is no git repository's. A [`GitAddress`] is `git://`, `ssh://`,
//! `git@host:path`, or an http(s) URL whose path ends with `.git`, with `#ref:subdir` or a query behind it.
//!
//! Invariant: shown (`Display`, `Debug`), an address has no password and no query in it.
//!
//! Source: BuildKit `frontend/dockerfile/dfgitutil/git_ref.go`, `util/gitutil/git_url.go`, `util/sshutil/scpurl.go`,
//! `frontend/dockerui/context.go`; by behaviour.

mod git;
mod http;
mod percent;

pub use git::{BadAddress, GitAddress, Times, Transport};
pub use http::HttpAddress;

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// A path or a pattern.
    Local,
    /// An http or https URL.
    Http(HttpAddress),
    /// A git repository.
    Git(GitAddress),
}

impl Remote {
    /// Of a source of ADD. `Err`: a git address whose query says nothing sensible.
    pub fn of_source(text: &str) -> Result<Self, BadAddress> {
        if let Some(git) = GitAddress::parse(text)? {
            return Ok(Self::Git(git));
        }
        let http = text.starts_with("http://") || text.starts_with("https://");
        Ok(if http { Self::Http(HttpAddress::new(text)) } else { Self::Local })
    }

    /// Of a build context, where `github.com/owner/name` is a repository too.
    pub fn of_context(text: &str) -> Result<Self, BadAddress> {
        if text.starts_with("github.com/")
            && let Some(git) = GitAddress::at_host(text)?
        {
            return Ok(Self::Git(git));
        }
        Self::of_source(text)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://h/r.git")]
    #[case("HTTPS://h/r.git#v1:sub")]
    #[case("git://h/r")]
    #[case("ssh://git@h/r")]
    #[case("git@h.org:o/r.git")]
    #[case("http://h/r.git?tag=v1")]
    fn a_git_repository_is_known(#[case] text: &str) {
        assert!(matches!(Remote::of_source(text), Ok(Remote::Git(_))));
    }

    #[rstest]
    #[case("https://h/r")]
    #[case("http://h/a.git/b")]
    #[case("https://h")]
    #[case("https://h/%zz.git")]
    fn another_url_is_a_file(#[case] text: &str) {
        assert!(matches!(Remote::of_source(text), Ok(Remote::Http(_))));
    }

    #[rstest]
    #[case("a.git")]
    #[case("github.com/o/r")]
    #[case("./git@h:x")]
    #[case("ftp://h/r.git")]
    #[case("a b@h:x")]
    #[case("")]
    #[case("HTTP://h/x")]
    #[case("ext::sh -c id")]
    #[case("file:///r.git")]
    fn the_rest_is_a_path(#[case] text: &str) {
        assert_eq!(Remote::of_source(text), Ok(Remote::Local));
    }

    #[test]
    fn a_context_may_leave_out_the_scheme_of_one_host() {
        let Ok(Remote::Git(git)) = Remote::of_context("github.com/o/r#main:d") else { panic!() };
        assert_eq!((git.url(), git.reference.as_deref(), git.subdir.as_deref()), ("https://github.com/o/r", Some("main"), Some("d")));
        assert_eq!(Remote::of_context("github.org/o/r"), Ok(Remote::Local));
    }
}
