//! `lapstrake build`.

use std::io::{self, Write as _};

use super::{
    Failure,
    args::{Build, ProgressForm},
    call::Call,
    ledger::Ledger,
    limits_spec,
    progress::{Form, Progress, visible},
    report, request,
    surroundings::Surroundings,
    timings,
};
use crate::{
    diag::Source,
    engine::{
        Event,
        timing::{By, Laps},
    },
    error::{Error, Kind},
    front::{self, Built, Cancel, Context, Session},
    image::Image,
    store::Store,
    sys,
};

/// Builds, and says where the image is.
pub(super) fn run(args: &Build, around: &Surroundings, cancel: &Cancel) -> Result<(), Failure> {
    let mut laps = Laps::begin(By::Front);
    let call = Call::of(args)?;
    let request = request::of(args, around)?;
    limits_spec::prepare(&request.limits)?;
    let inputs = request::inputs(args)?;
    around.log.phase(&laps.lap("understood the request"));
    let store = around.store()?;
    let session = Session { store: &store, registries: &around.registries, remotes: &around.remotes, cancel };
    let form = form(args);
    let page = timings::Begun::of(args.timings.as_deref(), call.is_some())?;
    let mut progress = Progress::new(form, io::stderr(), &args.network, around.log).explaining(explain(args, form)?);
    legacy(args, &mut progress);
    if !request.secrets.is_empty() || !request.agents.is_empty() {
        // What crashes writes no memory to a file: this program, the engine, a step that has a secret in a variable.
        sys::no_core_dumps().map_err(|error| Error::new(Kind::Environment, "cannot forbid core dumps").because(&error))?;
    }
    let mut laps = Laps::begin(By::Front);
    let context = Context::bring(inputs.context, &request, &session, &mut |event| progress.show(&event));
    let text = context.and_then(|context| Ok((front::read_dockerfile(&inputs.dockerfile, &context)?, context)));
    let (text, context) = text.inspect_err(|error| timed(page.as_ref(), &store, Err(error), &mut progress).unwrap_or_default())?;
    around.log.phase(&laps.lap("found the context and read the Dockerfile"));
    if let Some(call) = call {
        let source = &text.source;
        return call.run(&request, &context, &text, &session, &mut |event| show(&mut progress, form, source, &event));
    }
    let source = &text.source;
    let mut event = |event: Event| show(&mut progress, form, source, &event);
    let built = front::build(&request, &context, &text, &session, &mut event, &mut io::stdout());
    match built {
        Ok(built) => {
            let mut laps = Laps::begin(By::Front);
            finish(args, form, &built, progress.ledger())?;
            around.log.phase(&laps.lap("said what was built"));
            Ok(timed(page.as_ref(), &store, Ok(&built), &mut progress)?)
        }
        Err(error) => {
            progress.failed(&error);
            if let Some(path) = &args.metadata_file {
                // The build's error is the one to tell.
                let _unwritten = failed_metadata(&error, progress.ledger()).and_then(|bytes| write_whole(path, &bytes));
            }
            let _unwritten = timed(page.as_ref(), &store, Err(&error), &mut progress);
            Err(Failure::in_text(error, source.clone()))
        }
    }
}

/// Writes the page of `--timings`, and says where it is.
fn timed(
    page: Option<&timings::Begun<'_>>,
    store: &Store,
    outcome: Result<&Built, &Error>,
    progress: &mut Progress<io::Stderr>,
) -> Result<(), Error> {
    let Some(page) = page else { return Ok(()) };
    write_whole(page.path, page.html(store, outcome, progress.ledger()).as_bytes())?;
    progress.line(&format!("timings: {}", visible(page.path.as_os_str().as_encoded_bytes())));
    Ok(())
}

fn show(progress: &mut Progress<io::Stderr>, form: Form, source: &Source, event: &Event) {
    if let (Event::Warning { diagnostic }, Form::Plain) = (event, form) {
        report::warning(source, diagnostic);
    }
    progress.show(event);
}

fn form(args: &Build) -> Form {
    match args.progress {
        _ if args.quiet => Form::Quiet,
        ProgressForm::Auto | ProgressForm::Plain => Form::Plain,
        ProgressForm::RawJson => Form::RawJson,
        ProgressForm::Quiet => Form::Quiet,
        ProgressForm::None => Form::None,
    }
}

/// Are all reasons wanted? They are lines of progress.
fn explain(args: &Build, form: Form) -> Result<bool, Error> {
    if args.explain && form != Form::Plain {
        return Err(Error::new(Kind::Usage, "`--explain` is told in progress, and there is none").help("leave `-q` or `--progress` out"));
    }
    Ok(args.explain)
}

/// Flags of Docker that mean nothing here are accepted, with one note.
fn legacy(args: &Build, progress: &mut Progress<io::Stderr>) {
    let given: Vec<&str> = [("--rm", args.rm), ("--force-rm", args.force_rm), ("--compress", args.compress)]
        .into_iter()
        .filter(|(_, given)| *given)
        .map(|(flag, _)| flag)
        .collect();
    if !given.is_empty() {
        progress.line(&format!("note: {} means nothing to lapstrake", given.join(" and ")));
    }
}

/// Writes what says which image it is.
fn finish(args: &Build, form: Form, built: &Built, ledger: &Ledger) -> Result<(), Error> {
    let Some((_, image)) = built.images.first() else { return Err(Error::new(Kind::Bug, "a build without an image")) };
    if let Some(path) = &args.iidfile {
        write_whole(path, image.config_digest.to_string().as_bytes())?;
    }
    if let Some(path) = &args.metadata_file {
        write_whole(path, &metadata(args, image, ledger)?)?;
    }
    if args.quiet {
        report::print(&format!(
            "{}
",
            image.config_digest
        ))?;
    }
    if form == Form::Plain {
        let _lost_terminal = writeln!(io::stderr(), "built {} in {}", image.manifest.digest, visible(built.places.join(", ").as_bytes()));
    }
    Ok(())
}

/// What buildx writes to `--metadata-file`, and the steps.
fn metadata(args: &Build, image: &Image, ledger: &Ledger) -> Result<Vec<u8>, Error> {
    let mut fields = serde_json::Map::new();
    drop(fields.insert("containerimage.config.digest".into(), image.config_digest.to_string().into()));
    drop(fields.insert("containerimage.digest".into(), image.manifest.digest.to_string().into()));
    let descriptor =
        serde_json::to_value(&image.manifest).map_err(|error| Error::new(Kind::Bug, "a descriptor is no JSON").because(&error))?;
    drop(fields.insert("containerimage.descriptor".into(), descriptor));
    if !args.tags.is_empty() {
        drop(fields.insert("image.name".into(), args.tags.join(",").into()));
    }
    drop(fields.insert("lapstrake.steps".into(), ledger.json()));
    pretty(&fields)
}

/// What a build that failed writes there: no image, the steps and the error.
fn failed_metadata(error: &Error, ledger: &Ledger) -> Result<Vec<u8>, Error> {
    let mut fields = serde_json::Map::new();
    drop(fields.insert("lapstrake.error".into(), error.to_string().into()));
    drop(fields.insert("lapstrake.exitcode".into(), error.kind.exit_code().into()));
    drop(fields.insert("lapstrake.steps".into(), ledger.json()));
    pretty(&fields)
}

fn pretty(fields: &serde_json::Map<String, serde_json::Value>) -> Result<Vec<u8>, Error> {
    serde_json::to_vec_pretty(fields).map_err(|error| Error::new(Kind::Bug, "metadata are no JSON").because(&error))
}

/// A file with these bytes, whole or not at all.
fn write_whole(path: &std::path::Path, bytes: &[u8]) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        let _never_was = std::fs::remove_file(&beside);
        Error::new(Kind::Request, format!("cannot write `{}`", path.display())).because(&error)
    })
}
