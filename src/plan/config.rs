//! Instructions that change the config and the variables, and touch no file. (WORKDIR makes a directory.)
//!
//! Source: BuildKit `dockerfile2llb/convert.go: dispatchEnv` to `dispatchArg`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Action, Argument,
    evaluate::{Evaluator, is_for_the_scanner},
    expose,
    facts::cut,
    graph::Directed,
    history, paths,
    scope::Setter,
    signal,
};
use crate::{
    diag::closest,
    dockerfile::{ArgDeclaration, CommandLine, Healthcheck, KeyValue, Mode, Word},
    oci::Health,
};

/// How many ports the EXPOSEs of a stage may name: each a few times over.
const PORTS: usize = 1 << 18;

impl Evaluator<'_, '_> {
    /// ENV: all values are expanded before any is set.
    pub(super) fn env(&mut self, command: &Directed<'_>, pairs: &[KeyValue]) {
        let Some(pairs) = self.pairs(command, pairs) else { return };
        self.note_values(pairs.iter().map(|(name, _)| name.as_str()));
        let own = &mut self.current.own;
        for (name, value) in &pairs {
            own.scope.set(name, value.clone(), Setter::Env);
            let variables = own.config.config.env.get_or_insert_default();
            let line = format!("{name}={value}");
            if let Some(variable) = own.places.get(name).and_then(|place| variables.get_mut(*place)) {
                *variable = line;
            } else {
                own.places.insert(name.clone(), variables.len());
                variables.push(line);
            }
        }
        self.metadata(command, listed("ENV", &pairs));
    }

    /// LABEL
    pub(super) fn label(&mut self, command: &Directed<'_>, pairs: &[KeyValue]) {
        let Some(pairs) = self.pairs(command, pairs) else { return };
        self.note_values(None);
        self.current.own.config.config.labels.get_or_insert_default().extend(pairs.iter().cloned());
        self.metadata(command, listed("LABEL", &pairs));
    }

    fn pairs(&mut self, command: &Directed<'_>, pairs: &[KeyValue]) -> Option<Vec<(String, String)>> {
        let expanded: Vec<_> = pairs.iter().map(|pair| (self.expand(command, &pair.key), self.expand(command, &pair.value))).collect();
        expanded.into_iter().map(|(key, value)| Some((key?, value?))).collect()
    }

    /// ARG: the build argument wins over the default, the default over the global value.
    pub(super) fn arg(&mut self, command: &Directed<'_>, declarations: &[ArgDeclaration]) {
        let mut line = String::from("ARG");
        for declaration in declarations {
            let name = &declaration.key.text;
            let value = match (self.evaluation.request.build_args.get(name), &declaration.value) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(word)) => match self.current.own.scope.expand(&word.text, self.evaluation.escape, Mode::default()) {
                    Ok(expanded) => {
                        self.note_unset(expanded.unset);
                        Some(expanded.text)
                    }
                    Err(message) => {
                        self.cannot_expand(command, word, message);
                        continue;
                    }
                },
                (None, None) => self.evaluation.globals.scope.value(name).map(str::to_owned),
            };
            let argument = Argument {
                name: name.clone(),
                value: value.as_deref().map(cut).unwrap_or_default(),
                uses: Vec::new(),
                inherited: declaration.value.is_none() && value.is_some() && !self.evaluation.request.build_args.contains_key(name),
            };
            self.report.note(|facts| facts.argument(argument));
            line.extend([" ", name]);
            if let Some(value) = &value {
                line.extend(["=", value]);
                if !is_for_the_scanner(name) {
                    self.current.own.scope.set(name, value.clone(), Setter::Arg);
                }
            }
            self.current.own.declared.set(name, value);
        }
        self.metadata(command, line);
    }

    /// CMD
    pub(super) fn cmd(&mut self, command: &Directed<'_>, line: &CommandLine) {
        let argv = self.with_shell(line);
        let history = format!("CMD {}", history::quoted(&argv));
        let config = &mut self.current.own.config.config;
        config.cmd = Some(argv).filter(|argv| !argv.is_empty());
        config.args_escaped = true;
        self.current.own_command = true;
        self.metadata(command, history);
    }

    /// ENTRYPOINT clears a CMD that this stage did not write.
    pub(super) fn entrypoint(&mut self, command: &Directed<'_>, line: &CommandLine) {
        let argv = self.with_shell(line);
        let history = format!("ENTRYPOINT {}", history::quoted(&argv));
        let config = &mut self.current.own.config.config;
        config.entrypoint = Some(argv).filter(|argv| !argv.is_empty());
        if !self.current.own_command {
            config.cmd = None;
        }
        self.metadata(command, history);
    }

    /// The argument vector of a command line.
    pub(super) fn with_shell(&self, line: &CommandLine) -> Vec<String> {
        match line {
            CommandLine::Exec(argv, _) => argv.clone(),
            CommandLine::Shell(word) => self.in_shell(&word.text),
        }
    }

    /// The argument vector of a text for the shell.
    pub(super) fn in_shell(&self, text: &str) -> Vec<String> {
        let shell = self.current.own.config.config.shell.as_deref().unwrap_or_default();
        let mut argv = if shell.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { shell.to_vec() };
        argv.push(text.to_owned());
        argv
    }

    /// EXPOSE
    pub(super) fn expose(&mut self, command: &Directed<'_>, words: &[Word]) {
        let mut texts = Vec::new();
        for word in words {
            match self.current.own.scope.expand_words(&word.text, self.evaluation.escape) {
                Ok(expanded) if texts.len() + expanded.len() <= PORTS => texts.extend(expanded.into_iter().map(|text| (word, text))),
                Ok(_) => return self.too_many_ports(command, word),
                Err(message) => self.cannot_expand(command, word, message),
            }
        }
        self.note_values(texts.iter().map(|(_, text)| text.as_str()));
        if let Some((word, text)) = texts.iter().find(|(_, text)| text.starts_with('#')) {
            let error = command.error(format!("`{text}` cannot be exposed"), word.span).label("this is not a comment");
            return self.error(error.help("a comment needs a line of its own"));
        }
        let mut ports = Vec::new();
        for (word, text) in texts {
            match expose::ports(&text) {
                Ok(more) if self.current.ports + ports.len() + more.len() <= PORTS => ports.extend(more),
                Ok(_) => return self.too_many_ports(command, word),
                Err(reason) => {
                    let error = command.error(format!("`{text}` cannot be exposed"), word.span).label(reason);
                    self.error(error.help("write a port like `8080`, `53/udp` or `7000-7010`"));
                }
            }
        }
        self.current.ports += ports.len();
        let history = format!("EXPOSE [{}]", ports.join(" "));
        let exposed = self.current.own.config.config.exposed_ports.get_or_insert_default();
        exposed.extend(ports.into_iter().map(|port| (port, empty())));
        self.metadata(command, history);
    }

    fn too_many_ports(&mut self, command: &Directed<'_>, word: &Word) {
        let error = command.error("this stage exposes more ports than there are", word.span);
        self.error(error.label("too many from here on").help("expose those that the program listens on"));
    }

    /// HEALTHCHECK
    pub(super) fn healthcheck(&mut self, command: &Directed<'_>, check: &Healthcheck) {
        let nanoseconds = |duration: std::time::Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        let health = Health {
            test: check.test.clone(),
            interval: nanoseconds(check.interval),
            timeout: nanoseconds(check.timeout),
            start_period: nanoseconds(check.start_period),
            start_interval: nanoseconds(check.start_interval),
            retries: check.retries,
        };
        let history = history::healthcheck(&health);
        self.current.own.config.config.healthcheck = Some(health);
        self.metadata(command, history);
    }

    /// MAINTAINER is not expanded.
    pub(super) fn maintainer(&mut self, command: &Directed<'_>, name: &Word) {
        self.current.own.config.author = Some(name.text.clone());
        self.metadata(command, format!("MAINTAINER {}", name.text));
    }

    /// SHELL
    pub(super) fn shell(&mut self, command: &Directed<'_>, shell: &[String]) {
        self.current.own.config.config.shell = Some(shell.to_vec()).filter(|shell| !shell.is_empty());
        self.metadata(command, format!("SHELL [{}]", shell.join(" ")));
    }

    /// STOPSIGNAL
    pub(super) fn stopsignal(&mut self, command: &Directed<'_>, word: &Word) {
        let Some(name) = self.expand(command, word) else { return };
        if !signal::is_valid(&name) {
            let error = command.error(format!("`{name}` is not a signal"), word.span).label("not known on Linux");
            let bare = name.to_ascii_uppercase();
            let bare = bare.strip_prefix("SIG").unwrap_or(&bare);
            return self.error(match closest(bare, signal::names()) {
                Some(meant) => error.help(format!("did you mean `SIG{meant}`?")),
                None => error.help("write a name like `SIGTERM` or `SIGRTMIN+3`, or a number"),
            });
        }
        self.metadata(command, format!("STOPSIGNAL {name}"));
        self.current.own.config.config.stop_signal = name;
    }

    /// USER
    pub(super) fn user(&mut self, command: &Directed<'_>, word: &Word) {
        let Some(user) = self.expand(command, word) else { return };
        self.metadata(command, format!("USER {user}"));
        self.current.own.config.config.user = user;
    }

    /// VOLUME
    pub(super) fn volume(&mut self, command: &Directed<'_>, words: &[Word]) {
        let mut volumes = Vec::new();
        for word in words {
            match self.expand(command, word) {
                Some(volume) if volume.is_empty() => {
                    let error = command.error("a volume's path is empty", word.span);
                    let error = error.label(if word.text.contains('$') { "expands to nothing" } else { "no path" });
                    self.error(error.help("give its variable a value, or leave it out"));
                }
                Some(volume) => volumes.push(volume),
                None => {}
            }
        }
        let history = format!("VOLUME [{}]", volumes.join(" "));
        self.current.own.config.config.volumes.get_or_insert_default().extend(volumes.into_iter().map(|volume| (volume, empty())));
        self.metadata(command, history);
    }

    /// WORKDIR: a layer with the directory, but for `/`.
    pub(super) fn workdir(&mut self, command: &Directed<'_>, word: &Word) {
        let Some(path) = self.expand(command, word) else { return };
        if path.contains('\0') {
            let error = command.error("a directory's name cannot hold a NUL byte", word.span);
            return self.error(error.label("its value holds one").help("look for it in the values of `--build-arg` and ENV"));
        }
        self.note_values([path.as_str()]);
        self.current.own.has_workdir = true;
        let config = &mut self.current.own.config.config;
        let path = paths::workdir(&config.working_dir, &path);
        config.working_dir.clone_from(&path);
        let user = config.user.clone();
        let history = format!("WORKDIR {path}");
        if path == "/" {
            return self.metadata(command, history);
        }
        let parts = BTreeMap::from([("dest".to_owned(), word.span)]);
        self.step(command, Action::Workdir { path: paths::rooted(&path), user }, history, parts);
    }
}

fn listed(keyword: &str, pairs: &[(String, String)]) -> String {
    let mut line = keyword.to_owned();
    for (name, value) in pairs {
        line.extend([" ", name, "=", value]);
    }
    line
}

/// A member of a set, as OCI writes sets.
fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}
