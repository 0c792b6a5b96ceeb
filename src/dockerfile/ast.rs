//! The tree of a Dockerfile, as it was written.

use std::time::Duration;

use crate::diag::Span;

/// A piece of text with its place. Quotes and variables are still in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    /// The text, continuation lines joined.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

impl Word {
    /// Where a part of the text stands; the whole word's place where that cannot be told.
    pub fn span_of(&self, part: &str) -> Span {
        let is_verbatim = (self.span.end - self.span.start) as usize == self.text.len();
        let mut found = self.text.match_indices(part);
        match (found.next(), found.next()) {
            (Some((at, _)), None) if is_verbatim && !part.is_empty() => {
                let start = self.span.start as usize + at;
                Span::new(start, start + part.len())
            }
            _ => self.span,
        }
    }
}

/// A whole file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dockerfile {
    /// The leading parser directives.
    pub directives: Vec<Directive>,
    /// The escape character, `\` or `` ` ``.
    pub escape: Escape,
    /// ARG instructions before the first FROM.
    pub meta_args: Vec<Instruction>,
    /// The stages in order.
    pub stages: Vec<Stage>,
}

/// The escape character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escape(pub char);

impl Default for Escape {
    fn default() -> Self {
        Self('\\')
    }
}

/// `# name=value` at the head of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Lower-cased.
    pub name: String,
    /// As written.
    pub value: Word,
    /// 1-based physical line.
    pub line: u32,
}

/// FROM and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The image or stage it starts from, unexpanded.
    pub base: Word,
    /// The name after AS; `text` is lower-cased.
    pub name: Option<Word>,
    /// `--platform`, unexpanded.
    pub platform: Option<Word>,
    /// The doc comment above.
    pub doc: Option<String>,
    /// The comment lines above it, as of an [`Instruction`].
    pub comments: Vec<String>,
    /// The whole FROM instruction.
    pub span: Span,
    /// First and last physical line of the FROM instruction.
    pub lines: (u32, u32),
    /// The FROM instruction as one logical line.
    pub original: String,
    /// What follows, in order.
    pub commands: Vec<Instruction>,
}

/// One instruction with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// What it says.
    pub command: Command,
    /// From the keyword to the last byte, heredoc bodies included.
    pub span: Span,
    /// The keyword as written.
    pub keyword: Word,
    /// First and last physical line, 1-based, heredoc bodies included.
    pub lines: (u32, u32),
    /// The logical line, continuations joined, heredoc bodies not included.
    pub original: String,
    /// The comment lines above it, without `#` and without the blanks around; a bare `#` drops what stands above it.
    pub comments: Vec<String>,
}

/// The instructions inside a stage (FROM is [`Stage`]).
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// RUN
    Run(Run),
    /// COPY
    Copy(Copy),
    /// ADD
    Add(Add),
    /// ENV
    Env(Vec<KeyValue>),
    /// LABEL
    Label(Vec<KeyValue>),
    /// ARG
    Arg(Vec<ArgDeclaration>),
    /// CMD
    Cmd(CommandLine),
    /// ENTRYPOINT
    Entrypoint(CommandLine),
    /// EXPOSE, unexpanded ports
    Expose(Vec<Word>),
    /// HEALTHCHECK
    Healthcheck(Healthcheck),
    /// MAINTAINER
    Maintainer(Word),
    /// ONBUILD with the text after it; nothing inside is decoded
    Onbuild(Word),
    /// SHELL
    Shell(Vec<String>),
    /// STOPSIGNAL
    Stopsignal(Word),
    /// USER
    User(Word),
    /// VOLUME
    Volume(Vec<Word>),
    /// WORKDIR
    Workdir(Word),
}

impl Command {
    /// The command line of RUN, CMD and ENTRYPOINT.
    pub fn line(&self) -> Option<&CommandLine> {
        if let Self::Run(run) = self {
            Some(&run.line)
        } else if let Self::Cmd(line) | Self::Entrypoint(line) = self {
            Some(line)
        } else {
            None
        }
    }

    /// What COPY and ADD share.
    pub fn copied(&self) -> Option<&Copy> {
        if let Self::Copy(copy) | Self::Add(Add { copy, .. }) = self { Some(copy) } else { None }
    }
}

/// `key=value` with quotes and variables still in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Word,
    /// The value.
    pub value: Word,
    /// Written in the old form `ENV key value`.
    pub no_delim: bool,
}

/// One declaration of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// The key.
    pub key: Word,
    /// The default; `None` without `=`.
    pub value: Option<Word>,
    /// The doc comment above.
    pub doc: Option<String>,
}

/// Shell or exec form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// One string for the shell, continuation lines joined.
    Shell(Word),
    /// The JSON array's elements.
    Exec(Vec<String>, Span),
}

/// A heredoc of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter.
    pub name: String,
    /// Is the body expanded? False when the delimiter is quoted.
    pub expand: bool,
    /// `<<-`: leading tabs are stripped.
    pub chomp: bool,
    /// The file descriptor before `<<`, 0 if none.
    pub fd: u32,
    /// The body with its line feeds. Of RUN: as written, `<<-` strips it when it runs ([`super::without_tabs`]); of COPY and
    /// ADD: already stripped.
    pub content: String,
    /// The body's place.
    pub span: Span,
}

/// RUN.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What to run. With heredocs in the shell form, the line that holds the `<<` words.
    pub line: CommandLine,
    /// Its heredocs.
    pub heredocs: Vec<Heredoc>,
    /// `--mount` values as written, unexpanded, in order.
    pub mounts: Vec<Word>,
    /// `--network`
    pub network: Option<Word>,
    /// `--security`
    pub security: Option<Word>,
    /// `--device` values
    pub devices: Vec<Word>,
    /// The distinct flag names, sorted.
    pub flags_used: Vec<String>,
}

/// A source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, pattern or URL, unexpanded.
    Path(Word),
    /// A heredoc: the file's name is the delimiter.
    Inline(Heredoc),
}

/// COPY, and what ADD shares with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Copy {
    /// In the order written.
    pub sources: Vec<CopySource>,
    /// The destination, unexpanded.
    pub dest: Word,
    /// `--from`
    pub from: Option<Word>,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--link`
    pub link: Option<(bool, Span)>,
    /// `--parents`
    pub parents: Option<(bool, Span)>,
    /// `--exclude`, in order
    pub exclude: Vec<Word>,
}

/// ADD.
#[derive(Debug, Clone, PartialEq)]
pub struct Add {
    /// What it shares with COPY; `from` and `parents` are unset.
    pub copy: Copy,
    /// `--checksum`
    pub checksum: Option<Word>,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<(bool, Span)>,
    /// `--unpack`
    pub unpack: Option<(bool, Span)>,
}

/// HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// `--interval`
    pub interval: Duration,
    /// `--timeout`
    pub timeout: Duration,
    /// `--start-period`
    pub start_period: Duration,
    /// `--start-interval`
    pub start_interval: Duration,
    /// `--retries`
    pub retries: i64,
}

/// A `--mount` after expansion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// bind, cache, tmpfs, secret or ssh.
    pub kind: MountKind,
    /// Where it appears.
    pub target: Option<String>,
    /// Below `from`'s root.
    pub source: Option<String>,
    /// A stage, context or image; empty: the context.
    pub from: Option<String>,
    /// The id of a cache, secret or socket.
    pub id: Option<String>,
    /// How concurrent builds share a cache.
    pub sharing: Option<Sharing>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u64>,
    /// Group.
    pub gid: Option<u64>,
    /// Must it be there?
    pub required: bool,
    /// What holds, not what is written.
    pub readonly: bool,
    /// tmpfs, in bytes.
    pub size: Option<i64>,
    /// The variable that a secret appears in.
    pub env: Option<String>,
}

/// The kinds of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// `type=bind`, the default.
    Bind,
    /// `type=cache`
    Cache,
    /// `type=tmpfs`
    Tmpfs,
    /// `type=secret`
    Secret,
    /// `type=ssh`
    Ssh,
}

/// How concurrent builds share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// All at once.
    Shared,
    /// Each its own.
    Private,
    /// One after the other.
    Locked,
}
