//! What the target needs: its stages, their bases, their ONBUILD triggers, and what those need in turn.
//!
//! Only here and in evaluation are bases looked up: a stage that nothing needs costs nothing.
//!
//! Source: BuildKit `dockerfile2llb/convert.go: resolveStages, resolveReachableStages`.

use std::collections::BTreeMap;

use super::{
    Base, Report,
    graph::{Directed, From, Graph, Source},
    lookup::{Asker, Lookup, Wanted},
    onbuild,
    report::Reported,
};

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

/// Follows everything from the target.
pub(super) fn reach<'a>(graph: &Graph<'a>, target: usize, lookup: &mut Lookup<'_>, report: &mut Report) -> Reached<'a> {
    let mut reached = Reached::new();
    let mut open = vec![target];
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
            let stages = graph.nodes.iter().take(index).filter_map(|node| node.ast.name.as_ref());
            let wanted = Wanted {
                name,
                platform: node.platform.as_ref(),
                span: node.ast.base.span,
                asker: Asker::From,
                stages: stages.map(|name| name.text.as_str()).collect(),
            };
            begin(find(lookup, &wanted, report), Beginning::Base)
        }
    };
    let mut commands = onbuild::triggers(graph, node, &start, report);
    commands.extend(node.commands.iter().cloned());
    Prepared { start, commands }
}

fn find(lookup: &mut Lookup<'_>, wanted: &Wanted<'_>, report: &mut Report) -> Result<Base, Reported> {
    lookup.find(wanted).map_err(|(diagnostic, kind)| {
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
    let wanted = Wanted { name, platform: node.platform.as_ref(), span, asker: Asker::From, stages: Vec::new() };
    Some(find(lookup, &wanted, report))
}
