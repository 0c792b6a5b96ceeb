//! What a user can give to a build: its arguments, secrets, sockets and cache mounts, with their descriptions.
//!
//! Source: BuildKit `dockerfile2llb/outline.go`, `frontend/subrequests/outline`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Facts, MountKind, Plan};
use crate::{
    diag::Span,
    dockerfile::{ArgDeclaration, Command, Dockerfile, Docs, Instruction},
};

/// First and last physical line.
type Lines = (u32, u32);

/// What the target can be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name.
    pub name: Option<String>,
    /// The target's description.
    pub description: Option<String>,
    /// Build arguments, in order of the file.
    pub args: Vec<OutlineArg>,
    /// Secrets.
    pub secrets: Vec<OutlineMount>,
    /// Sockets of an SSH agent.
    pub ssh: Vec<OutlineMount>,
    /// Cache mounts.
    pub caches: Vec<OutlineMount>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// Its value in this build; empty: none.
    pub value: String,
    /// The comment above it.
    pub description: Option<String>,
    /// Where it is declared.
    pub lines: Lines,
}

/// Something that is mounted under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its id.
    pub id: String,
    /// Must it be there?
    pub required: bool,
    /// The comment above the RUN that begins with the id.
    pub description: Option<String>,
    /// The first RUN that mounts it.
    pub lines: Lines,
}

/// The outline of a plan and what was found out when it was made.
pub fn outline(file: &Dockerfile, facts: &Facts, plan: &Plan) -> Outline {
    let target = plan.stages.get(plan.target.0).and_then(|target| file.stages.iter().find(|stage| stage.span == target.span));
    let mut outline = Outline {
        name: target.and_then(|stage| stage.name.as_ref()).map(|name| name.text.clone()),
        description: target.and_then(|stage| stage.doc.clone()),
        args: args(file, facts, plan),
        ..Outline::default()
    };
    mounts(file, plan, &mut outline);
    outline
}

/// Arguments that the needed stages declare, and global ones that they use. Where several stages declare one, the last counts.
fn args(file: &Dockerfile, facts: &Facts, plan: &Plan) -> Vec<OutlineArg> {
    let needed: BTreeSet<Span> = plan.stages.iter().map(|stage| stage.span).collect();
    let is_needed = |stage: usize| file.stages.get(stage).is_some_and(|stage| needed.contains(&stage.span));
    let instructions = by_start(file);
    let mut used: BTreeSet<&str> = BTreeSet::new();
    let mut found: BTreeMap<&str, OutlineArg> = BTreeMap::new();
    for command in facts.commands.iter().filter(|command| is_needed(command.stage)) {
        let instruction = command.trigger.as_deref().or_else(|| instructions.get(&command.span.start).copied());
        let Some(Command::Arg(declarations)) = instruction.map(|instruction| &instruction.command) else { continue };
        let lines = lines_at(file, &instructions, command.span);
        for (declaration, value) in declarations.iter().zip(&command.arguments) {
            used.insert(&declaration.key.text);
            if !value.inherited {
                let name = declaration.key.text.clone();
                let arg = OutlineArg { name, value: value.value.clone(), description: declaration.doc.clone(), lines };
                found.insert(&declaration.key.text, arg);
            }
        }
    }
    let froms = facts.froms.iter().filter(|from| is_needed(from.stage));
    used.extend(froms.flat_map(|from| &from.used).map(String::as_str));
    let globals: BTreeMap<&str, &super::Argument> = facts.globals.iter().map(|global| (global.name.as_str(), global)).collect();
    let declared = declared(file);
    let mut open: Vec<&str> = used.into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        let Some(global) = globals.get(name).filter(|_| seen.insert(name)) else { continue };
        open.extend(global.uses.iter().map(String::as_str));
        if let Some(&(declaration, lines)) = declared.get(name) {
            let name = declaration.key.text.clone();
            let arg = OutlineArg { name, value: global.value.clone(), description: declaration.doc.clone(), lines };
            found.entry(&declaration.key.text).or_insert(arg);
        }
    }
    let mut args: Vec<OutlineArg> = found.into_values().collect();
    args.sort_by_key(|arg| arg.lines);
    args
}

/// Where each global argument is declared: by the last ARG that names it.
fn declared(file: &Dockerfile) -> BTreeMap<&str, (&ArgDeclaration, Lines)> {
    let mut declared = BTreeMap::new();
    for instruction in &file.meta_args {
        if let Command::Arg(declarations) = &instruction.command {
            // Of two in one ARG the first.
            let each = declarations.iter().rev().map(|declaration| (declaration.key.text.as_str(), (declaration, instruction.lines)));
            declared.extend(each);
        }
    }
    declared
}

fn mounts(file: &Dockerfile, plan: &Plan, outline: &mut Outline) {
    let instructions = by_start(file);
    let mut seen = BTreeSet::new();
    for step in plan.stages.iter().flat_map(|stage| &stage.steps) {
        let Action::Run(run) = &step.action else { continue };
        let comments = instructions.get(&step.span.start).map(|instruction| instruction.comments.as_slice()).unwrap_or_default();
        let docs = Docs::of(comments);
        let lines = lines_at(file, &instructions, step.span);
        for mount in &run.mounts {
            let list = match mount.kind {
                MountKind::Secret => &mut outline.secrets,
                MountKind::Ssh => &mut outline.ssh,
                MountKind::Cache => &mut outline.caches,
                MountKind::Bind | MountKind::Tmpfs => continue,
            };
            if seen.insert((mount.kind, &mount.id)) {
                list.push(OutlineMount { id: mount.id.clone(), required: mount.required, description: docs.find(&mount.id), lines });
            }
        }
    }
    for list in [&mut outline.secrets, &mut outline.ssh, &mut outline.caches] {
        list.sort_by_key(|mount| mount.lines);
    }
}

/// The instructions by where they begin.
fn by_start(file: &Dockerfile) -> BTreeMap<u32, &Instruction> {
    file.stages.iter().flat_map(|stage| &stage.commands).map(|instruction| (instruction.span.start, instruction)).collect()
}

/// The lines of an instruction, or of the FROM that a trigger stands at.
fn lines_at(file: &Dockerfile, instructions: &BTreeMap<u32, &Instruction>, span: Span) -> Lines {
    let stage = || file.stages.iter().find(|stage| stage.span == span).map(|stage| stage.lines);
    instructions.get(&span.start).map(|instruction| instruction.lines).or_else(stage).unwrap_or_default()
}
