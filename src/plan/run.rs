//! RUN.
//!
//! Source: BuildKit `dockerfile2llb/convert.go: dispatchRun`, `convert_runnetwork.go`, `convert_rundevice.go`.

use std::{cell::RefCell, collections::BTreeMap};

use super::{
    Action, Device, InlineFile, Mount, NetworkMode, Run, Security,
    copy::{chomp, is_plain_name},
    evaluate::Evaluator,
    graph::{Directed, Source},
    history,
    lookup::Asker,
    mounts::{self, Place},
    scope::Setter,
};
use crate::{
    diag::{Diagnostic, closest},
    dockerfile::{self, CommandLine, Heredoc, Mode, MountKind, Word, boolean, expand_words, read_mount},
};

/// Where the files of heredocs appear.
const PIPES: &str = "/dev/pipes";

impl Evaluator<'_, '_> {
    /// RUN: its text is the shell's, only mounts are expanded here.
    pub(super) fn run(&mut self, command: &Directed<'_>, run: &dockerfile::Run) {
        let run_what = self.program(command, run);
        let mounts = self.mounts(command, run);
        let network = self.network(command, run.network.as_ref());
        let security = self.security(command, run.security.as_ref());
        let devices = self.devices(command, &run.devices);
        let (Some((program, files)), Some(mounts), Some(network), Some(security), Some(devices)) =
            (run_what, mounts, network, security, devices)
        else {
            return;
        };
        let own = &self.current.own;
        let declared: Vec<(String, String)> =
            own.declared.iter().map(|(name, value)| (name.to_owned(), self.holds(name, value.as_deref()))).collect();
        let history = history::run(&declared, &program);
        let (mut env, mut args) = (Vec::new(), Vec::new());
        for (name, value, setter) in own.scope.in_order() {
            env.push((name.to_owned(), value.to_owned()));
            if setter == Setter::Arg {
                args.push(name.to_owned());
            }
        }
        let socket = mounts.iter().find(|mount| mount.kind == MountKind::Ssh);
        if let Some(socket) = socket.filter(|_| own.scope.value("SSH_AUTH_SOCK").is_none()) {
            env.push(("SSH_AUTH_SOCK".to_owned(), socket.target.clone()));
        }
        let dir = &own.config.config.working_dir;
        let cwd = if dir.is_empty() { "/".to_owned() } else { dir.clone() };
        let proxy = self.proxy();
        let user = own.config.config.user.clone();
        let values = env.iter().chain(&proxy).flat_map(|(name, value)| [name, value]).chain(&program).chain([&cwd, &user]);
        if values.into_iter().any(|value| value.contains('\0')) {
            let error = command.error("no process can be given a NUL byte", command.instruction.span);
            return self
                .error(error.label("its command or a variable holds one").help("look for it in the values of `--build-arg` and ENV"));
        }
        let hostname = self.evaluation.request.hostname().to_owned();
        let shell = if matches!(run.line, CommandLine::Shell(_)) { program.len().saturating_sub(1) } else { 0 };
        let action = Run { argv: program, shell, env, args, proxy, cwd, user, network, hostname, files, mounts, security, devices };
        let parts = run.mounts.iter().enumerate().map(|(index, mount)| (format!("mount {index}"), mount.span)).collect::<BTreeMap<_, _>>();
        self.step(command, Action::Run(action), history, parts);
    }

    /// The value of a declared ARG that a step sees.
    fn holds(&self, name: &str, declared: Option<&str>) -> String {
        self.current.own.scope.value(name).or(declared).unwrap_or_default().to_owned()
    }

    /// What is run, and the files it needs.
    fn program(&mut self, command: &Directed<'_>, run: &dockerfile::Run) -> Option<(Vec<String>, Vec<InlineFile>)> {
        let text = match &run.line {
            CommandLine::Exec(argv, span) if argv.is_empty() => {
                let error = command.error("RUN has nothing to run", *span).label("no command");
                self.error(error.help("write the command into the array, or leave the line out"));
                return None;
            }
            CommandLine::Exec(argv, _) => return Some((argv.clone(), Vec::new())),
            CommandLine::Shell(word) => &word.text,
        };
        let Some(first) = run.heredocs.first() else {
            return Some((self.in_shell(text), Vec::new()));
        };
        if !is_heredoc_alone(text) {
            let mut script = text.clone();
            for heredoc in &run.heredocs {
                script.extend(["\n", &heredoc.content, &heredoc.name]);
            }
            return Some((self.in_shell(&script), Vec::new()));
        }
        let body = if first.chomp { chomp(&first.content) } else { first.content.clone() };
        if !body.starts_with("#!") {
            return Some((self.in_shell(&body), Vec::new()));
        }
        self.script(command, first, body)
    }

    /// A heredoc that names its interpreter is a file that is run.
    fn script(&mut self, command: &Directed<'_>, heredoc: &Heredoc, data: String) -> Option<(Vec<String>, Vec<InlineFile>)> {
        if !is_plain_name(&heredoc.name) {
            let error = command.error(format!("a file cannot be called `{}`", heredoc.name), command.instruction.span);
            self.error(error.label("the delimiter of a heredoc is the name of its file").help("take another word: `<<EOF`"));
            return None;
        }
        let name = format!("{PIPES}/{}", heredoc.name);
        Some((self.in_shell(&name), vec![InlineFile { name, data }]))
    }

    fn mounts(&mut self, command: &Directed<'_>, run: &dockerfile::Run) -> Option<Vec<Mount>> {
        let mut complete = Vec::new();
        let mut sockets = 0;
        for (word, source) in run.mounts.iter().zip(&command.sources) {
            let mount = self.mount(command, word, source, sockets);
            sockets += usize::from(mount.as_ref().is_some_and(|mount| mount.kind == MountKind::Ssh));
            complete.push(mount);
        }
        complete.into_iter().collect()
    }

    fn mount(&mut self, command: &Directed<'_>, word: &Word, source: &Source, sockets: usize) -> Option<Mount> {
        let from = self.origin(command, source, Asker::Mount, word.span);
        let scope = &self.current.own.scope;
        let escape = self.evaluation.escape;
        let unset = RefCell::new(Vec::new());
        let expand = |text: &str| {
            let expanded = scope.expand(text, escape, Mode::default())?;
            unset.borrow_mut().extend(expanded.unset);
            Ok(expanded.text)
        };
        let dir = self.current.own.config.config.working_dir.clone();
        let namespace = self.evaluation.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS").map(String::as_str);
        let read = read_mount(&word.text, &expand);
        self.note_unset(unset.into_inner());
        let mount = read.and_then(|mount| match from {
            Some(from) => mounts::complete(&mount, Place { dir: &dir, from, namespace: namespace.unwrap_or_default(), sockets }).map(Some),
            None => Ok(None),
        });
        mount.unwrap_or_else(|wrong| {
            let span = wrong.field.as_deref().map_or(word.span, |field| word.span_of(field));
            let error = command.error(wrong.message, span).label("in this mount");
            self.error(Diagnostic { help: wrong.help, ..error });
            None
        })
    }

    fn network(&mut self, command: &Directed<'_>, word: Option<&Word>) -> Option<NetworkMode> {
        let Some(word) = word else { return Some(self.evaluation.request.network) };
        match word.text.as_str() {
            "default" => Some(self.evaluation.request.network),
            "none" => Some(NetworkMode::None),
            "host" => Some(NetworkMode::Host),
            other => {
                let error = command.error(format!("`{other}` is not a network mode"), word.span).label("not known");
                self.error(one_of(error, other, &["default", "none", "host"]));
                None
            }
        }
    }

    fn security(&mut self, command: &Directed<'_>, word: Option<&Word>) -> Option<Security> {
        let Some(word) = word else { return Some(Security::Sandbox) };
        match word.text.as_str() {
            "sandbox" => Some(Security::Sandbox),
            "insecure" => Some(Security::Insecure),
            other => {
                let error = command.error(format!("`{other}` is not a security mode"), word.span).label("not known");
                self.error(one_of(error, other, &["sandbox", "insecure"]));
                None
            }
        }
    }

    fn devices(&mut self, command: &Directed<'_>, words: &[Word]) -> Option<Vec<Device>> {
        let devices: Vec<_> = words.iter().map(|word| (word, device(&word.text))).collect();
        let mut read = Vec::new();
        for (word, device) in devices {
            match device {
                Ok(device) => read.push(device),
                Err(reason) => {
                    let error = command.error(format!("the device `{}` cannot be used", word.text), word.span).label(reason);
                    self.error(error.help("write `--device=vendor.com/class=name`, perhaps with `,required`"));
                }
            }
        }
        (read.len() == words.len()).then_some(read)
    }

    /// Proxies that come as build arguments reach every RUN, in both spellings, unless a variable says otherwise.
    fn proxy(&self) -> Vec<(String, String)> {
        let mut proxy = Vec::new();
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"] {
            let given = self.evaluation.request.build_args.iter().rfind(|(given, _)| given.eq_ignore_ascii_case(name));
            let Some((_, value)) = given.filter(|(_, value)| !value.is_empty()) else { continue };
            for spelling in [name.to_owned(), name.to_ascii_lowercase()] {
                if self.current.own.scope.value(&spelling).is_none() {
                    proxy.push((spelling, value.clone()));
                }
            }
        }
        proxy
    }
}

fn one_of(error: Diagnostic, word: &str, known: &[&str]) -> Diagnostic {
    match closest(word, known.iter().copied()) {
        Some(meant) => error.help(format!("did you mean `{meant}`?")),
        None => error.help(format!("one of `{}`", known.join("`, `"))),
    }
}

/// Is a line nothing but `<<WORD`?
fn is_heredoc_alone(text: &str) -> bool {
    let text = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let Some(word) = text.strip_prefix("<<") else { return false };
    let word = word.strip_prefix('-').unwrap_or(word).trim_start();
    let mode = Mode { skip_unset: true, ..Mode::default() };
    !word.is_empty() && !word.contains('<') && expand_words(word, '\\', mode, &|_| None).is_ok_and(|words| words.len() == 1)
}

/// `vendor.com/class=name[,required]`
fn device(text: &str) -> Result<Device, String> {
    let mut name: Option<&str> = None;
    let mut required = false;
    for field in text.split(',') {
        match field.split_once('=') {
            None if field.eq_ignore_ascii_case("required") => required = true,
            Some((key, value)) if key.eq_ignore_ascii_case("required") => {
                required = boolean(value).ok_or_else(|| format!("`required` is true or false, not `{value}`"))?;
            }
            Some((key, value)) if key.eq_ignore_ascii_case("name") && name.is_none() => name = Some(value),
            _ if name.is_none() => name = Some(field),
            _ => return Err(format!("`{field}` is one name too many")),
        }
    }
    match name.filter(|name| !name.is_empty()) {
        Some(name) => Ok(Device { name: name.to_owned(), required }),
        None => Err("it has no name".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_with_or_without_a_key() {
        let gpu = |required| Device { name: "vendor.com/gpu=0".into(), required };
        assert_eq!(device("vendor.com/gpu=0"), Ok(gpu(false)));
        assert_eq!(device("vendor.com/gpu=0,required"), Ok(gpu(true)));
        assert_eq!(device("required=1,name=vendor.com/gpu=0"), Ok(gpu(true)));
        for text in ["", "a,b", "required", "a,required=maybe"] {
            assert!(device(text).is_err(), "{text}");
        }
    }
}
