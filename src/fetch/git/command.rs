//! One run of `git`, which knows nothing of this machine but where its programs are.
//!
//! Addresses and headers go by the environment (`GIT_CONFIG_…`), so that they are no arguments: nothing in them can be an
//! option, and nobody reads them in a list of processes. Arguments are a list, never a shell's.
//!
//! Source: git(1), git-config(1), gitremote-helpers(7); `GIT_ALLOW_PROTOCOL` overrides every `protocol.*.allow`.

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use super::{
    super::{Asker, Error, Patience, Progress},
    access::Access,
};
use crate::{
    http::harmless,
    remote::{GitAddress, Transport},
    sys::PathError,
};

/// The most that is read of a run's output.
const MOST_OUTPUT: u64 = 256 << 20;
/// What is kept of what it says.
const KEPT_LINES: usize = 40;
/// Between two looks at whether it is still wanted.
const BEAT: Duration = Duration::from_millis(50);

/// What holds for every run, whatever the repository: no code, file or prompt of this machine is used.
const SETTINGS: [(&str, &str); 34] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.askPass", ""),
    ("core.autocrlf", "false"),
    ("core.eol", "lf"),
    ("core.symlinks", "true"),
    ("core.fileMode", "true"),
    ("core.logAllRefUpdates", "false"),
    ("core.pager", "cat"),
    ("credential.helper", ""),
    ("init.defaultBranch", "master"),
    ("init.templateDir", ""),
    ("advice.detachedHead", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.writeCommitGraph", "false"),
    ("protocol.allow", "never"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
    ("http.followRedirects", "initial"),
    ("safe.directory", "*"),
    ("fetch.fsckObjects", "true"),
    // Old repositories have these; none of them does harm.
    ("fetch.fsck.zeroPaddedFilemode", "ignore"),
    ("fetch.fsck.badTimezone", "ignore"),
    ("fetch.fsck.missingSpaceBeforeDate", "ignore"),
    ("fetch.fsck.missingEmail", "ignore"),
    ("fetch.fsck.badDate", "ignore"),
    ("fetch.fsck.badEmail", "ignore"),
    ("fetch.fsck.missingNameBeforeEmail", "ignore"),
];

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach<'a> {
    /// Only this machine: no protocol is allowed.
    Nowhere,
    /// The address, by its own protocol.
    Remote,
    /// A repository of the store, for a copy of it: it is the origin.
    Store(&'a Path),
}

/// A run that did not do what it should.
#[derive(Debug)]
pub(super) enum Failed {
    /// It ended badly, with these words.
    Said(String),
    /// It could not be run to its end.
    Other(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Git, ready to be run for one address.
#[derive(Debug)]
pub(super) struct Git<'a> {
    pub(super) address: &'a GitAddress,
    access: &'a Access,
    /// An empty place to be in.
    scratch: &'a Path,
    /// `GIT_DIR` and the like.
    places: Vec<(&'a str, OsString)>,
}

impl<'a> Git<'a> {
    /// Outside of any repository.
    pub(super) fn new(address: &'a GitAddress, access: &'a Access, scratch: &'a Path) -> Result<Self, Error> {
        check_address(address)?;
        Ok(Self { address, access, scratch, places: Vec::new() })
    }

    /// With one more of git's own variables.
    #[must_use]
    pub(super) fn with(&self, name: &'a str, value: impl Into<OsString>) -> Self {
        let mut places = self.places.clone();
        places.push((name, value.into()));
        Self { address: self.address, access: self.access, scratch: self.scratch, places }
    }

    /// Runs it; the result is its output.
    pub(super) fn run<S: AsRef<OsStr>>(&self, reach: Reach<'_>, args: &[S], asker: &mut Asker<'_>) -> Result<Vec<u8>, Failed> {
        asker.go_on()?;
        let cwd = self.scratch.join("cwd");
        match std::fs::create_dir(&cwd) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::from(PathError::new("create", cwd)(error)).into());
            }
            _ => {}
        }
        #[expect(clippy::disallowed_methods, reason = "this is where `fetch` starts processes")]
        let mut command = Command::new("git");
        let _: &mut Command = command
            .args(args)
            .current_dir(&cwd)
            .env_clear()
            .envs(self.environment(reach, asker))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its helpers are to end with it.
            .process_group(0);
        let child = command.spawn().map_err(|error| missing(&error))?;
        self.attend(child, asker)
    }

    /// As [`Git::run`]; that it ends badly is not expected, and its words are the error's.
    pub(super) fn must<S: AsRef<OsStr>>(&self, args: &[S], asker: &mut Asker<'_>) -> Result<Vec<u8>, Error> {
        self.run(Reach::Nowhere, args, asker).map_err(|failed| match failed {
            Failed::Other(error) => error,
            Failed::Said(words) => Error::Refused { what: self.address.to_string(), detail: words, help: None },
        })
    }

    fn environment(&self, reach: Reach<'_>, asker: &Asker<'_>) -> Vec<(OsString, OsString)> {
        let settings = asker.settings;
        let allowed = match reach {
            Reach::Nowhere => "",
            Reach::Remote => self.address.transport.word(),
            Reach::Store(_) => "file",
        };
        let mut all: Vec<(&str, OsString)> = vec![
            ("PATH", settings.path.clone()),
            ("LC_ALL", "C".into()),
            ("HOME", "/dev/null".into()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_CONFIG_SYSTEM", "/dev/null".into()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
            ("GIT_ATTR_NOSYSTEM", "1".into()),
            ("GIT_TERMINAL_PROMPT", "0".into()),
            ("GIT_ALLOW_PROTOCOL", if allowed.is_empty() { "none".into() } else { allowed.into() }),
            ("GIT_PROTOCOL_FROM_USER", "0".into()),
            ("GIT_NO_REPLACE_OBJECTS", "1".into()),
            ("GIT_NO_LAZY_FETCH", "1".into()),
            ("GIT_LITERAL_PATHSPECS", "1".into()),
            ("GIT_CEILING_DIRECTORIES", self.scratch.into()),
        ];
        if reach == Reach::Remote {
            all.extend(proxies(asker));
            if self.address.transport == Transport::Ssh {
                all.push(("GIT_SSH_COMMAND", ssh(asker)));
                all.push(("GIT_SSH_VARIANT", "ssh".into()));
                all.extend(settings.ssh.agent.iter().map(|agent| ("SSH_AUTH_SOCK", agent.into())));
            }
        }
        all.extend(self.places.iter().cloned());
        let mut all: Vec<(OsString, OsString)> = all.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let mut config: Vec<(String, OsString)> = SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        if let Reach::Store(path) = reach {
            config.push(("remote.origin.url".into(), path.into()));
        }
        if reach == Reach::Remote {
            config.push(("remote.origin.url".into(), self.address.url().into()));
            config.extend(self.access.config().map(|(key, value)| (key, value.into())));
        }
        all.push(("GIT_CONFIG_COUNT".into(), config.len().to_string().into()));
        for (number, (key, value)) in config.into_iter().enumerate() {
            all.push((format!("GIT_CONFIG_KEY_{number}").into(), key.into()));
            all.push((format!("GIT_CONFIG_VALUE_{number}").into(), value));
        }
        all
    }

    /// Waits for its end, and ends it when it is no longer wanted.
    fn attend(&self, mut child: Child, asker: &mut Asker<'_>) -> Result<Vec<u8>, Failed> {
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failed::Said("it has no output".to_owned()));
        };
        let (sender, lines) = mpsc::channel();
        let (output, status, words) = thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut bytes = Vec::new();
                let read = stdout.take(MOST_OUTPUT + 1).read_to_end(&mut bytes);
                read.map(|_length| bytes)
            });
            let _joined_by_the_scope = scope.spawn(move || listen(stderr, &sender));
            let mut words: Vec<String> = Vec::new();
            let mut patience = Patience::new();
            let mut last = String::new();
            loop {
                match lines.recv_timeout(BEAT) {
                    Ok((line, true)) => last = line,
                    Ok((line, false)) => {
                        words.push(line);
                        let excess = words.len().saturating_sub(KEPT_LINES);
                        drop(words.drain(..excess));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if (asker.cancelled)() {
                    end(&child);
                }
                if patience.is_due() {
                    let text = format!("fetching {} {}", self.address, harmless(&last));
                    (asker.progress)(Progress::Note(text.trim_end().to_owned()));
                }
            }
            (reader.join(), child.wait(), words)
        });
        asker.go_on()?;
        let output = output.ok().and_then(Result::ok).filter(|bytes| bytes.len() as u64 <= MOST_OUTPUT);
        let status = status.map_err(|error| Error::from(PathError::new("wait for", "git")(error)))?;
        match output {
            Some(output) if status.success() => Ok(output),
            Some(_) => Err(Failed::Said(self.shown(&words, &status.to_string()))),
            None => Err(Failed::Said("git says more than can be read".to_owned())),
        }
    }

    /// What it said, without what is nobody's business.
    fn shown(&self, words: &[String], status: &str) -> String {
        let telling: Vec<&String> = words.iter().filter(|line| !line.starts_with("hint:") && !line.trim().is_empty()).collect();
        let telling: Vec<&str> = telling.iter().rev().take(6).rev().map(|line| line.as_str()).collect();
        let text = if telling.is_empty() { format!("git ended with {status}") } else { telling.join("; ") };
        let secret = self.address.url().split_once("://").and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'));
        let text = match secret.filter(|(userinfo, _)| userinfo.contains(':') || self.address.transport != Transport::Ssh) {
            Some((userinfo, _)) => text.replace(userinfo, "…"),
            None => text,
        };
        harmless(&text)
    }
}

/// Reads what is said, line by line; `true`: it is progress, which ends with a carriage return.
fn listen(stderr: impl Read, to: &Sender<(String, bool)>) {
    let mut reader = BufReader::new(stderr.take(MOST_OUTPUT));
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(64 * 1024).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let last = text.trim_end().rsplit('\r').next().unwrap_or_default().trim().to_owned();
        let progress = ["remote: Counting", "remote: Compressing", "Receiving objects", "Resolving deltas", "Unpacking objects"];
        let is_progress = progress.iter().any(|word| last.starts_with(word)) || last.contains('%');
        if to.send((last, is_progress)).is_err() {
            return;
        }
    }
}

/// Ends git and its helpers.
fn end(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself.
        let _gone = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

fn missing(error: &io::Error) -> Failed {
    let found = error.kind() != io::ErrorKind::NotFound;
    let detail =
        if found { format!("cannot be run: {error}") } else { "is not installed, and a git repository is fetched with it".to_owned() };
    Error::Program { program: "git", detail, help: Some("install the package `git`".to_owned()) }.into()
}

/// What may be an option where it should be a name.
fn check_address(address: &GitAddress) -> Result<(), Error> {
    let refused = |detail: &str| Err(Error::Refused { what: address.to_string(), detail: detail.to_owned(), help: None });
    let url = address.url();
    let (authority, path) = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/').unwrap_or((rest, "")),
        None => url.split_once(':').unwrap_or((url, "")),
    };
    if authority.is_empty() || path.is_empty() {
        return refused("it names no repository");
    }
    // CVE-2017-1000117: a host, a user or a path that ssh takes for an option.
    let parts = authority.split('@').chain([path]);
    if parts.into_iter().any(|part| part.starts_with('-') || part.starts_with("%2d") || part.starts_with("%2D")) {
        return refused("a part of it begins with `-`");
    }
    if url.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') || url.contains("::") && !url.contains("://[") {
        return refused("it has characters that no address has");
    }
    Ok(())
}

fn proxies(asker: &Asker<'_>) -> Vec<(&'static str, OsString)> {
    let proxies = &asker.settings.proxies;
    let mut all = Vec::new();
    all.extend(proxies.http.as_ref().map(|url| ("http_proxy", url.into())));
    all.extend(proxies.https.as_ref().map(|url| ("https_proxy", url.into())));
    // Loopback hosts are always reached directly.
    let mut none: Vec<&str> = vec!["localhost", "127.0.0.1", "::1"];
    none.extend(proxies.none_for.iter().map(String::as_str));
    all.push(("no_proxy", none.join(",").into()));
    all
}

/// The user's configuration of ssh is not read: it may start programs.
fn ssh(asker: &Asker<'_>) -> OsString {
    let mut command =
        OsString::from("ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=30 -o ForwardAgent=no");
    if let Some(file) = asker.settings.ssh.known_hosts.as_deref().and_then(quoted) {
        command.push(" -o ");
        command.push(file);
    }
    command
}

/// An option with a path, quoted for ssh and around it for the shell that git starts ssh with.
fn quoted(file: &Path) -> Option<String> {
    let text = file.to_str().filter(|text| !text.contains(['"', '\\']) && !text.chars().any(char::is_control))?;
    Some(format!("'UserKnownHostsFile=\"{}\"'", text.replace('%', "%%").replace('\'', "'\\''")))
}
