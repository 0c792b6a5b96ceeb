//! Stages that need each other, found in one pass over all of them.
//!
//! Source: R. Tarjan, "Depth-first search and linear graph algorithms" (strongly connected components).

/// For each stage the number of its circle. Two stages have the same one if each needs the other, over however many
/// others. `needed[n]` are the stages that `n` needs itself.
pub(super) fn circles(needed: Vec<Vec<usize>>) -> Vec<usize> {
    let stages = needed.len();
    let mut search = Search::new(needed);
    (0..stages).for_each(|stage| search.from(stage));
    search.circle
}

/// The search, with a stack of its own: a file may have any number of stages.
struct Search {
    needed: Vec<Vec<usize>>,
    /// When a stage was first seen, counted from 1; 0: never.
    seen: Vec<usize>,
    /// The earliest seen stage of the path that it leads back to.
    back: Vec<usize>,
    circle: Vec<usize>,
    /// Stages whose circle is not complete.
    open: Vec<usize>,
    count: usize,
}

impl Search {
    fn new(needed: Vec<Vec<usize>>) -> Self {
        let none = vec![0; needed.len()];
        Self { seen: none.clone(), back: none.clone(), circle: none, needed, open: Vec::new(), count: 0 }
    }

    fn from(&mut self, stage: usize) {
        let mut path = if self.seen[stage] == 0 { vec![self.enter(stage)] } else { Vec::new() };
        while let Some((at, followed)) = path.last_mut() {
            let at = *at;
            if let Some(next) = self.needed[at].get(*followed).copied() {
                *followed += 1;
                if self.seen[next] == 0 {
                    path.push(self.enter(next));
                } else if self.circle[next] == 0 {
                    self.back[at] = self.back[at].min(self.seen[next]);
                }
                continue;
            }
            path.pop();
            if let Some((above, _)) = path.last() {
                self.back[*above] = self.back[*above].min(self.back[at]);
            }
            if self.back[at] == self.seen[at] {
                self.close(at);
            }
        }
    }

    fn enter(&mut self, stage: usize) -> (usize, usize) {
        self.count += 1;
        (self.seen[stage], self.back[stage]) = (self.count, self.count);
        self.open.push(stage);
        (stage, 0)
    }

    /// All that is open since the stage is its circle.
    fn close(&mut self, stage: usize) {
        while let Some(member) = self.open.pop() {
            self.circle[member] = self.seen[stage];
            if member == stage {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each stage's circle, as the lowest of its members.
    fn lowest(needed: &[&[usize]]) -> Vec<usize> {
        let circles = circles(needed.iter().map(|stages| stages.to_vec()).collect());
        circles.iter().map(|circle| circles.iter().position(|other| other == circle).unwrap()).collect()
    }

    #[test]
    fn stages_are_in_a_circle_if_each_needs_the_other() {
        assert_eq!(lowest(&[&[], &[0], &[0, 1]]), [0, 1, 2], "no circle");
        assert_eq!(lowest(&[&[1], &[2], &[0], &[0], &[]]), [0, 0, 0, 3, 4]);
        assert_eq!(lowest(&[&[1], &[0, 2], &[3], &[2]]), [0, 0, 2, 2], "one circle needs another");
        assert_eq!(lowest(&[&[0]]), [0]);
        assert_eq!(lowest(&[&[1, 2], &[3], &[3], &[0]]), [0, 0, 0, 0], "two ways round");
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_stages_needs_no_stack() {
        let all = 100_000;
        let ring = circles((0..all).map(|stage| vec![(stage + 1) % all]).collect());
        assert!(ring.iter().all(|circle| *circle == ring[0]));
    }
}
