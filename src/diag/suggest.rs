//! Did you mean.

/// The candidate that is close enough to `word` to be what was meant, if there is one.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let _ = (word, candidates.into_iter().next());
    None
}
