//! What a Dockerfile means: values, no variables, no stage names, no unreachable stages, no ONBUILD.
//!
//! [`resolve`] takes the tree and a [`Request`] and gives a [`Plan`] or all its errors at once. It touches no file and no
//! network but through [`Bases`], and it asks that only for what the target needs.
//!
//! ```text
//! Dockerfile ─global ARGs→ Graph (stages by name) ─reach(target)→ Prepared (start, triggers) ─evaluate→ Plan
//! ```
//!
//! Source: BuildKit `frontend/dockerfile/dockerfile2llb/convert.go`, `dispatchers`; docs/reference.md.

mod chmod;
mod config;
mod copy;
mod epoch;
mod evaluate;
mod expose;
mod graph;
mod history;
mod lookup;
mod mounts;
mod onbuild;
mod paths;
mod reach;
mod report;
mod request;
mod run;
mod scope;
mod signal;
mod syntax;
mod values;

#[cfg(test)]
mod tests;

// Words of a plan that the grammar has already: who reads a plan need not name the grammar.
pub use crate::dockerfile::{MountKind, Sharing};
pub use report::Unresolved;
pub use request::{Base, BaseError, BaseImage, Bases, Request};
pub use values::{
    Action, Chmod, Copy, CopySource, Device, Epoch, InlineFile, Mount, NetworkMode, Origin, Plan, Run, Security, Stage, StageId, Start,
    Step,
};

use std::collections::BTreeSet;

use self::{evaluate::Evaluation, graph::Graph, lookup::Lookup, reach::Reached, report::Report, scope::Globals};
use crate::{
    dockerfile::{Command, Dockerfile},
    oci::Platform,
};

/// Gives a Dockerfile its meaning. `Err`: all errors, in order of position; of the worst kind among them, when a base could
/// not be had that of its [`BaseError`].
pub fn resolve(file: &Dockerfile, request: &Request, bases: &dyn Bases) -> Result<Plan, Unresolved> {
    let mut report = Report::default();
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    syntax::check(file, request, &mut report);
    let globals = Globals::of(file, request, &platform, &mut report);
    let graph = Graph::of(file, request, &globals, &mut report);
    let Some(target) = graph.target(request.target.as_deref(), &mut report) else {
        return Err(report.unresolved());
    };
    let mut lookup = Lookup::new(bases, request, platform.clone());
    let reached = reach::reach(&graph, target, &mut lookup, &mut report);
    graph.refuse_circles(&reached, &mut report);
    let declared = declared_names(&globals, &graph, &reached);
    syntax::unused_build_args(request, &declared, &mut report);
    let epoch = epoch::wanted(file, request, &globals, &graph, &mut report);
    let plan = Evaluation { escape: file.escape, request, globals: &globals, graph: &graph, platform }.run(
        &reached,
        target,
        &mut lookup,
        &mut report,
    );
    report.finish(plan.map(|plan| Plan { epoch, ..plan }))
}

/// Every name that an ARG declares, also in stages that the target does not need.
fn declared_names<'a>(globals: &'a Globals, graph: &'a Graph<'_>, reached: &'a Reached<'_>) -> BTreeSet<&'a str> {
    let commands = graph.nodes.iter().flat_map(|node| &node.commands);
    let declarations = commands
        .chain(reached.values().flat_map(|stage| &stage.commands))
        .filter_map(|command| if let Command::Arg(declarations) = &command.instruction.command { Some(declarations) } else { None });
    let names = declarations.flatten().map(|declaration| declaration.key.text.as_str());
    names.chain(globals.declared.iter().map(String::as_str)).collect()
}
