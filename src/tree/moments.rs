//! A set of whole seconds: the times that files have because of when something was done, not because of what it was done to.

use serde::{Deserialize, Serialize};

/// Seconds since 1970, as ascending ranges that do not touch; both ends belong to a range. At most [`Moments::MOST`] ranges: beyond
/// that the nearest ones become one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(i64, i64)>", into = "Vec<(i64, i64)>")]
pub struct Moments(Vec<(i64, i64)>);

impl Moments {
    /// More ranges are not told apart: a checkout has a few, a directory that grew for years some hundreds.
    pub const MOST: usize = 4096;

    /// One range, both ends included.
    pub fn between(first: i64, last: i64) -> Self {
        Self::from(vec![(first, last)])
    }

    /// Is the second one of them?
    pub fn contains(&self, second: i64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= second);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| second <= *last)
    }

    /// Those of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        if other.0.is_empty() { self.clone() } else { Self::from([self.0.as_slice(), other.0.as_slice()].concat()) }
    }

    /// The ranges in order.
    pub fn ranges(&self) -> &[(i64, i64)] {
        &self.0
    }
}

impl From<Moments> for Vec<(i64, i64)> {
    fn from(moments: Moments) -> Self {
        moments.0
    }
}

impl FromIterator<i64> for Moments {
    fn from_iter<I: IntoIterator<Item = i64>>(seconds: I) -> Self {
        Self::from(seconds.into_iter().map(|second| (second, second)).collect::<Vec<_>>())
    }
}

impl From<Vec<(i64, i64)>> for Moments {
    /// In any order; a range that ends before it begins is none.
    fn from(mut ranges: Vec<(i64, i64)>) -> Self {
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        let mut joined = joined(ranges, 1);
        if joined.len() > Self::MOST {
            let mut gaps: Vec<i64> = joined.windows(2).map(gap).collect();
            gaps.sort_unstable();
            let widest = gaps.get(gaps.len().saturating_sub(Self::MOST)).copied().unwrap_or(i64::MAX);
            joined = self::joined(joined, widest);
        }
        Self(joined)
    }
}

/// Between two ranges that follow each other.
fn gap(pair: &[(i64, i64)]) -> i64 {
    match pair {
        [(_, last), (next, _)] => next.saturating_sub(*last),
        _ => 0,
    }
}

/// Sorted ranges, with those made one that are at most so many seconds apart.
fn joined(sorted: Vec<(i64, i64)>, apart: i64) -> Vec<(i64, i64)> {
    let mut all: Vec<(i64, i64)> = Vec::new();
    for (first, last) in sorted {
        match all.last_mut() {
            Some((_, end)) if first.saturating_sub(*end) <= apart => *end = last.max(*end),
            _ => all.push((first, last)),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_in_if_a_range_has_it() {
        let moments: Moments = [7, 5, 6, 100, 5].into_iter().collect();
        assert_eq!(moments.ranges(), [(5, 7), (100, 100)]);
        assert!([5, 6, 7, 100].into_iter().all(|second| moments.contains(second)));
        assert!([i64::MIN, 4, 8, 99, 101, i64::MAX].into_iter().all(|second| !moments.contains(second)));
        assert!(!Moments::default().contains(0));
    }

    #[test]
    fn two_sets_together_have_what_either_has() {
        let both = Moments::between(10, 20).and(&Moments::from(vec![(15, 30), (40, 50), (9, 3)]));
        assert_eq!(both.ranges(), [(10, 30), (40, 50)]);
    }

    #[test]
    fn too_many_ranges_become_fewer_and_lose_nothing() {
        let seconds = || (0..10_000).map(|n| n * 1000 + n % 7 * 3);
        let moments: Moments = seconds().collect();
        assert!(moments.ranges().len() <= Moments::MOST);
        assert!(seconds().all(|second| moments.contains(second)));
        let read: Moments = serde_json::from_str(&serde_json::to_string(&moments).unwrap()).unwrap();
        assert_eq!(read, moments);
    }
}
