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
        Self { nodes }
    }

    /// The steps by number.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        self.nodes.iter().map(|(node, _)| *node)
    }

    /// The number of a step that is not in `done` and needs nothing that is not.
    pub fn ready(&self, done: &BTreeSet<usize>) -> Option<(usize, Node)> {
        self.nodes
            .iter()
            .enumerate()
            .find(|(number, (_, needs))| !done.contains(number) && needs.is_subset(done))
            .map(|(number, (node, _))| (number, *node))
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
