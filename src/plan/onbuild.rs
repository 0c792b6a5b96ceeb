//! ONBUILD triggers: instructions of the base that run right after FROM.
//!
//! A trigger is read as a Dockerfile of its own, with the usual escape character, whatever the file says.
//!
//! Source: BuildKit `dockerfile2llb/convert.go: initOnBuildTriggers`.

use std::borrow::Cow;

use super::{
    Base, Report,
    graph::{Directed, Graph, Node, Trigger},
    reach::Beginning,
};
use crate::{
    diag::Diagnostic,
    dockerfile::{self, Command, Instruction},
};

/// The triggers of what a stage starts from. A stage's own ONBUILDs count, those it inherited do not.
pub(super) fn triggers<'a>(graph: &Graph<'a>, node: &Node<'a>, start: &Beginning, report: &mut Report) -> Vec<Directed<'a>> {
    let (expressions, owner): (Vec<&str>, String) = match start {
        Beginning::Base(base) => match &**base {
            Base::Image(image) => {
                let expressions = image.config.config.on_build.iter().flatten().map(String::as_str);
                (expressions.collect(), image.name.clone())
            }
            Base::Scratch | Base::Directory(_) => return Vec::new(),
        },
        Beginning::Stage(base) => (graph.nodes.get(*base).map(own).unwrap_or_default(), graph.name(*base)),
        Beginning::Scratch | Beginning::Replaced(_) | Beginning::Broken => return Vec::new(),
    };
    let mut commands = Vec::new();
    for expression in expressions {
        let trigger = Trigger { span: node.ast.span, expression: first_line(expression).to_owned(), owner: owner.clone() };
        match read(expression) {
            Ok(instruction) => commands.push(graph.direct(Cow::Owned(instruction), Some(trigger), report)),
            Err(reason) => {
                let error =
                    Diagnostic::error(format!("the ONBUILD trigger `{}` of `{owner}` cannot run", trigger.expression), node.ast.span);
                let error = error.label("its triggers run after this line").note(reason);
                report.error(error.help("use another image, or make that one again without this trigger"));
            }
        }
    }
    commands
}

/// The ONBUILD instructions of a stage.
fn own<'a>(node: &Node<'a>) -> Vec<&'a str> {
    let onbuilds = node.ast.commands.iter().filter_map(|instruction| {
        if let Command::Onbuild(expression) = &instruction.command { Some(expression.text.as_str()) } else { None }
    });
    onbuilds.collect()
}

/// The one instruction of a trigger, or why it is none.
fn read(expression: &str) -> Result<Instruction, String> {
    let parsed = dockerfile::parse(&format!("FROM scratch\n{expression}\n"));
    if let Some(error) = parsed.errors.first() {
        return Err(error.headline.clone());
    }
    let mut stages = parsed.dockerfile.stages;
    let commands = stages.pop().map(|stage| stage.commands).unwrap_or_default();
    match (stages.len(), <[Instruction; 1]>::try_from(commands)) {
        (0, Ok([instruction])) => Ok(instruction),
        _ => Err("a trigger is one instruction, and not FROM".to_owned()),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
