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

mod assumed;
mod chmod;
mod circles;
mod config;
mod copy;
mod epoch;
mod evaluate;
mod expose;
mod facts;
mod graph;
mod history;
mod lookup;
mod mounts;
mod onbuild;
mod outline;
mod paths;
mod reach;
mod report;
mod request;
mod run;
mod scope;
mod signal;
mod special;
mod syntax;
mod values;

#[cfg(test)]
mod tests;

// Words of a plan that the grammar has already: who reads a plan need not name the grammar.
pub use crate::dockerfile::{MountKind, Sharing};
pub use assumed::AssumedBases;
pub use facts::{Argument, Evaluated, Facts, FromFacts, OtherPlatform, PlatformFacts, Survey, Undefined};
pub use history::quote as quoted;
pub use outline::{Outline, OutlineArg, OutlineMount, outline};
pub use paths::clean;
pub use report::Unresolved;
pub use request::{Base, BaseError, BaseImage, Bases, Dated, Request};
pub use values::{
    Action, Chmod, Copy, CopySource, Device, InlineFile, Mount, NetworkMode, Origin, Plan, Run, Security, Stage, StageId, Start, Step,
};

use std::collections::BTreeSet;

use self::{evaluate::Evaluation, graph::Graph, lookup::Lookup, reach::Reached, report::Report, scope::Globals};
use crate::{
    dockerfile::{Command, Dockerfile},
    oci::{Platform, Reference},
};

/// Gives a Dockerfile its meaning. `Err`: all errors, in order of position; of the worst kind among them, when a base could
/// not be had that of its [`BaseError`].
pub fn resolve(file: &Dockerfile, request: &Request, bases: &dyn Bases) -> Result<Plan, Unresolved> {
    survey(file, request, bases, Wanted::Target).plan
}

/// Which stages are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those that the target needs.
    Target,
    /// Also those that it does not need, unless the request names a target.
    All,
}

/// As [`resolve`], and what was found out on the way.
pub fn survey(file: &Dockerfile, request: &Request, bases: &dyn Bases, wanted: Wanted) -> Survey {
    let mut report = Report::default();
    let plan = evaluated(file, request, bases, wanted, &mut report);
    Survey { facts: report.take_facts(), plan: report.finish(plan) }
}

/// The plan; `None` after an error was reported.
fn evaluated(file: &Dockerfile, request: &Request, bases: &dyn Bases, wanted: Wanted, report: &mut Report) -> Option<Plan> {
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    syntax::check(file, request, report);
    special::check(request, report);
    let mut globals = Globals::of(file, request, &platform, report);
    let mut request = request.clone();
    let epoch = epoch::settle(file, &mut request, &mut globals, bases, report);
    let request = &request;
    let graph = Graph::of(file, request, &globals, report);
    let target = graph.target(request.target.as_deref(), report)?;
    let mut lookup = Lookup::new(bases, request, platform.clone());
    let first = if wanted == Wanted::All && request.target.is_none() { 0 } else { target };
    let reached = reach::reach(&graph, first..=target, &mut lookup, report);
    graph.refuse_circles(&reached, report);
    let declared = declared_names(&globals, &graph, &reached);
    syntax::unused_build_args(request, &declared, report);
    let plan =
        Evaluation { escape: file.escape, request, globals: &globals, graph: &graph, platform }.run(&reached, target, &mut lookup, report);
    plan.map(|plan| Plan { epoch, ..plan })
}

/// Can an image have that name?
pub fn is_image_name(name: &str) -> bool {
    name.parse::<Reference>().is_ok()
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
