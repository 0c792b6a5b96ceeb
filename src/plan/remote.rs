//! Is a source of ADD a git repository, a URL, or a path? Nothing is fetched here.
//!
//! Source: BuildKit `frontend/dockerfile/dfgitutil/git_ref.go`, `util/gitutil/git_url.go`, `util/sshutil/scpurl.go`.

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remote {
    /// A path or pattern.
    Local,
    /// An http or https URL.
    Http,
    /// A git repository, with what its query asks for.
    Git(GitQuery),
}

/// What the query of a git URL says that flags say too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GitQuery {
    /// `checksum` or `commit`
    pub(super) checksum: Option<String>,
    /// `keep-git-dir`
    pub(super) keep_git_dir: Option<bool>,
}

/// Tells what a source is; `Err`: a git URL with a query that says nothing sensible.
pub(super) fn classify(source: &str) -> Result<Remote, String> {
    if let Some(address) = Address::of(source) {
        return Ok(Remote::Git(address.query()?));
    }
    let http = source.starts_with("http://") || source.starts_with("https://");
    Ok(if http { Remote::Http } else { Remote::Local })
}

/// The parts of a git URL that matter here.
struct Address<'a> {
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Address<'a> {
    fn of(source: &'a str) -> Option<Self> {
        if source.starts_with("./") || source.starts_with("../") {
            return None;
        }
        let Some((scheme, rest)) = source.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
            return Self::scp(source);
        };
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or_default();
        let git = match scheme.to_ascii_lowercase().as_str() {
            "git" | "ssh" => true,
            "http" | "https" => decode(path, false)?.strip_suffix(".git").is_some(),
            _ => false,
        };
        git.then_some(Self { query, fragment })
    }

    /// `git@host:path`
    fn scp(source: &'a str) -> Option<Self> {
        let (user, rest) = source.split_once('@')?;
        let (host, path) = rest.split_once(':')?;
        let plain = |text: &str, extra: &str| {
            !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || extra.contains(letter))
        };
        if !plain(user, "-_") || !plain(host, "-.") || path.contains('\n') {
            return None;
        }
        // The query is what follows the first `?`, the fragment what follows the first `#` after it.
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (query, fragment) = if query.is_empty() {
            ("", path.split_once('#').map_or("", |(_, fragment)| fragment))
        } else {
            query.split_once('#').unwrap_or((query, ""))
        };
        Some(Self { query, fragment })
    }

    /// Reads the query, refusing what contradicts itself.
    fn query(&self) -> Result<GitQuery, String> {
        let mut said = GitQuery::default();
        let (fragment_ref, fragment_dir) = self.fragment.split_once(':').unwrap_or((self.fragment, ""));
        let mut refs: Vec<String> = Vec::from_iter((!fragment_ref.is_empty()).then(|| fragment_ref.to_owned()));
        let mut seen: Vec<String> = Vec::new();
        for (key, value) in pairs(self.query) {
            if seen.contains(&key) {
                return Err(format!("the query says `{key}` twice"));
            }
            let flag = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !flag {
                return Err(format!("the query's `{key}` has no value"));
            }
            match key.as_str() {
                "ref" => refs.push(value),
                "tag" => refs.push(prefixed("refs/tags/", &value)),
                "branch" => refs.push(prefixed("refs/heads/", &value)),
                "subdir" if !fragment_dir.is_empty() && fragment_dir.trim_matches('/') != value => {
                    return Err(format!("the subdirectories `{fragment_dir}` and `{value}` contradict each other"));
                }
                "subdir" => {}
                "checksum" | "commit" => said.checksum = Some(value),
                "keep-git-dir" => said.keep_git_dir = Some(boolean(&key, &value)?),
                "submodules" | "fetch-by-commit" => {
                    boolean(&key, &value)?;
                }
                "mtime" if matches!(value.as_str(), "checkout" | "commit") => {}
                "mtime" => return Err(format!("`{value}` is not an mtime: checkout and commit are")),
                _ => return Err(format!("the query's `{key}` is not known")),
            }
            seen.push(key);
        }
        match refs.as_slice() {
            [first, rest @ ..] if rest.iter().any(|other| other != first) => {
                Err(format!("the refs `{}` contradict each other", refs.join("`, `")))
            }
            _ => Ok(said),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("the query's `{key}` is true or false, not `{value}`")),
    }
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let parts = query.split('&').filter(|part| !part.is_empty() && !part.contains(';'));
    let pairs = parts.filter_map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        Some((decode(key, true)?, decode(value, true)?))
    });
    pairs.collect()
}

/// Percent-decoding; `None` if it is malformed.
fn decode(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' if plus_is_blank => b' ',
            _ => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_repositories_are_told_from_urls_and_paths() {
        for source in
            ["https://h/r.git", "HTTPS://h/r.git#v1:sub", "git://h/r", "ssh://git@h/r", "git@h.org:o/r.git", "http://h/r.git?tag=v1"]
        {
            assert!(matches!(classify(source), Ok(Remote::Git(_))), "{source}");
        }
        for source in ["https://h/r", "http://h/a.git/b", "https://h", "https://h/%zz.git"] {
            assert_eq!(classify(source), Ok(Remote::Http), "{source}");
        }
        for source in ["a.git", "github.com/o/r", "./git@h:x", "ftp://h/r.git", "a b@h:x", "", "HTTP://h/x"] {
            assert_eq!(classify(source), Ok(Remote::Local), "{source}");
        }
    }

    #[test]
    fn a_git_query_says_what_flags_say() {
        let said = GitQuery { checksum: Some("abc".into()), keep_git_dir: Some(true) };
        assert_eq!(classify("https://h/r.git?commit=abc&keep-git-dir"), Ok(Remote::Git(said)));
    }

    #[test]
    fn a_git_query_that_contradicts_itself_is_refused() {
        for query in ["?ref=a&ref=b", "?ref=a#b", "?tag=v&branch=b", "?x=1", "?ref=", "?keep-git-dir=maybe", "?subdir=a#r:b", "?mtime=now"]
        {
            assert!(classify(&format!("https://h/r.git{query}")).is_err(), "{query}");
        }
    }
}
