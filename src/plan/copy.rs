//! COPY and ADD.
//!
//! Source: BuildKit `dockerfile2llb/convert_copy.go`, `instructions/commands.go`.

use std::collections::BTreeMap;

use super::{
    Action, Chmod, Copy, CopySource, InlineFile, Origin, chmod,
    evaluate::Evaluator,
    graph::{Directed, Source},
    lookup::Asker,
    paths,
    report::Reported,
};
use crate::{
    diag::Span,
    dockerfile::{self, Add, Escape, Heredoc, Mode, Word},
    oci::Digest,
    remote::Remote,
};

impl Evaluator<'_, '_> {
    /// COPY, or ADD with what only ADD has.
    pub(super) fn copy(&mut self, command: &Directed<'_>, copy: &dockerfile::Copy, add: Option<&Add>) {
        // Each part reports its own errors; only then is it known whether there is a step.
        let chown = self.expand_flag(command, copy.chown.as_ref());
        let mode = self.expand_flag(command, copy.chmod.as_ref());
        let bits = mode.as_ref().map_err(|reported| *reported).and_then(|mode| self.chmod(command, copy, mode.as_deref()));
        let checksum = add.map_or(Ok(None), |add| self.expand_flag(command, add.checksum.as_ref()));
        let sources = self.sources(command, copy, add, checksum.as_ref().ok().and_then(Option::as_deref));
        let dest = self.expand(command, &copy.dest);
        let from = self.copy_origin(command, copy);
        let (Ok(chown), Ok(mode), Ok(bits), Ok(_), Some(sources), Some(dest), Some(from)) =
            (chown, mode, bits, checksum, sources, dest, from)
        else {
            return;
        };
        let target = paths::destination(&self.current.own.config.config.working_dir, &dest);
        let local = sources.iter().filter(|(source, _)| matches!(source, CopySource::Path(_))).map(|(_, text)| text.as_str());
        self.note_values(std::iter::once(target.as_str()).chain(local));
        let parents = flag(copy.parents);
        let history =
            Line { add: add.is_some(), parents, chown: chown.as_deref(), chmod: mode.as_deref(), sources: &sources, dest: &dest }.written();
        let action = Copy {
            add: add.is_some(),
            sources: sources.into_iter().map(|(source, _)| source).collect(),
            dest: target,
            from,
            chown,
            link: flag(copy.link) && bits.is_none(),
            chmod: bits,
            parents,
            exclude: copy.exclude.iter().map(|pattern| pattern.text.clone()).collect(),
            unpack: add.and_then(|add| add.unpack).map(|(unpack, _)| unpack),
        };
        self.step(command, Action::Copy(action), history, parts(copy));
    }

    fn copy_origin(&mut self, command: &Directed<'_>, copy: &dockerfile::Copy) -> Option<Origin> {
        let source = command.sources.first().unwrap_or(&Source::Unnamed);
        let span = copy.from.as_ref().map_or(command.instruction.span, |from| from.span);
        self.origin(command, source, Asker::Copy, span)
    }

    fn chmod(&mut self, command: &Directed<'_>, copy: &dockerfile::Copy, mode: Option<&str>) -> Result<Option<Chmod>, Reported> {
        let (Some(text), Some(word)) = (mode, &copy.chmod) else { return Ok(None) };
        match chmod::parse(text) {
            Ok(bits) => Ok(Some(bits)),
            Err(reason) => {
                let error = command.error(format!("invalid chmod parameter `{text}`"), word.span).label(reason);
                self.error(error.help("write octal digits, `--chmod=0644`, or a change, `--chmod=u=rwX,go=rX`"));
                Err(Reported)
            }
        }
    }

    /// The sources with their text for the history, paths before heredocs.
    fn sources(
        &mut self,
        command: &Directed<'_>,
        copy: &dockerfile::Copy,
        add: Option<&Add>,
        checksum: Option<&str>,
    ) -> Option<Vec<(CopySource, String)>> {
        let (mut paths, mut inline) = (Vec::new(), Vec::new());
        for source in &copy.sources {
            match source {
                dockerfile::CopySource::Path(word) => paths.push(self.source(command, copy, add, word)),
                dockerfile::CopySource::Inline(heredoc) => inline.push(self.inline(command, heredoc)),
            }
        }
        let paths: Option<Vec<_>> = paths.into_iter().collect();
        let inline: Option<Vec<_>> = inline.into_iter().collect();
        let mut paths = paths?;
        if let (Some(word), Some(checksum)) = (add.and_then(|add| add.checksum.as_ref()), checksum) {
            self.checksum(command, word, checksum, &mut paths)?;
        }
        paths.extend(inline?);
        Some(paths)
    }

    fn source(&mut self, command: &Directed<'_>, copy: &dockerfile::Copy, add: Option<&Add>, word: &Word) -> Option<(CopySource, String)> {
        let text = self.expand(command, word)?;
        let remote = match Remote::of_source(&text) {
            Ok(remote) => remote,
            Err(reason) => {
                self.error(command.error("the git URL cannot be used", word.span).label(reason.to_string()));
                return None;
            }
        };
        let source = match (remote, add) {
            (Remote::Local, _) => CopySource::Path(if flag(copy.parents) { text.clone() } else { paths::rooted(&text) }),
            (Remote::Http(_) | Remote::Git(_), None) => {
                let error = command.error("COPY does not take a URL", word.span).label("would have to be fetched");
                self.error(error.help("use ADD"));
                return None;
            }
            (Remote::Http(url), Some(_)) => CopySource::Http { url, checksum: None },
            (Remote::Git(address), Some(add)) => {
                let flag = add.keep_git_dir.map(|(keep, _)| keep);
                if let (Some(flag), Some(asked)) = (flag, address.keep_git_dir)
                    && flag != asked
                {
                    let error = command.error("`--keep-git-dir` and the URL's `keep-git-dir` contradict each other", word.span);
                    self.error(error.label("says the opposite").help("remove one of the two"));
                    return None;
                }
                CopySource::Git(address.with_git_dir(flag))
            }
        };
        Some((source, text))
    }

    /// `--checksum` is for one source that is fetched.
    fn checksum(&mut self, command: &Directed<'_>, word: &Word, wanted: &str, sources: &mut [(CopySource, String)]) -> Option<()> {
        let problem = match sources {
            [(CopySource::Http { checksum, .. }, _)] => match wanted.parse::<Digest>() {
                Ok(digest) => {
                    *checksum = Some(digest);
                    return Some(());
                }
                Err(error) => error.to_string(),
            },
            [(CopySource::Git(address), _)] => match &mut address.checksum {
                Some(asked) if asked != wanted => format!("the URL asks for `{asked}`"),
                checksum => {
                    *checksum = Some(wanted.to_owned());
                    return Some(());
                }
            },
            [_] => "only what is fetched over http or git has one".to_owned(),
            _ => "it holds for one source, not for several".to_owned(),
        };
        let help = match sources {
            [(CopySource::Http { .. }, _)] => "give the 64 digits that `sha256sum` prints for the file: `--checksum=sha256:…`",
            [(CopySource::Git(_), _)] => "remove one of the two",
            [_] => "leave `--checksum` out: the file is in the context, and its digest in the step's key",
            _ => "write an ADD of its own for each",
        };
        self.error(command.error(format!("the checksum `{wanted}` cannot be used"), word.span).label(problem).help(help));
        None
    }

    fn inline(&mut self, command: &Directed<'_>, heredoc: &Heredoc) -> Option<(CopySource, String)> {
        if !is_plain_name(&heredoc.name) {
            let error = command.error(format!("a file cannot be called `{}`", heredoc.name), command.instruction.span);
            self.error(
                error
                    .label("the delimiter of a heredoc is the name of its file")
                    .help("take a plain name, and put the directory into the destination"),
            );
            return None;
        }
        let body = if heredoc.chomp { chomp(&heredoc.content) } else { heredoc.content.clone() };
        let data = if heredoc.expand {
            let mode = Mode { skip_quotes: true, ..Mode::default() };
            match self.current.own.scope.expand(&body, Escape::default(), mode) {
                Ok(expanded) => {
                    self.note_unset(expanded.unset);
                    expanded.text
                }
                Err(message) => {
                    self.cannot_expand(command, &Word { text: body, span: heredoc.span }, message);
                    return None;
                }
            }
        } else {
            body
        };
        let text = format!("<<{}", heredoc.name);
        Some((CopySource::Inline(InlineFile { name: heredoc.name.clone(), data }), text))
    }
}

/// What a line of history says.
struct Line<'a> {
    add: bool,
    parents: bool,
    chown: Option<&'a str>,
    chmod: Option<&'a str>,
    sources: &'a [(CopySource, String)],
    dest: &'a str,
}

impl Line<'_> {
    fn written(&self) -> String {
        let mut line = String::from(if self.add { "ADD" } else { "COPY" });
        if self.parents {
            line.push_str(" --parents");
        }
        for (name, value) in [(" --chown=", self.chown), (" --chmod=", self.chmod)] {
            line.extend(value.into_iter().flat_map(|value| [name, value]));
        }
        for (_, text) in self.sources {
            line.extend([" ", text]);
        }
        line.extend([" ", self.dest, " # buildkit"]);
        line
    }
}

/// Where the parts stand; the order of sources is that of the plan.
fn parts(copy: &dockerfile::Copy) -> BTreeMap<String, Span> {
    let (mut paths, mut inline) = (Vec::new(), Vec::new());
    for source in &copy.sources {
        match source {
            dockerfile::CopySource::Path(word) => paths.push(word.span),
            dockerfile::CopySource::Inline(heredoc) => inline.push(heredoc.span),
        }
    }
    let sources = paths.into_iter().chain(inline).enumerate().map(|(index, span)| (format!("source {index}"), span));
    let flags = [("from", &copy.from), ("chown", &copy.chown), ("chmod", &copy.chmod)];
    let flags = flags.into_iter().filter_map(|(name, word)| Some((name.to_owned(), word.as_ref()?.span)));
    sources.chain(flags).chain([("dest".to_owned(), copy.dest.span)]).collect()
}

fn flag(flag: Option<(bool, Span)>) -> bool {
    flag.is_some_and(|(on, _)| on)
}

/// Is it the name of one file in a directory?
pub(super) fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// What `<<-` leaves of a body: no tabs at the start of a line.
pub(super) fn chomp(body: &str) -> String {
    body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
