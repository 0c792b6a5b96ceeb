//! The plan as a graph: which step needs which.

use std::collections::BTreeSet;

use crate::plan::{Action, CopySource, Origin, Plan, Stage, StageId, Start};

/// A step: the stage, and its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// The stage.
    pub stage: StageId,
    /// The step's place in the stage, from 0.
    pub step: usize,
}

/// All steps, and which steps each one needs done before it.
#[derive(Debug, Clone)]
pub struct Graph {
    nodes: Vec<(Node, BTreeSet<usize>)>,
    /// For each step those that need it, in order.
    needed_by: Vec<Vec<usize>>,
}

impl Graph {
    /// Of a plan, whose stages stand after those that they need.
    pub fn of(plan: &Plan) -> Self {
        let mut nodes: Vec<(Node, BTreeSet<usize>)> = Vec::new();
        // For each stage, the number of the step that completes it; a stage without steps is complete when its start is.
        let mut ends: Vec<Option<usize>> = Vec::new();
        for (number, stage) in plan.stages.iter().enumerate() {
            let mut last = match stage.start {
                Start::Stage(below) => ends.get(below.0).copied().flatten(),
                Start::Scratch | Start::Image(_) => None,
            };
            for step in 0..stage.steps.len() {
                let mut needs: BTreeSet<usize> = last.into_iter().collect();
                needs.extend(stages_used(stage, step).filter_map(|used| ends.get(used.0).copied().flatten()));
                last = Some(nodes.len());
                nodes.push((Node { stage: StageId(number), step }, needs));
            }
            ends.push(last);
        }
        Self::linked(nodes)
    }

    fn linked(nodes: Vec<(Node, BTreeSet<usize>)>) -> Self {
        let mut needed_by = vec![Vec::new(); nodes.len()];
        for (number, (_, needs)) in nodes.iter().enumerate() {
            for needed in needs {
                if let Some(all) = needed_by.get_mut(*needed) {
                    all.push(number);
                }
            }
        }
        Self { nodes, needed_by }
    }

    /// The steps by number.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        self.nodes.iter().map(|(node, _)| *node)
    }

    /// A step by its number.
    pub fn node(&self, number: usize) -> Option<Node> {
        self.nodes.get(number).map(|(node, _)| *node)
    }

    /// The steps that must be done before it. Their numbers are lower.
    pub fn needs(&self, number: usize) -> &BTreeSet<usize> {
        static NONE: BTreeSet<usize> = BTreeSet::new();
        self.nodes.get(number).map_or(&NONE, |(_, needs)| needs)
    }

    /// The step that made the tree it begins with, if one did.
    pub fn on(&self, plan: &Plan, number: usize) -> Option<usize> {
        let Node { mut stage, step } = self.node(number)?;
        if step > 0 {
            return number.checked_sub(1);
        }
        loop {
            // A stage without steps is the one that it begins with.
            let Start::Stage(below) = plan.stages.get(stage.0)?.start else { return None };
            let last = self.needs(number).iter().rev().find(|needed| self.node(**needed).is_some_and(|node| node.stage == below));
            if let Some(last) = last {
                return Some(*last);
            }
            // Stages stand after those that they need.
            stage = if below.0 < stage.0 { below } else { return None };
        }
    }

    /// The steps that wait for it, in order.
    pub fn needed_by(&self, number: usize) -> &[usize] {
        self.needed_by.get(number).map_or(&[], Vec::as_slice)
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// The stages that a step takes files from.
fn stages_used(stage: &Stage, step: usize) -> impl Iterator<Item = StageId> {
    let origins: Vec<&Origin> = match stage.steps.get(step).map(|step| &step.action) {
        Some(Action::Copy(copy)) if copy.sources.iter().any(|source| matches!(source, CopySource::Path(_))) => vec![&copy.from],
        Some(Action::Run(run)) => run.mounts.iter().map(|mount| &mount.from).collect(),
        _ => Vec::new(),
    };
    origins.into_iter().filter_map(|origin| if let Origin::Stage(id) = origin { Some(*id) } else { None }).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A graph by what each step needs.
    pub(in crate::engine) fn graph(needs: &[&[usize]]) -> Graph {
        let node = |step| Node { stage: StageId(0), step };
        Graph::linked(needs.iter().enumerate().map(|(step, needs)| (node(step), needs.iter().copied().collect())).collect())
    }

    #[test]
    fn a_step_knows_who_waits_for_it() {
        let graph = graph(&[&[], &[0], &[0, 1], &[]]);
        assert_eq!(graph.needed_by(0), [1, 2]);
        assert_eq!(graph.needed_by(1), [2]);
        assert!(graph.needed_by(3).is_empty() && graph.needed_by(9).is_empty());
        assert_eq!(graph.needs(2), &BTreeSet::from([0, 1]));
    }
}
