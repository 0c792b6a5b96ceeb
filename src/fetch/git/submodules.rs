//! Submodules: where they are, which commit, from where. What `.gitmodules` says beyond path and URL (a command to update
//! with: CVE-2019-19604) is not looked at, and a submodule's name is no path (CVE-2018-11235).

use std::collections::BTreeMap;

use super::{super::Error, refs::is_object};
use crate::{http::harmless, remote::GitAddress};

/// A submodule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Below the top of the repository.
    pub(super) path: Vec<u8>,
    /// Its commit.
    pub(super) commit: String,
    /// As `.gitmodules` has it; `None`: it says nothing of that path.
    url: Option<String>,
}

/// The paths and commits of submodules in the output of `git ls-files --stage -z`.
pub(super) fn places(listed: &[u8]) -> Vec<(Vec<u8>, String)> {
    let entry = |entry: &[u8]| {
        let tab = entry.iter().position(|byte| *byte == b'\t')?;
        let (head, path) = entry.split_at_checked(tab)?;
        let head = std::str::from_utf8(head).ok()?;
        let commit = head.strip_prefix("160000 ")?.split(' ').next()?.to_owned();
        is_object(&commit).then(|| (path.get(1..).unwrap_or_default().to_vec(), commit))
    };
    listed.split(|byte| *byte == 0).filter_map(entry).collect()
}

/// The submodules, with their URLs from the output of `git config --list --null` of `.gitmodules`.
pub(super) fn links(places: Vec<(Vec<u8>, String)>, settings: &[u8], address: &GitAddress) -> Result<Vec<Link>, Error> {
    let mut named: BTreeMap<Vec<u8>, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for setting in settings.split(|byte| *byte == 0) {
        let line = setting.iter().position(|byte| *byte == b'\n');
        let Some((key, value)) = line.and_then(|at| setting.split_at_checked(at)) else { continue };
        let Some(rest) = key.strip_prefix(b"submodule.") else { continue };
        let Some(dot) = rest.iter().rposition(|byte| *byte == b'.') else { continue };
        let (name, word) = rest.split_at(dot);
        let word = String::from_utf8_lossy(word.get(1..).unwrap_or_default()).into_owned();
        // The first counts, so that two readers of one file cannot be told two things.
        let _first: &mut Vec<u8> =
            named.entry(name.to_vec()).or_default().entry(word).or_insert_with(|| value.get(1..).unwrap_or_default().to_vec());
    }
    let mut modules = BTreeMap::new();
    for (path, module) in named.values().filter_map(|module| Some((module.get("path")?, module))) {
        let _first: &mut &BTreeMap<String, Vec<u8>> = modules.entry(path).or_insert(module);
    }
    let mut links = Vec::new();
    for (path, commit) in places {
        let module = modules.get(&path).copied();
        if module.and_then(|module| module.get("update")).is_some_and(|update| update == b"none") {
            continue;
        }
        let url = module.and_then(|module| module.get("url")).map(|url| String::from_utf8_lossy(url).into_owned());
        if url.is_none() {
            let shown = harmless(&String::from_utf8_lossy(&path));
            let detail = format!("`.gitmodules` has no URL for the submodule `{shown}`");
            let help = Some("leave submodules out: add `?submodules=false` to the address, before its `#`".to_owned());
            return Err(Error::Refused { what: address.to_string(), detail, help });
        }
        links.push(Link { path, commit, url });
    }
    Ok(links)
}

impl Link {
    /// Is it in the wanted directory, or is that in it?
    pub(super) fn concerns(&self, wanted: &[Vec<u8>]) -> bool {
        self.parts().zip(wanted).all(|(own, wanted)| own == wanted.as_slice())
    }

    /// What is wanted of the submodule itself.
    pub(super) fn remaining(&self, wanted: &[Vec<u8>]) -> Vec<Vec<u8>> {
        wanted.get(self.parts().count()..).unwrap_or_default().to_vec()
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.path.split(|byte| *byte == b'/')
    }

    /// Where it is: only what is http, https, git or ssh, and no path of this machine (CVE-2022-39253).
    pub(super) fn address(&self, of: &GitAddress) -> Result<GitAddress, Error> {
        let url = self.url.as_deref().unwrap_or_default();
        let whole = if url.starts_with("./") || url.starts_with("../") { relative(of.url(), url) } else { Some(url.to_owned()) };
        let refused = || {
            let detail = format!("its submodule `{}` has the URL `{}`", harmless(&String::from_utf8_lossy(&self.path)), harmless(url));
            let help = Some("only http, https, git and ssh are spoken".to_owned());
            Error::Refused { what: of.to_string(), detail, help }
        };
        let address = whole.as_deref().and_then(GitAddress::of_repository).ok_or_else(refused)?;
        Ok(address.with_git_dir(of.keep_git_dir))
    }
}

/// An error of a submodule, with its path.
pub(super) fn within(error: Error, link: &Link) -> Error {
    let shown = harmless(&String::from_utf8_lossy(&link.path));
    let with = |detail: String| format!("{detail} (submodule `{shown}`)");
    match error {
        Error::Missing { what, detail, help } => Error::Missing { what, detail: with(detail), help },
        Error::Network { what, detail } => Error::Network { what, detail: with(detail) },
        Error::Refused { what, detail, help } => Error::Refused { what, detail: with(detail), help },
        Error::Denied { what, detail, help } => Error::Denied { what, detail: with(detail), help },
        Error::Hostile { what, detail } => Error::Hostile { what, detail: with(detail) },
        same @ (Error::Mismatch { .. }
        | Error::Program { .. }
        | Error::Secret { .. }
        | Error::Cancelled
        | Error::Store(_)
        | Error::Path(_)) => same,
    }
}

/// A URL beside or above that of the repository, by text, as git resolves it. `None`: it leads above the host.
fn relative(base: &str, url: &str) -> Option<String> {
    let start = base.find("://").map_or_else(|| base.find(':'), |at| base.get(at + 3..)?.find('/').map(|slash| at + 3 + slash))?;
    let (host, path) = base.split_at_checked(start)?;
    let joint = path.get(..1)?;
    let mut parts: Vec<&str> = path.get(1..)?.trim_end_matches('/').split('/').collect();
    let mut rest = url;
    loop {
        if let Some(next) = rest.strip_prefix("../") {
            let _left: &str = parts.pop().filter(|part| !part.is_empty())?;
            rest = next;
        } else if let Some(next) = rest.strip_prefix("./") {
            rest = next;
        } else {
            break;
        }
    }
    if rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return None;
    }
    parts.push(rest);
    Some(format!("{host}{joint}{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://h/o/r.git", "../s.git", Some("https://h/o/s.git"))]
    #[case("https://h/o/r.git", "./s", Some("https://h/o/r.git/s"))]
    #[case("https://h/o/r.git", "../../p/s", Some("https://h/p/s"))]
    #[case("https://h/o/r.git", "../../../s", None)]
    #[case("git@h:o/r", "../s", Some("git@h:o/s"))]
    #[case("https://h/o/r.git", "../s/../../../..", None)]
    fn a_relative_url_stays_on_its_host(#[case] base: &str, #[case] url: &str, #[case] expected: Option<&str>) {
        assert_eq!(relative(base, url).as_deref(), expected);
    }

    /// CVE-2017-1000117, CVE-2018-17456, CVE-2022-39253.
    #[rstest]
    #[case("file:///etc")]
    #[case("/etc")]
    #[case("ext::sh -c id")]
    #[case("--upload-pack=id")]
    #[case("fd::17")]
    #[case("")]
    #[case("../../../../x")]
    fn a_submodule_of_this_machine_is_refused(#[case] url: &str) {
        let of = GitAddress::parse("https://h/o/r.git").unwrap().unwrap();
        let link = Link { path: b"s".to_vec(), commit: "a".repeat(40), url: Some(url.to_owned()) };
        assert!(link.address(&of).is_err());
    }

    #[test]
    fn a_submodule_has_a_path_a_commit_and_a_url() {
        let of = GitAddress::parse("https://h/o/r.git").unwrap().unwrap();
        let commit = "a".repeat(40);
        let listed = format!("100644 {commit} 0\tf\x00160000 {commit} 0\td/s\0");
        let settings =
            b"submodule.../x.path\nd/s\0submodule.../x.url\n../s.git\0submodule.../x.url\nfile:///etc\0submodule.../x.update\n!id\0";
        let links = links(places(listed.as_bytes()), settings, &of).unwrap();
        assert_eq!(links.len(), 1);
        assert_eq!(links[0].address(&of).unwrap().url(), "https://h/o/s.git");
        let wanted = |path: &str| path.split('/').map(|part| part.as_bytes().to_vec()).collect::<Vec<_>>();
        assert!(links[0].concerns(&[]) && links[0].concerns(&wanted("d")) && links[0].concerns(&wanted("d/s/t")));
        assert!(!links[0].concerns(&wanted("e")));
        assert_eq!(links[0].remaining(&wanted("d/s/t")), wanted("t"));
    }
}
