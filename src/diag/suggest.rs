//! Did you mean.

/// The candidate that is close enough to `word` to be what was meant, if there is one: letters left out, added, changed or
/// swapped, one for every three; case does not count. The first of the nearest wins.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = word;
    let word = lower(word);
    let mut best: Option<(usize, &'a str)> = None;
    for candidate in candidates {
        let other = lower(candidate);
        let allowed = (word.len().max(other.len()) / 3).max(1);
        // Beside a word of one or two letters everything is near.
        if word.len() < 2 || other.len() < 2 || word.len().abs_diff(other.len()) > allowed || given == candidate {
            continue;
        }
        let distance = distance(&word, &other);
        if distance <= allowed && best.is_none_or(|(nearest, _)| distance < nearest) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Words longer than this are not misspelled.
const LONGEST: usize = 64;

fn lower(word: &str) -> Vec<char> {
    word.chars().take(LONGEST).flat_map(char::to_lowercase).collect()
}

/// Optimal string alignment: insertions, deletions, changes and swaps of neighbours.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut own = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX / 2);
            let change = at(&above, column) + usize::from(a != b);
            let mut cost = change.min(at(&above, column + 1) + 1).min(at(&own, column) + 1);
            let swapped = row > 0 && column > 0 && left.get(row - 1) == Some(b) && right.get(column - 1) == Some(a);
            if swapped {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            own.push(cost);
        }
        before = std::mem::replace(&mut above, own);
    }
    above.last().copied().unwrap_or(0)
}
