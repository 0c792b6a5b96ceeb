//! A list of patterns as it stands inside of a directory: what was matched on the way down is not matched again.
//!
//! A walk over 100,000 files holds each of them against 200 patterns. Inside of a directory most of these are decided: those
//! that cannot match there any more are gone, as are those before the last one that matched the directory, and of most of
//! the others the rest is a name, or a head and a tail around a `*`, which are compared as bytes.
//!
//! Invariant: for a clean path `dir/name` the answers are those of [`PatternList::excludes`] and, for a name that is excluded, never
//! `false` where something below it is taken back.

use super::{
    PatternList,
    glob::{Code, codes},
    ignore::{Pattern, Rest, States},
};

/// The patterns inside of a directory.
#[derive(Debug)]
pub struct Inside<'l> {
    /// What holds for a name that none of `open` matches.
    excluded: bool,
    /// Those that may still match something, the last first.
    open: Vec<Open<'l>>,
}

/// A pattern that may still match something here.
#[derive(Debug)]
struct Open<'l> {
    exception: bool,
    states: States<'l>,
    /// What a name has to be; none: the pattern matches only what is further below.
    rests: Vec<Rest>,
}

impl PatternList {
    /// The patterns inside of a directory; `dir` is a clean path, empty for the root.
    pub fn inside(&self, dir: &[u8]) -> Inside<'_> {
        let mut open = Vec::new();
        let mut excluded = false;
        let dir = codes(dir);
        for pattern in self.patterns.iter().rev() {
            match pattern.below(&dir) {
                // All before it is overruled.
                None => {
                    excluded = !pattern.exception;
                    break;
                }
                Some(states) if states.dead() => {}
                Some(states) => open.push(Open::new(pattern, states)),
            }
        }
        Inside { excluded, open }
    }
}

impl<'l> Open<'l> {
    fn new(pattern: &Pattern, states: States<'l>) -> Self {
        Self { exception: pattern.exception, rests: states.rests(), states }
    }

    fn matches(&self, name: &[u8]) -> bool {
        self.rests.iter().any(|rest| match rest {
            Rest::Name(own) => own == name,
            Rest::Around(head, tail) => name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail),
            Rest::States => self.states.take(&codes(name)).accept(),
        })
    }
}

impl Inside<'_> {
    /// Is this name in the directory excluded?
    pub fn excludes(&self, name: &[u8]) -> bool {
        self.open.iter().find(|pattern| pattern.matches(name)).map_or(self.excluded, |pattern| !pattern.exception)
    }

    /// May something below this excluded name be taken back by a `!` pattern? Only then must a walk enter it.
    pub fn may_reinclude_below(&self, name: &[u8]) -> bool {
        let mut below: Option<Vec<Code>> = None;
        for pattern in &self.open {
            if pattern.exception {
                let below = below.get_or_insert_with(|| codes(&[name, b"/"].concat()));
                if pattern.states.waits_for_any_directory() || !pattern.states.take(below).dead() {
                    return true;
                }
            } else if pattern.matches(name) {
                return false;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn inside_of_a_directory_the_answers_are_those_for_the_whole_path(
            patterns in prop::collection::vec("!?(\\*\\*/|a/|\\*/)?[ab*?/]{1,4}(/\\*\\*|\\.b|\\[a-c\\]|\\[\\^a\\]b)?", 1..6),
            parts in prop::collection::vec("[ab]{1,2}(\\.b|é)?", 1..5),
        ) {
            let Ok(list) = PatternList::compile(&patterns) else { return Ok(()) };
            let path = parts.join("/");
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let inside = list.inside(dir.as_bytes());
            prop_assert_eq!(inside.excludes(name.as_bytes()), list.excludes(path.as_bytes()), "{} in {:?}", path, patterns);
            for below in ["a", "b.b", "a/b", "ab/b.b/a"] {
                let taken_back = list.excludes(path.as_bytes()) && !list.excludes(format!("{path}/{below}").as_bytes());
                prop_assert!(!taken_back || inside.may_reinclude_below(name.as_bytes()), "{}/{} in {:?}", path, below, patterns);
            }
        }
    }

    #[test]
    fn what_is_decided_above_is_not_asked_again() {
        let list = PatternList::parse_ignorefile(b"a/*.log\n!a/x.log\nb\n!b/keep\nc/d\n**/*.tmp\n").unwrap();
        assert_eq!(list.inside(b"a").open.len(), 3);
        // `!b/keep` comes after what excludes the directory, the patterns of `a` before it.
        assert_eq!(list.inside(b"b").open.len(), 2);
        assert_eq!(list.inside(b"other").open.len(), 1);
        assert!(list.inside(b"b").excludes(b"x") && !list.inside(b"b").excludes(b"keep"));
        // Only what comes after the exclusion can take something back.
        let overruled = PatternList::parse_ignorefile(b"!b/keep\nb\n").unwrap();
        assert!(!overruled.inside(b"").may_reinclude_below(b"b"));
    }
}
