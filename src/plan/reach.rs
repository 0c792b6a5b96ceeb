//! What the target needs: its stages, their bases, their ONBUILD triggers, and what those need in turn.
//!
//! Only here and in evaluation are bases looked up: a stage that nothing needs costs nothing.
//!
//! Source: BuildKit `dockerfile2llb/convert.go: resolveStages, resolveReachableStages`.

use std::{collections::BTreeMap, ops::RangeInclusive};

use super::{
    Base, OtherPlatform, Report,
    graph::{Directed, From, Graph, Node, Source},
    lookup::{Asker, Lookup, Question},
    onbuild,
    report::Reported,
};
use crate::oci::Platform;

/// The stages that the target needs, by their number in the file.
pub(super) type Reached<'a> = BTreeMap<usize, Prepared<'a>>;

/// A stage that will be evaluated.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    /// What it starts from.
    pub(super) start: Beginning,
    /// Triggers first.
    pub(super) commands: Vec<Directed<'a>>,
}

/// What a needed stage starts from.
#[derive(Debug, Clone)]
pub(super) enum Beginning {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image or a directory.
    Base(Box<Base>),
    /// The whole stage is this: a named context of its name.
    Replaced(Box<Base>),
    /// There was an error.
    Broken,
}

/// Follows everything from the targets.
pub(super) fn reach<'a>(graph: &Graph<'a>, targets: RangeInclusive<usize>, lookup: &mut Lookup<'_>, report: &mut Report) -> Reached<'a> {
    let mut reached = Reached::new();
    let mut open: Vec<usize> = targets.rev().collect();
    while let Some(index) = open.pop() {
        if reached.contains_key(&index) {
            continue;
        }
        let prepared = prepare(graph, index, lookup, report);
        if let Beginning::Stage(base) = prepared.start {
            open.push(base);
        }
        let sources = prepared.commands.iter().flat_map(|command| &command.sources);
        open.extend(sources.filter_map(|source| match source {
            Source::Stage(index) => Some(*index),
            Source::Unnamed | Source::Scratch | Source::Name(_) | Source::Broken => None,
        }));
        reached.insert(index, prepared);
    }
    reached
}

fn prepare<'a>(graph: &Graph<'a>, index: usize, lookup: &mut Lookup<'_>, report: &mut Report) -> Prepared<'a> {
    let Some(node) = graph.nodes.get(index) else {
        return Prepared { start: Beginning::Broken, commands: Vec::new() };
    };
    if let Some(base) = replacement(graph, index, lookup, report) {
        return Prepared { start: begin(base, Beginning::Replaced), commands: Vec::new() };
    }
    let start = match &node.from {
        From::Scratch => Beginning::Scratch,
        From::Broken => Beginning::Broken,
        From::Stage(base) => match replacement(graph, *base, lookup, report) {
            Some(base) => begin(base, Beginning::Base),
            None => Beginning::Stage(*base),
        },
        From::Name(name) => {
            let earlier = || graph.nodes.iter().take(index).filter_map(|node| Some(node.ast.name.as_ref()?.text.as_str())).collect();
            let (platform, span) = (node.platform.as_ref(), node.ast.base.span);
            let question = Question { name, platform, span, asker: Asker::From, stages: &earlier };
            let base = find(lookup, &question, report);
            note_platform(&base, node, lookup, report);
            begin(base, Beginning::Base)
        }
    };
    let mut commands = onbuild::triggers(graph, node, &start, report);
    commands.extend(node.commands.iter().cloned());
    Prepared { start, commands }
}

/// Notes that an image is for another platform than the stage's. An image without layers runs anywhere.
fn note_platform(base: &Result<Base, Reported>, node: &Node<'_>, lookup: &Lookup<'_>, report: &mut Report) {
    let (Ok(Base::Image(image)), From::Name(name)) = (base, &node.from) else { return };
    let expected = node.platform.as_ref().unwrap_or(lookup.platform());
    let config = &image.config;
    if (&config.os, &config.architecture) == (&expected.os, &expected.architecture) || config.rootfs.diff_ids.is_empty() {
        return;
    }
    let actual = Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os_version: None,
        os_features: Vec::new(),
    };
    let other = OtherPlatform { stage: node.index, name: name.clone(), expected: expected.to_string(), actual: actual.to_string() };
    report.note(|facts| facts.other_platforms.push(other));
}

fn find(lookup: &mut Lookup<'_>, question: &Question<'_>, report: &mut Report) -> Result<Base, Reported> {
    lookup.find(question).map_err(|blamed| {
        let (diagnostic, kind) = *blamed;
        report.blame(diagnostic, kind);
        Reported
    })
}

fn begin(base: Result<Base, Reported>, kind: impl FnOnce(Box<Base>) -> Beginning) -> Beginning {
    base.map_or(Beginning::Broken, |base| kind(Box::new(base)))
}

/// What stands in for a stage, if a named context has its name.
fn replacement(graph: &Graph<'_>, index: usize, lookup: &mut Lookup<'_>, report: &mut Report) -> Option<Result<Base, Reported>> {
    let node = graph.nodes.get(index)?;
    let name = node.context?;
    let span = node.ast.name.as_ref().map_or(node.ast.span, |name| name.span);
    let question = Question { name, platform: node.platform.as_ref(), span, asker: Asker::From, stages: &Vec::new };
    Some(find(lookup, &question, report))
}
