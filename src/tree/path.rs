//! A path inside a tree.

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};

/// A path below a root: components joined by `/`, no leading or trailing `/`, no empty, `.` or `..`
/// component, no NUL. The empty path is the root itself. Any other bytes are allowed.
///
/// The order is that of a walk: a directory before what it holds, siblings by bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>")]
pub struct TreePath(Vec<u8>);

/// Bytes that are no path inside a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a path inside a tree", String::from_utf8_lossy(text).escape_debug())]
pub struct BadPath {
    /// The bytes.
    pub text: Vec<u8>,
}

impl TreePath {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads a path strictly: a leading `/` or `./` and trailing `/` are dropped, empty and `.` components too;
    /// `..` and NUL are refused. Archives and indexes use this.
    pub fn parse(text: &[u8]) -> Result<Self, BadPath> {
        let mut path = Vec::with_capacity(text.len());
        for part in text.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(BadPath { text: text.to_vec() }),
                _ if part.contains(&0) => return Err(BadPath { text: text.to_vec() }),
                _ => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(part);
                }
            }
        }
        Ok(Self(path))
    }

    /// Reads a path that must be written as it would be here: nothing is dropped.
    pub(super) fn exactly(text: &[u8]) -> Result<Self, BadPath> {
        Self::parse(text).and_then(|path| if path.0 == text { Ok(path) } else { Err(BadPath { text: text.to_vec() }) })
    }

    /// Reads a path as a user writes one: as [`TreePath::parse`], but `..` climbs, and stops at the root
    /// (Go's `path.Clean("/" + text)`).
    pub fn clean(text: &[u8]) -> Result<Self, BadPath> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in text.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                _ => parts.push(part),
            }
        }
        Self::parse(&parts.join(&b'/'))
    }

    /// The path of `name` below this one. `name` must be one component.
    pub fn join(&self, name: &[u8]) -> Result<Self, BadPath> {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
            return Err(BadPath { text: name.to_vec() });
        }
        Ok(self.then(name))
    }

    /// This path, then more of it, in memory of just that size: there may be a million.
    fn then(&self, more: &[u8]) -> Self {
        let mut path = Vec::with_capacity(self.0.len() + 1 + more.len());
        path.extend_from_slice(&self.0);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(more);
        Self(path)
    }

    /// This path, then the other below it.
    #[must_use]
    pub fn join_path(&self, below: &Self) -> Self {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => self.then(below.as_bytes()),
        }
    }

    /// The directory that holds it; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0.get(..cut).unwrap_or_default().to_vec()))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// The components from the top.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }

    /// Is it `dir` or below it?
    pub fn is_within(&self, dir: &Self) -> bool {
        dir.is_root() || (self.0.starts_with(&dir.0) && matches!(self.0.get(dir.0.len()), None | Some(b'/')))
    }

    /// What is left of it below `dir`.
    pub fn below(&self, dir: &Self) -> Option<Self> {
        if !self.is_within(dir) {
            return None;
        }
        let skip = if dir.is_root() { 0 } else { (dir.0.len() + 1).min(self.0.len()) };
        Some(Self(self.0.get(skip..).unwrap_or_default().to_vec()))
    }

    /// As a user writes it below a directory, for messages: without the slash in front, `.` for the directory itself.
    pub fn relative(&self) -> String {
        if self.is_root() { ".".to_owned() } else { String::from_utf8_lossy(&self.0).escape_debug().to_string() }
    }

    /// All directories above it, the root first, itself not included.
    pub fn ancestors(&self) -> Vec<Self> {
        dirs_above(&self.0).map(|dir| Self(dir.to_vec())).collect()
    }

    /// Is it the root?
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its bytes, without a leading `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For opening it relative to a directory: `.` for the root.
    pub fn as_os_path(&self) -> &std::path::Path {
        use std::os::unix::ffi::OsStrExt as _;
        std::path::Path::new(std::ffi::OsStr::from_bytes(if self.is_root() { b"." } else { &self.0 }))
    }
}

/// The directories above a path, by its bytes: the root first, nothing above the root.
pub(super) fn dirs_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let root = if path.is_empty() { None } else { Some(0) };
    let cuts = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    root.into_iter().chain(cuts).filter_map(|cut| path.get(..cut))
}

/// How many bytes are compared at once.
const PIECE: usize = 64;

/// The order of a walk, on the bytes of two paths: as by components, because no component holds a NUL, so that `/`
/// may stand for it and sort before all else.
pub fn walk_order(left: &[u8], right: &[u8]) -> Ordering {
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    // Long common beginnings are the rule; they are compared in pieces, which is many times faster than by bytes.
    let alike = left.chunks(PIECE).zip(right.chunks(PIECE)).take_while(|(a, b)| a == b).count();
    let from = (alike * PIECE).min(left.len()).min(right.len());
    let same = from + left.iter().skip(from).zip(right.iter().skip(from)).take_while(|(a, b)| a == b).count();
    left.get(same).map(rank).cmp(&right.get(same).map(rank))
}

/// As it is, or refused: what comes from another process is no other path than it says.
impl TryFrom<Vec<u8>> for TreePath {
    type Error = BadPath;

    fn try_from(text: Vec<u8>) -> Result<Self, BadPath> {
        Self::exactly(&text)
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        walk_order(&self.0, &other.0)
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// With a leading `/`, bytes that are not UTF-8 replaced, control characters escaped.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn above_a_path_are_the_root_and_each_directory_down_to_its_own() {
        let above = |text: &[u8]| TreePath::parse(text).unwrap().ancestors();
        assert_eq!(above(b""), []);
        assert_eq!(above(b"a"), [TreePath::root()]);
        assert_eq!(above(b"a/bc/d"), [&b""[..], b"a", b"a/bc"].map(|dir| TreePath::parse(dir).unwrap()));
    }

    #[test]
    fn a_path_from_outside_is_one_or_refused() {
        for text in [&b""[..], b"a/b", b"\xff", b".a"] {
            let json = serde_json::to_string(&TreePath::parse(text).unwrap()).unwrap();
            assert_eq!(serde_json::from_str::<TreePath>(&json).unwrap().as_bytes(), text);
        }
        for text in ["/", "/a", "a/", "a//b", ".", "./a", "a/..", "../a", "a\0b"] {
            let json = serde_json::to_string(text.as_bytes()).unwrap();
            assert!(serde_json::from_str::<TreePath>(&json).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_components(left in "[a!/0-]{0,150}", right in "[a!/0-]{0,150}", common in "[a/]{0,150}") {
            let (left, right) = (TreePath::parse((common.clone() + &left).as_bytes()).unwrap(), TreePath::parse((common + &right).as_bytes()).unwrap());
            prop_assert_eq!(left.cmp(&right), left.components().cmp(right.components()));
        }
    }
}
