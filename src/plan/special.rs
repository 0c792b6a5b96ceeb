//! Build arguments of BuildKit's own, which need no ARG: each is honoured, or it is told what is not.
//!
//! Source: docs/reference.md (BuildKit built-in build args); BuildKit `frontend/dockerui/config.go`.

use super::{Report, Request};
use crate::{
    diag::{Diagnostic, Span},
    dockerfile::boolean,
};

const HOSTNAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";
const INLINE_CACHE: &str = "BUILDKIT_INLINE_CACHE";
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";
const BUILD_NAME: &str = "BUILDKIT_BUILD_NAME";
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// All of them.
pub(super) const NAMES: [&str; 9] = [
    "BUILDKIT_SYNTAX",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_DOCKERFILE_CHECK",
    "SOURCE_DATE_EPOCH",
    HOSTNAME,
    INLINE_CACHE,
    MULTI_PLATFORM,
    BUILD_NAME,
    KEEP_GIT_DIR,
];

/// The name that steps see of their host if nobody says otherwise: BuildKit's, because scripts look for it.
const USUAL_HOSTNAME: &str = "buildkitsandbox";
/// The kernel's limit for a name of a host.
const LONGEST_HOSTNAME: usize = 64;

impl Request {
    /// Is the `.git` of a context that is a repository kept? `None`: nobody says.
    pub fn keeps_git_dir(&self) -> Option<bool> {
        self.build_args.get(KEEP_GIT_DIR).and_then(|text| boolean(text))
    }

    /// Is a `SOURCE_DATE_EPOCH` asked for on the command line? The files of a repository are then as old as its commit.
    pub fn gives_epoch(&self) -> bool {
        self.build_args.get("SOURCE_DATE_EPOCH").is_some_and(|text| !text.is_empty())
    }

    /// The name that steps see of their host.
    pub(super) fn hostname(&self) -> &str {
        self.build_args.get(HOSTNAME).map(String::as_str).filter(|name| !name.is_empty()).unwrap_or(USUAL_HOSTNAME)
    }
}

/// Refuses what cannot be meant and tells what is not done.
pub(super) fn check(request: &Request, report: &mut Report) {
    let name = request.hostname();
    if name.len() > LONGEST_HOSTNAME || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')) {
        let error = Diagnostic { labels: Vec::new(), ..Diagnostic::error(format!("`{name}` is no name of a host"), Span::default()) };
        report.error(error.help(format!("{HOSTNAME} takes at most {LONGEST_HOSTNAME} letters, digits, `-`, `_` and `.`")));
    }
    let said = |name: &str| request.build_args.get(name).filter(|text| !text.is_empty());
    for (name, told) in [
        (INLINE_CACHE, "no cache is written into the image"),
        (MULTI_PLATFORM, "the result is one image and no index of platforms"),
        (KEEP_GIT_DIR, ""),
    ] {
        let Some(text) = said(name) else { continue };
        match boolean(text) {
            Some(true) if !told.is_empty() => warn(report, told, format!("`{name}` asks for it")),
            Some(_) => {}
            None => warn(report, &format!("`{text}` is neither true nor false"), format!("`{name}` is as if it had not been given")),
        }
    }
    if said(BUILD_NAME).is_some() {
        warn(report, "no history of builds is kept", format!("`{BUILD_NAME}` gives this one a name in it"));
    }
}

fn warn(report: &mut Report, headline: &str, note: String) {
    report.warning(Diagnostic { labels: Vec::new(), ..Diagnostic::warning(headline.to_owned(), Span::default()) }.note(note));
}
