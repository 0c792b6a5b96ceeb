//! Which commit a ref stands for: asked of the remote before anything is fetched, with BuildKit's order of names.
//!
//! Source: BuildKit `source/git/source.go` (`resolveMetadataFromURL`), by behaviour; git-check-ref-format(1).

use super::{
    super::{Asker, Error},
    command::{Failed, Git, Reach},
};
use crate::{
    http::harmless,
    remote::{GitAddress, Transport},
};

/// What a ref stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// A commit, or a tag that leads to one: 40 or 64 hex digits.
    pub(super) object: String,
    /// The complete name of the ref; `None`: a commit was asked for.
    pub(super) reference: Option<String>,
    /// The name need not be fetched: the object is wanted whatever the name leads to.
    pub(super) pinned: bool,
}

impl Found {
    /// A commit without a name.
    pub(super) fn commit(id: &str) -> Self {
        Self { object: id.to_owned(), reference: None, pinned: true }
    }
}

/// A complete object id.
pub(super) fn is_object(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Asks the remote, unless a commit is named.
pub(super) fn resolve(git: &Git<'_>, address: &GitAddress, asker: &mut Asker<'_>) -> Result<Found, Error> {
    let refused = |detail: String, help: Option<&str>| Error::Refused { what: address.to_string(), detail, help: help.map(str::to_owned) };
    if let Some(checksum) = address.checksum.as_ref().filter(|text| text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Err(refused(format!("the checksum `{}` is not the beginning of a commit", harmless(checksum)), None));
    }
    let checksum = address.checksum.as_deref().map(str::to_ascii_lowercase);
    if let Some(reference) = address.reference.as_deref() {
        check(reference, address)?;
        if is_object(reference) {
            return match &checksum {
                Some(checksum) if !reference.starts_with(checksum.as_str()) => Err(mismatch(address, checksum, reference)),
                _ => Ok(Found::commit(reference)),
            };
        }
    }
    if address.fetch_by_commit {
        let Some(object) = checksum.filter(|checksum| is_object(checksum)) else {
            return Err(refused("fetch-by-commit needs a complete commit".to_owned(), Some("give all of its digits as the checksum")));
        };
        let whole = |name: &String| if name.starts_with("refs/") { name.clone() } else { format!("refs/heads/{name}") };
        return Ok(Found { object, reference: address.reference.as_ref().map(whole), pinned: true });
    }
    match address.reference.as_deref() {
        Some(reference) => named(git, reference, asker),
        None => default_branch(git, asker),
    }
}

/// What the checksum asks for, of what was fetched: the commit, or the tag that led to it.
pub(super) fn verify(address: &GitAddress, object: &str, commit: &str) -> Result<(), Error> {
    let Some(checksum) = address.checksum.as_deref().map(str::to_ascii_lowercase) else { return Ok(()) };
    if object.starts_with(&checksum) || commit.starts_with(&checksum) {
        return Ok(());
    }
    let found = if object == commit { commit.to_owned() } else { format!("{object} or {commit}") };
    Err(mismatch(address, &checksum, &found))
}

fn mismatch(address: &GitAddress, expected: &str, found: &str) -> Error {
    Error::Mismatch { what: address.to_string(), expected: expected.to_owned(), found: found.to_owned() }
}

fn named(git: &Git<'_>, reference: &str, asker: &mut Asker<'_>) -> Result<Found, Error> {
    let lines = list(git, &["ls-remote", "--quiet", "origin", reference, &format!("{reference}^{{}}")], asker)?;
    let within = |prefix: &str| format!("{prefix}{}", reference.strip_prefix(prefix).unwrap_or(reference));
    // In this order: a name as it is, a branch, a tag.
    let wanted = [within("refs/"), within("refs/heads/"), within("refs/tags/")];
    let found = wanted.iter().find_map(|name| lines.iter().find(|(_, listed)| listed == name));
    let Some((object, name)) = found else {
        let hex = reference.len() >= 7 && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
        let help = hex.then(|| "a commit is named by all of its 40 digits".to_owned());
        return Err(Error::Missing { what: git.address.to_string(), detail: format!("the repository has no ref `{reference}`"), help });
    };
    found_at(git, object, name)
}

/// The branch that the remote's HEAD names.
fn default_branch(git: &Git<'_>, asker: &mut Asker<'_>) -> Result<Found, Error> {
    let lines = list(git, &["ls-remote", "--quiet", "--symref", "origin", "HEAD"], asker)?;
    let branch = lines.iter().find_map(|(first, second)| first.strip_prefix("ref: ").filter(|_| second == "HEAD"));
    let object = lines.iter().find(|(first, second)| second == "HEAD" && is_object(first));
    match (object, branch) {
        // What a hostile remote calls its branch must not become an option: BuildKit's fix of 0.31.2.
        (Some((object, _)), Some(branch)) if branch.starts_with("refs/heads/") => {
            check(branch.strip_prefix("refs/heads/").unwrap_or(branch), git.address)?;
            check(branch, git.address)?;
            found_at(git, object, branch)
        }
        (Some((object, _)), None) => found_at(git, object, "HEAD"),
        _ => {
            let help = "name a branch, a tag or a commit: `…#main`".to_owned();
            Err(Error::Missing {
                what: git.address.to_string(),
                detail: "the repository has no default branch".to_owned(),
                help: Some(help),
            })
        }
    }
}

fn found_at(git: &Git<'_>, object: &str, name: &str) -> Result<Found, Error> {
    if !is_object(object) {
        return Err(Error::Hostile { what: git.address.to_string(), detail: "an object id that is none".to_owned() });
    }
    Ok(Found { object: object.to_owned(), reference: Some(name.to_owned()), pinned: false })
}

/// The lines that the remote answers, in two columns.
fn list(git: &Git<'_>, args: &[&str], asker: &mut Asker<'_>) -> Result<Vec<(String, String)>, Error> {
    let output = git.run(Reach::Remote, args, asker).map_err(|failed| remote_error(git.address, failed))?;
    let text = String::from_utf8_lossy(&output);
    Ok(text.lines().filter_map(|line| line.split_once('\t')).map(|(first, second)| (first.to_owned(), second.to_owned())).collect())
}

/// What git says of a remote, as an error of ours.
pub(super) fn remote_error(address: &GitAddress, failed: Failed) -> Error {
    let words = match failed {
        Failed::Other(error) => return error,
        Failed::Said(words) => words,
    };
    let what = address.to_string();
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if says(&["cannot run ssh", "ssh: not found", "ssh: No such file"]) {
        let help = Some("install the package `openssh-client`".to_owned());
        return Error::Program { program: "ssh", detail: "is not installed".to_owned(), help };
    }
    if says(&["remote helper", "remote-https", "remote-http'"]) && says(&["not a git command", "unable to find"]) {
        let help = Some("install git with its helpers for http".to_owned());
        return Error::Program { program: "git", detail: "has no helper for http".to_owned(), help };
    }
    if says(&["Host key verification failed", "host key is known", "REMOTE HOST IDENTIFICATION HAS CHANGED"]) {
        let help = format!(
            "check its key, and add it: `ssh-keyscan {} >> ~/.ssh/known_hosts`",
            address.host().split(':').next().unwrap_or_default()
        );
        return Error::Denied { what, detail: "the host's key is not known, or is another".to_owned(), help: Some(help) };
    }
    if says(&["could not read Username", "could not read Password", "Authentication failed", "Permission denied", "returned error: 403"]) {
        let help = match address.transport {
            Transport::Ssh => "load a key into the agent: `ssh-add`",
            Transport::Http | Transport::Https | Transport::Git => {
                "if it exists, it is not public: a token is given as the secret `GIT_AUTH_TOKEN`"
            }
        };
        return Error::Denied { what, detail: words, help: Some(help.to_owned()) };
    }
    if says(&["couldn't find remote ref", "returned error: 404", "repository", "does not appear to be a git repository"])
        && says(&["not found", "couldn't find", "404", "does not appear", "no such repository", "access denied"])
    {
        return Error::Missing { what, detail: words, help: None };
    }
    if says(&["fsck error", "fsckObjects", "transport '", "Transport '", "strange "]) {
        return Error::Hostile { what, detail: words };
    }
    Error::Network { what, detail: words }
}

/// Refuses what is no name of a ref, or could be an option, a pattern or a refspec.
pub(super) fn check(reference: &str, address: &GitAddress) -> Result<(), Error> {
    let odd = |letter: char| letter.is_control() || matches!(letter, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    let bad = reference.is_empty()
        || reference.len() > 1024
        || reference.contains(odd)
        || reference.contains("..")
        || reference.contains("@{")
        || reference.contains("//")
        || reference.ends_with(['/', '.'])
        || reference.split('/').any(|part| part.starts_with(['.', '-']) || part.strip_suffix(".lock").is_some());
    if !bad {
        return Ok(());
    }
    let detail = format!("`{}` is no name of a ref", harmless(reference));
    let help = reference.starts_with('-').then(|| "a ref does not begin with `-`".to_owned());
    Err(Error::Refused { what: address.shown_url(), detail, help })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn address() -> GitAddress {
        GitAddress::parse("https://h/r.git").unwrap().unwrap()
    }

    /// CVE-2019-13139 and BuildKit's 0.31.2: a ref that is an option of git.
    #[rstest]
    #[case("--upload-pack=touch /x")]
    #[case("-x")]
    #[case("refs/heads/--x")]
    #[case("a:refs/heads/b")]
    #[case("*")]
    #[case("a..b")]
    #[case("a b")]
    #[case("a@{1}")]
    #[case("a^{}")]
    #[case(".git/config")]
    #[case("a.lock")]
    #[case("")]
    #[case("a\nb")]
    fn what_is_no_name_of_a_ref_is_refused(#[case] reference: &str) {
        assert!(check(reference, &address()).is_err());
    }

    #[rstest]
    #[case("main")]
    #[case("refs/tags/v1.0-rc.1")]
    #[case("feature/ünïcode_+#1")]
    #[case("a-b@c")]
    fn a_name_of_a_ref_is_taken(#[case] reference: &str) {
        assert!(check(reference, &address()).is_ok());
    }

    #[test]
    fn a_checksum_is_the_beginning_of_the_commit_or_of_its_tag() {
        let address = GitAddress::parse("https://h/r.git?checksum=ABC").unwrap().unwrap();
        assert!(verify(&address, "abcd", "ffff").is_ok() && verify(&address, "ffff", "abcd").is_ok());
        assert!(verify(&address, "ffff", "ffff").unwrap_err().to_string().ends_with("expected abc, found ffff"));
    }

    #[test]
    fn an_object_is_known_by_all_of_its_digits() {
        assert!(is_object(&"a".repeat(40)) && is_object(&"0".repeat(64)));
        assert!(!is_object("abcdef1") && !is_object(&"A".repeat(40)) && !is_object(&"g".repeat(40)));
    }
}
