//! `[registry/]repository[:tag][@digest]`.
//!
//! The grammar is regular and unambiguous: a repository has neither `:` nor `@`, a tag has no `@`. So the text is cut
//! at the first `@`, then at the first `:`, and each piece is checked by itself, which lets the error name the piece.
//!
//! Stricter than the source in one point: a first component that is meant as a registry (it has a `.`, a `:` or an
//! upper-case letter) must be a host name; Go's falls back to a reference without a registry (`foo_bar.com/x`).
//!
//! Source: distribution/reference `regexp.go`, `reference.go` and `normalize.go`; `go-digest`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Digest;

/// The registry of names that have none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Its name in Docker's first years.
const LEGACY_REGISTRY: &str = "index.docker.io";
/// Where single-component names live on the default registry.
const OFFICIAL: &str = "library/";
/// The longest repository, in bytes.
const LONGEST_REPOSITORY: usize = 255;
/// The longest tag, in bytes.
const LONGEST_TAG: usize = 128;
/// How much of a text goes into an error, in characters.
const LONGEST_SHOWN: usize = 200;

/// The name of an image, complete: `busybox` is `docker.io/library/busybox:latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Reference {
    /// `docker.io`, `localhost:5000`
    pub registry: String,
    /// `library/busybox`
    pub repository: String,
    /// The tag; `latest` if the text had neither tag nor digest.
    pub tag: Option<String>,
    /// The digest; wins over the tag.
    pub digest: Option<Digest>,
}

/// A text that is no image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image name: {reason}")]
pub struct BadReference {
    /// The text, cut to a readable length and without userinfo.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Reference {
    /// As users write it: without `docker.io/` and `library/`. Parses back to the same reference.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(short) = full.strip_prefix("docker.io/") else { return full };
        let candidates = [short.strip_prefix(OFFICIAL), Some(short)];
        // `docker.io/localhost/x` and `docker.io/a.b/c` would be another registry without their first part.
        let same = |text: &&str| text.parse::<Self>().as_ref() == Ok(self);
        candidates.into_iter().flatten().find(same).map_or_else(|| full.clone(), str::to_owned)
    }

    /// `docker.io/library/busybox`: without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository by digest, without a tag.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl TryFrom<String> for Reference {
    type Error = BadReference;

    fn try_from(text: String) -> Result<Self, BadReference> {
        text.parse()
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        parse(text).map_err(|reason| BadReference { text: shown(text), reason })
    }
}

/// `Err` is the reason.
fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("leave out the scheme `{}://`", scheme.chars().take(20).collect::<String>()));
    }
    if text.len() == 64 && text.bytes().all(is_lower_hex) {
        return Err("64 hex digits are an image id, not a name".into());
    }
    let (registry, rest) = split_registry(text);
    check_registry(registry)?;
    let (name, digest) = rest.split_once('@').map_or((rest, None), |(name, digest)| (name, Some(digest)));
    let (repository, tag) = name.split_once(':').map_or((name, None), |(repository, tag)| (repository, Some(tag)));
    let official = registry == DEFAULT_REGISTRY && !rest.contains('/');
    let repository = format!("{}{repository}", if official { OFFICIAL } else { "" });
    check_repository(&repository)?;
    tag.map(check_tag).transpose()?;
    let digest = digest.map(parse_digest).transpose()?;
    let tag = tag.or(if digest.is_none() { Some("latest") } else { None });
    Ok(Reference { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
}

/// The first component is a registry if it looks like a host; otherwise all of it is a repository of the default one.
fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((LEGACY_REGISTRY, rest)) => (DEFAULT_REGISTRY, rest),
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) || has_upper(host) => (host, rest),
        Some(_) | None => (DEFAULT_REGISTRY, text),
    }
}

/// `host[:port]` with a host of domain components or an IPv6 address in brackets.
fn check_registry(registry: &str) -> Result<(), String> {
    let (host, port) = match registry.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, after)) => {
            if address.is_empty() || !address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':') {
                return Err("the registry is not an IPv6 address in brackets".into());
            }
            match after.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if after.is_empty() => (None, None),
                None => return Err("after the registry's `]` only `:port` can follow".into()),
            }
        }
        None => registry.split_once(':').map_or((Some(registry), None), |(host, port)| (Some(host), Some(port))),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("the registry's port is not a number".into());
    }
    let component = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    match host {
        Some(host) if host.contains('@') => Err("a name has no user or password in it".into()),
        Some(host) if !host.split('.').all(component) => Err("the part before the first `/` is not a host name".into()),
        Some(_) | None => Ok(()),
    }
}

/// Components of lower-case letters and digits, parted by `.`, `_`, `__` or hyphens.
fn check_repository(repository: &str) -> Result<(), String> {
    if has_upper(repository) {
        return Err("the repository must be lower case".into());
    }
    if repository.len() > LONGEST_REPOSITORY {
        return Err(format!("the repository is longer than {LONGEST_REPOSITORY} characters"));
    }
    repository.split('/').try_for_each(check_component)
}

fn check_component(component: &str) -> Result<(), String> {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if component.is_empty() {
        return Err("a part of the repository is empty".into());
    }
    if let Some(odd) = component.chars().find(|char| !matches!(char, 'a'..='z' | '0'..='9' | '.' | '_' | '-')) {
        return Err(format!("the repository cannot have the character `{}`", odd.escape_default()));
    }
    let bytes = component.as_bytes();
    let edge = |byte: Option<&u8>| byte.copied().is_some_and(alphanumeric);
    if !edge(bytes.first()) || !edge(bytes.last()) {
        return Err("each part of the repository begins and ends with a letter or digit".into());
    }
    let separators = component.split(|char: char| char.is_ascii_alphanumeric()).filter(|run| !run.is_empty());
    let known = |run: &str| matches!(run, "." | "_" | "__") || run.bytes().all(|byte| byte == b'-');
    match separators.into_iter().find(|run| !known(run)) {
        Some(run) => Err(format!("the repository cannot have `{run}` between two letters")),
        None => Ok(()),
    }
}

fn check_tag(tag: &str) -> Result<(), String> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if tag.is_empty() {
        return Err("the tag is empty".into());
    }
    if tag.len() > LONGEST_TAG {
        return Err(format!("the tag is longer than {LONGEST_TAG} characters"));
    }
    if !tag.bytes().next().is_some_and(word) || !tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-')) {
        return Err("a tag has letters, digits, `_`, `.` and `-`, and begins with none of the last two".into());
    }
    Ok(())
}

fn parse_digest(text: &str) -> Result<Digest, String> {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return Err("after the `@` a digest must follow: `sha256:` and 64 hex digits".into());
    };
    match algorithm {
        "sha256" if hex.len() != 64 => Err("the digest does not have 64 hex digits after `sha256:`".into()),
        "sha256" => text.parse().map_err(|_odd: super::BadDigest| "the digest has characters that are not 0-9 or a-f".into()),
        "sha512" | "sha384" | "blake3" => Err(format!("digests of {algorithm} are not supported, only sha256")),
        _ => Err("the digest's algorithm is not known, only sha256 is supported".into()),
    }
}

/// The text for an error: without what may be a password before the host, and not endless.
fn shown(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let clean = match rest.split_once('/') {
        Some((authority, path)) if authority.contains('@') => {
            let host = authority.rsplit_once('@').map_or("", |(_, host)| host);
            format!("***@{host}/{path}")
        }
        None if !scheme.is_empty() && rest.contains('@') => format!("***@{}", rest.rsplit_once('@').map_or("", |(_, host)| host)),
        Some(_) | None => rest.to_owned(),
    };
    let whole = if scheme.is_empty() { clean } else { format!("{scheme}://{clean}") };
    if whole.chars().count() <= LONGEST_SHOWN { whole } else { whole.chars().take(LONGEST_SHOWN).chain(['…']).collect() }
}

fn has_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase)
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[rstest]
    #[case("busybox", "docker.io/library/busybox:latest")]
    #[case("busybox:1.36", "docker.io/library/busybox:1.36")]
    #[case("docker.io/busybox", "docker.io/library/busybox:latest")]
    #[case("index.docker.io/busybox", "docker.io/library/busybox:latest")]
    #[case("index.docker.io/a/b:c", "docker.io/a/b:c")]
    #[case("user/app", "docker.io/user/app:latest")]
    #[case("library/busybox", "docker.io/library/busybox:latest")]
    #[case("localhost/app", "localhost/app:latest")]
    #[case("localhost:5000", "docker.io/library/localhost:5000")]
    #[case("localhost:5000/app", "localhost:5000/app:latest")]
    #[case("localhost:5000/app:v1", "localhost:5000/app:v1")]
    #[case("127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000/a/b/c:v1")]
    #[case("[::1]:5000/app", "[::1]:5000/app:latest")]
    #[case("[fe80::1]/app", "[fe80::1]/app:latest")]
    #[case("UPPER/app", "UPPER/app:latest")]
    #[case("ghcr.io/o/a_b/c__d/e---f/g.h:T_.-", "ghcr.io/o/a_b/c__d/e---f/g.h:T_.-")]
    #[case("xn--n3h.com/app", "xn--n3h.com/app:latest")]
    fn names_are_completed(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(full(text), expected);
    }

    #[test]
    fn a_digest_keeps_its_tag_and_adds_none() {
        assert_eq!(full(&format!("app@sha256:{HEX}")), format!("docker.io/library/app@sha256:{HEX}"));
        assert_eq!(full(&format!("r.io/app:v1@sha256:{HEX}")), format!("r.io/app:v1@sha256:{HEX}"));
    }

    #[rstest]
    #[case("", "empty")]
    #[case("Busybox", "lower case")]
    #[case("r.io/App", "lower case")]
    #[case("r.io/É", "lower case")]
    #[case(HEX, "image id")]
    #[case("a//b", "empty")]
    #[case("/a", "empty")]
    #[case("a/", "empty")]
    #[case("a b", "character ` `")]
    #[case("r.io/a\u{1b}[0m", "character `\\u{1b}`")]
    #[case("é", "character")]
    #[case("a..b", "`..`")]
    #[case("a._b", "`._`")]
    #[case("a___b", "`___`")]
    #[case("../b", "host name")]
    #[case("-a", "begins and ends")]
    #[case("a-", "begins and ends")]
    #[case("a:", "tag is empty")]
    #[case("a:-b", "a tag has")]
    #[case("a:b:c", "a tag has")]
    #[case("a:b c", "a tag has")]
    #[case("foo/a:b/c", "a tag has")]
    #[case("a@b", "a digest must follow")]
    #[case("a@sha256:abc", "64 hex")]
    #[case("a@sha512:abc", "sha512")]
    #[case("a@md5:abc", "only sha256")]
    #[case("foo_bar.com/x", "host name")]
    #[case("r.io:/x", "port")]
    #[case("r.io:5x/x", "port")]
    #[case("[::1/x", "port")]
    #[case("[::1]x:5/x", "`]`")]
    #[case("[g:1]/x", "IPv6")]
    #[case("-r.io/x", "host name")]
    #[case("https://r.io/x", "scheme")]
    fn what_is_wrong_is_said(#[case] text: &str, #[case] reason: &str) {
        let error = text.parse::<Reference>().unwrap_err();
        assert!(error.reason.contains(reason), "{error}");
    }

    #[test]
    fn a_digest_in_upper_case_is_refused() {
        assert!(format!("a@sha256:{}", HEX.to_uppercase()).parse::<Reference>().unwrap_err().reason.contains("a-f"));
    }

    #[test]
    fn lengths_have_their_limits() {
        let repository = |length: usize| format!("r.io/{}", "a".repeat(length)).parse::<Reference>();
        assert!(repository(255).is_ok());
        assert!(repository(256).unwrap_err().reason.contains("255"));
        assert!("a".repeat(248).parse::<Reference>().unwrap_err().reason.contains("255"), "library/ counts");
        let tag = |length: usize| format!("a:{}", "t".repeat(length)).parse::<Reference>();
        assert!(tag(128).is_ok());
        assert!(tag(129).unwrap_err().reason.contains("128"));
    }

    #[rstest]
    #[case("https://me:hunter2@r.io/app")]
    #[case("https://me:hunter2@r.io")]
    #[case("me:hunter2@r.io/app")]
    #[case("hunter2@r.io:5000/app")]
    fn a_password_is_not_repeated(#[case] text: &str) {
        let error = text.parse::<Reference>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn an_error_is_not_endless() {
        assert!("é".repeat(100_000).parse::<Reference>().unwrap_err().to_string().chars().count() < 400);
    }

    #[rstest]
    #[case("busybox:latest")]
    #[case("user/app:v1")]
    #[case("r.io/library/app:v1")]
    #[case("docker.io/localhost/app:v1")]
    #[case("docker.io/a.b/app:v1")]
    #[case("library/a/b:v1")]
    fn the_familiar_form_is_the_shortest_that_means_the_same(#[case] text: &str) {
        assert_eq!(text.parse::<Reference>().unwrap().familiar(), text);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,80}") {
            drop(text.parse::<Reference>());
        }

        #[test]
        fn near_names_that_parse_come_back(text in "[a-cA-C0-1:/@._-]{0,24}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
                prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
            }
        }

        #[test]
        fn what_the_grammar_makes_is_accepted(
            host in "([a-z][a-z0-9]{0,5}(\\.[a-zA-Z0-9]{1,5}){1,2}|localhost|\\[:[0-9a-f:]{1,8}\\])(:[0-9]{1,5})?",
            path in "[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,5}){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
            digest in proptest::option::of(any::<[u8; 32]>().prop_map(Digest::from_bytes)),
        ) {
            prop_assume!(!host.starts_with("index.docker.io") && host != "docker.io");
            let suffix = tag.as_ref().map_or(String::new(), |tag| format!(":{tag}"));
            let at = digest.map_or(String::new(), |digest| format!("@{digest}"));
            let reference: Reference = format!("{host}/{path}{suffix}{at}").parse().unwrap();
            prop_assert_eq!(&reference.registry, &host);
            prop_assert_eq!(&reference.repository, &path);
            prop_assert_eq!(&reference.digest, &digest);
            let latest = digest.is_none().then(|| "latest".to_owned());
            prop_assert_eq!(&reference.tag, &tag.or(latest));
        }
    }
}
