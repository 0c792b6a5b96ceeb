//! `lapstrake build`: what was written, as what it means.

use std::{
    collections::BTreeMap,
    num::NonZero,
    path::{Path, PathBuf},
};

use super::{
    args::Build,
    cache_spec, limits_spec, output_spec, ssh_spec,
    surroundings::{Surroundings, stdin, variable, whole},
};
use crate::{
    error::{Error, Kind},
    front::{ContextFrom, DockerfileFrom, NamedContext, Request, Secret, Sent, Sink, SinkKind},
    oci::{Platform, Reference},
    plan::{self, NetworkMode},
    remote::Remote,
};

/// The build.
pub(super) fn of(args: &Build, around: &Surroundings) -> Result<Request, Error> {
    let mut no_cache = args.no_cache_filter.clone();
    if args.no_cache {
        no_cache.push(String::new());
    }
    attestations(args)?;
    let contexts = args.build_contexts.iter().map(|text| named_context(text)).collect::<Result<BTreeMap<_, _>, _>>()?;
    let plan = plan_request(args, &contexts)?;
    Ok(Request {
        limits: limits_spec::limits(args)?,
        allowed: limits_spec::allowed(args, plan.network)?,
        plan,
        contexts,
        secrets: args.secrets.iter().map(|text| secret(text)).collect::<Result<_, _>>()?,
        agents: ssh_spec::agents(&args.ssh)?,
        no_cache,
        cache_from: args.cache_from.iter().map(|text| cache_spec::from(text)).collect::<Result<_, _>>()?,
        cache_to: args.cache_to.iter().map(|text| cache_spec::to(text)).collect::<Result<_, _>>()?,
        pull: args.pull,
        hosts: args.add_hosts.iter().map(|text| host(text)).collect::<Result<_, _>>()?,
        max_steps: args.max_steps.into(),
        jobs: args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get),
        phases: around.log.has_phases(),
        driver: around.driver.0,
        snapshots: around.driver.1,
        tags: args.tags.iter().map(|text| name(text)).collect::<Result<_, _>>()?,
        outputs: outputs(args)?,
    })
}

fn usage(text: impl Into<String>) -> Error {
    Error::new(Kind::Usage, text)
}

fn name(text: &str) -> Result<Reference, Error> {
    text.parse().map_err(|error: crate::oci::BadReference| usage(error.to_string()))
}

/// Where the Dockerfile and the context are.
pub(super) struct Inputs {
    pub(super) dockerfile: DockerfileFrom,
    pub(super) context: ContextFrom,
}

/// Looks at the command line and, if it is named there, at the beginning of standard input.
pub(super) fn inputs(args: &Build) -> Result<Inputs, Error> {
    let Some(context) = args.context.as_deref() else { return Err(no_context(args)) };
    let from_stdin = args.file.as_deref() == Some(Path::new("-"));
    if context == "-" {
        return if from_stdin { Err(usage("standard input cannot be the Dockerfile and the context at once")) } else { sent(args) };
    }
    // A directory of that name is a directory, as in Docker.
    let dir = PathBuf::from(context);
    let from = if dir.is_dir() { ContextFrom::Directory(dir) } else { far(context)?.unwrap_or(ContextFrom::Directory(dir)) };
    let local = matches!(from, ContextFrom::Directory(_));
    let dockerfile = match &args.file {
        None => DockerfileFrom::Usual,
        Some(_) if from_stdin => DockerfileFrom::Text(stdin()?),
        Some(path) if local || path.is_absolute() => DockerfileFrom::File(named_file(path)?),
        Some(path) => DockerfileFrom::Inside(inside(path)?),
    };
    Ok(Inputs { dockerfile, context: from })
}

/// A context that is fetched. `None`: it can only be a directory's name.
fn far(context: &str) -> Result<Option<ContextFrom>, Error> {
    match Remote::of_context(context).map_err(|error| usage(format!("the git address of the context cannot be used: {error}")))? {
        Remote::Http(address) => Ok(Some(ContextFrom::Http(address))),
        Remote::Git(address) => Ok(Some(ContextFrom::Git(address))),
        Remote::Local => match context.split_once("://") {
            Some((scheme, _)) => Err(unknown_scheme(scheme)),
            None => Ok(None),
        },
    }
}

fn unknown_scheme(scheme: &str) -> Error {
    usage(format!("no context can be fetched by `{}://`", scheme.escape_debug()))
        .help("a context is a directory, `-`, an http or https URL, or a git address (git://, ssh://, git@HOST:PATH, https://….git)")
}

/// A Dockerfile of the user's own; nothing is downloaded for it.
fn named_file(path: &Path) -> Result<PathBuf, Error> {
    let far = path.to_str().is_some_and(|text| text.starts_with("http://") || text.starts_with("https://"));
    if far {
        return Err(usage("`-f` names a file, and this is a URL").help("download it: `curl -fsS URL | lapstrake build -f - CONTEXT`"));
    }
    Ok(path.to_owned())
}

/// The classic mistake: `build -t name:tag` without the dot.
fn no_context(args: &Build) -> Error {
    let mut line = String::from("lapstrake build");
    for tag in &args.tags {
        line.push_str(" -t ");
        line.push_str(tag);
    }
    usage("the build has no context").help(format!("name the directory to build from; for the one you are in, type `{line} .`"))
}

/// Standard input is the context, or a Dockerfile without one.
fn sent(args: &Build) -> Result<Inputs, Error> {
    let unreadable = |error: std::io::Error| Error::new(Kind::Environment, "cannot read standard input").because(&error);
    match Sent::of(std::io::stdin()).map_err(unreadable)? {
        Sent::Archive(stream) => {
            let dockerfile = match &args.file {
                None => DockerfileFrom::Usual,
                Some(path) => DockerfileFrom::Inside(inside(path)?),
            };
            Ok(Inputs { dockerfile, context: ContextFrom::Archive(stream) })
        }
        Sent::Other(_) if args.file.is_some() => Err(usage("standard input is a Dockerfile, and `-f` names another one")
            .help("leave `-f` out, or send a tar archive, in which `-f` names a file")),
        Sent::Other(stream) => Ok(Inputs { dockerfile: DockerfileFrom::Text(whole(stream)?), context: ContextFrom::Nowhere }),
        Sent::Nothing => Err(usage("standard input is empty").help("send a Dockerfile or a tar archive: `tar -c . | lapstrake build -`")),
    }
}

/// A path in a context that is no directory.
fn inside(path: &Path) -> Result<String, Error> {
    let text = path.to_str().ok_or_else(|| usage(format!("`{}` is not UTF-8", path.display())))?;
    Ok(text.to_owned())
}

fn plan_request(args: &Build, contexts: &BTreeMap<String, NamedContext>) -> Result<plan::Request, Error> {
    let platform = match args.platform.as_slice() {
        [] => None,
        [one] if !one.contains(',') => {
            Some(one.parse::<Platform>().map_err(|error| usage(error.to_string()).help("write it like `linux/amd64` or `linux/arm/v7`"))?)
        }
        _ => return Err(usage("one platform is built at a time").help("build each platform by itself")),
    };
    let network = match args.network.as_str() {
        "default" => NetworkMode::Default,
        "host" => NetworkMode::Host,
        "none" => NetworkMode::None,
        other => return Err(usage(format!("`{other}` is no network")).help("it is `default`, `host` or `none`")),
    };
    let mut build_args = BTreeMap::new();
    for text in &args.build_args {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text.as_str(), variable(text).and_then(|value| value.into_string().ok())),
        };
        if key.is_empty() {
            return Err(usage(format!("`--build-arg {text}` has no name")));
        }
        if let Some(value) = value {
            drop(build_args.insert(key.to_owned(), value));
        }
    }
    if let Some(epoch) = &args.source_date_epoch {
        if epoch != "context" && epoch.parse::<i64>().is_err() {
            return Err(usage(format!("`{epoch}` in --source-date-epoch is neither a number nor `context`")));
        }
        if build_args.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.clone()).is_some_and(|given| given != *epoch) {
            return Err(usage("--source-date-epoch and the build argument SOURCE_DATE_EPOCH contradict each other"));
        }
    }
    let mut labels = BTreeMap::new();
    for text in &args.labels {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        drop(labels.insert(key.to_owned(), value.to_owned()));
    }
    Ok(plan::Request { target: args.target.clone(), build_args, labels, platform, contexts: contexts.keys().cloned().collect(), network })
}

fn named_context(text: &str) -> Result<(String, NamedContext), Error> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, value)| !key.is_empty() && !value.is_empty())
        .ok_or_else(|| usage(format!("`--build-context {text}` is not of the form NAME=VALUE")))?;
    if ["scratch", "context"].iter().any(|reserved| key.eq_ignore_ascii_case(reserved)) {
        return Err(usage(format!("no context can be called `{key}`: the name has a meaning already")));
    }
    let context = if let Some(reference) = value.strip_prefix("docker-image://") {
        if reference == "scratch" { NamedContext::Scratch } else { NamedContext::Image(name(reference)?) }
    } else if let Some(rest) = value.strip_prefix("oci-layout://") {
        // A path may have an `@` in it, a digest has none.
        let (path, selector) = match rest.rsplit_once('@') {
            Some((path, digest)) if digest.contains(':') && !digest.contains('/') => (path, Some(digest)),
            Some(_) | None => match rest.rsplit_once(':') {
                Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
                _ => (rest, None),
            },
        };
        NamedContext::Layout(PathBuf::from(path), selector.map(str::to_owned))
    } else {
        match Remote::of_source(value).map_err(|error| usage(format!("the git address of the context `{key}` cannot be used: {error}")))? {
            Remote::Http(address) => NamedContext::Http(address),
            Remote::Git(address) => NamedContext::Git(address),
            Remote::Local => match value.split_once("://") {
                Some((scheme, _)) => return Err(unknown_scheme(scheme)),
                None => NamedContext::Directory(PathBuf::from(value)),
            },
        }
    };
    Ok((key.to_owned(), context))
}

fn secret(text: &str) -> Result<(String, Secret), Error> {
    let (mut id, mut file, mut env, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| usage(format!("`{field}` in --secret is not of the form key=value")))?;
        match key.to_ascii_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(value.to_owned()),
            "env" => env = Some(value.to_owned()),
            "type" => kind = Some(value.to_owned()),
            other => {
                return Err(usage(format!("`{other}` in --secret has no meaning")).help("the form is `id=ID[,src=PATH|,env=VARIABLE]`"));
            }
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| usage("--secret needs `id=`"))?;
    let secret = match (kind.as_deref(), file, env) {
        (Some("env"), Some(name), None) | (None | Some("env"), None, Some(name)) => of_variable(&id, &name)?,
        (None | Some("file"), Some(path), None) => Secret::File(PathBuf::from(path)),
        (None, None, None) => {
            variable(&id).map_or_else(|| Secret::File(PathBuf::from(&id)), |value| Secret::Value(value.into_encoded_bytes()))
        }
        _ => return Err(usage(format!("`--secret {id}` names a file and a variable, or a type that is neither"))),
    };
    Ok((id, secret))
}

fn of_variable(id: &str, name: &str) -> Result<Secret, Error> {
    let value = variable(name).ok_or_else(|| usage(format!("the variable `{name}` of the secret `{id}` is not set")))?;
    Ok(Secret::Value(value.into_encoded_bytes()))
}

/// `NAME:IP` or `NAME=IP` as a line of /etc/hosts.
fn host(text: &str) -> Result<String, Error> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| usage(format!("`--add-host {text}` is not of the form NAME:IP")))?;
    let address: std::net::IpAddr =
        address.trim_matches(['[', ']']).parse().map_err(|_no_address| usage(format!("`{address}` in --add-host is no IP address")))?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(usage(format!("`{name}` in --add-host is no host name")));
    }
    Ok(format!("{address}\t{name}"))
}

fn attestations(args: &Build) -> Result<(), Error> {
    for (flag, value) in [("--provenance", &args.provenance), ("--sbom", &args.sbom)] {
        if value.as_deref().is_some_and(|value| !matches!(value, "false" | "0")) {
            return Err(Error::new(Kind::Request, format!("lapstrake cannot make attestations: `{flag}` can only be false"))
                .help(format!("leave `{flag}` out")));
        }
    }
    Ok(())
}

fn outputs(args: &Build) -> Result<Vec<Sink>, Error> {
    let mut sinks = Vec::new();
    for text in &args.outputs {
        sinks.extend(output_spec::parse(text)?);
    }
    if args.push {
        sinks.push(Sink::plain(SinkKind::Registry));
    }
    if args.load {
        sinks.push(Sink::plain(SinkKind::Store));
    }
    let to_stdout = sinks.iter().filter(|sink| sink.writes_to_stdout()).count();
    if to_stdout > 0 && args.quiet {
        return Err(usage("`-q` prints the image's id to standard output, and an output goes there too").help("leave one of them out"));
    }
    if to_stdout > 1 {
        return Err(usage("two outputs go to standard output"));
    }
    Ok(sinks)
}
