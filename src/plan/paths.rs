//! Paths as text, as Go's `path` treats them. Nothing here touches a file.
//!
//! Source: Go `path.Clean`; BuildKit `util/system/path.go`, `client/llb/fileop.go: normalizePath`.

/// The shortest path that means the same, `..` taken as text; the empty path is `.`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// A path below another, both cleaned together.
pub(super) fn join(parent: &str, path: &str) -> String {
    match (parent.is_empty(), path.is_empty()) {
        (true, true) => String::new(),
        (true, false) => clean(path),
        (false, true) => clean(parent),
        (false, false) => clean(&format!("{parent}/{path}")),
    }
}

/// A path from the root, cleaned: `..` cannot leave it.
pub(super) fn rooted(path: &str) -> String {
    clean(&format!("/{path}"))
}

/// The working directory after WORKDIR. An absolute path stays as it is written, as BuildKit writes it to the config.
pub(super) fn workdir(current: &str, path: &str) -> String {
    let current = if current.starts_with('/') { current.to_owned() } else { rooted(current) };
    if path.is_empty() {
        current
    } else if path.starts_with('/') {
        path.to_owned()
    } else {
        join(&current, path)
    }
}

/// The destination of a copy: absolute, clean, with a `/` at its end if the text asks for a directory (`/`, `/.`, `.`, nothing).
pub(super) fn destination(current: &str, path: &str) -> String {
    let full = rooted(&workdir(current, path));
    let directory = path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.");
    if directory && full != "/" { format!("{full}/") } else { full }
}

/// The last part of a path, as Go's `path.Base`.
pub(super) fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (path.is_empty(), trimmed.is_empty()) {
        (true, _) => ".",
        (false, true) => "/",
        (false, false) => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned_as_go_does() {
        for (path, expected) in [("", "."), ("/", "/"), ("a//b/./c/", "a/b/c"), ("/../a", "/a"), ("../a", "../a"), ("a/../..", "..")] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn a_destination_keeps_that_it_is_a_directory() {
        for (path, expected) in
            [("", "/w/"), (".", "/w/"), ("a", "/w/a"), ("a/", "/w/a/"), ("/a/.", "/a/"), ("/", "/"), ("../x", "/x"), ("/a/../b", "/b")]
        {
            assert_eq!(destination("/w", path), expected, "{path}");
        }
    }

    #[test]
    fn a_relative_working_directory_is_below_the_one_before() {
        assert_eq!(workdir("/a", "b/../c"), "/a/c");
        assert_eq!(workdir("/a", ""), "/a");
        assert_eq!(workdir("", "x"), "/x");
        assert_eq!(workdir("/a", "/b/"), "/b/");
    }

    #[test]
    fn the_base_of_a_path_is_its_last_part() {
        for (path, expected) in [("", "."), ("/", "/"), ("a/b/", "b"), ("b", "b")] {
            assert_eq!(base(path), expected, "{path}");
        }
    }
}
