//! `lapstrake load` and `import`.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{Failure, images, report, surroundings::Surroundings};
use crate::{
    dockerfile,
    error::{Error, Kind},
    image::{self, Loaded},
    oci::{Platform, Reference},
    plan,
};

/// Reads images into the store.
pub(super) fn load(around: &Surroundings, input: Option<&Path>, tag: Option<&str>, quiet: bool) -> Result<(), Failure> {
    let name = tag.map(images::reference).transpose()?;
    let store = around.store()?;
    let loaded = match input.filter(|path| *path != Path::new("-")) {
        Some(path) => image::load(&store, path),
        None => image::load_stream(&store, &mut io::stdin(), "standard input"),
    };
    let loaded = loaded?;
    if name.is_some() && loaded.len() != 1 {
        return Err(Error::new(Kind::Usage, format!("`--tag` names one image, and there are {} of them", loaded.len()))
            .help("leave it out, and give names with `lapstrake tag`")
            .into());
    }
    for each in &loaded {
        let image = image::read(&store, &each.target, &Platform::host())?;
        let names: Vec<Reference> = name.iter().cloned().chain(each.names.iter().filter(|_| name.is_none()).cloned()).collect();
        for name in &names {
            store.put_ref(name, &each.target)?;
        }
        let text = if quiet { image.config_digest.to_string() } else { said(each, &names) };
        report::print(&format!("{text}\n"))?;
    }
    Ok(())
}

fn said(loaded: &Loaded, names: &[Reference]) -> String {
    let names: Vec<String> = names.iter().map(Reference::familiar).collect();
    if names.is_empty() {
        format!("loaded {} without a name", loaded.target.digest)
    } else {
        format!("loaded {} {}", names.join(" "), loaded.target.digest)
    }
}

/// Makes an image of a root file system.
pub(super) fn import(around: &Surroundings, file: &Path, name: &str, changes: &[String]) -> Result<(), Failure> {
    let name = images::reference(name)?;
    let config = changed_config(changes)?;
    let store = around.store()?;
    let mut stream: Box<dyn Read + Send> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let opened = File::open(file);
        Box::new(opened.map_err(|error| Error::new(Kind::Request, format!("cannot read `{}`", file.display())).because(&error))?)
    };
    let image = image::import(&store, &mut stream, &file.display().to_string(), config, created(file))?;
    store.put_ref(&name, &image.manifest)?;
    Ok(report::print(&format!("{} {}\n", name.familiar(), image.manifest.digest))?)
}

/// The image is as old as the tar that it is made of, so that the same tar gives the same image.
fn created(file: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok().or_else(|| Some(crate::sys::now()))
}

/// The config that instructions make of an empty one: a Dockerfile `FROM scratch` of them.
fn changed_config(changes: &[String]) -> Result<crate::oci::ImageConfig, Failure> {
    let text = format!("FROM scratch\n{}\n", changes.join("\n"));
    let source = crate::diag::Source { name: "--change".into(), text };
    let parsed = dockerfile::parse(&source.text);
    let allowed = |command: &dockerfile::Command| {
        matches!(
            command,
            dockerfile::Command::Cmd(_)
                | dockerfile::Command::Entrypoint(_)
                | dockerfile::Command::Env(_)
                | dockerfile::Command::Expose(_)
                | dockerfile::Command::Healthcheck(_)
                | dockerfile::Command::Label(_)
                | dockerfile::Command::Onbuild(_)
                | dockerfile::Command::Shell(_)
                | dockerfile::Command::Stopsignal(_)
                | dockerfile::Command::User(_)
                | dockerfile::Command::Volume(_)
                | dockerfile::Command::Workdir(_)
        )
    };
    let refused = parsed.dockerfile.stages.iter().flat_map(|stage| &stage.commands).find(|instruction| !allowed(&instruction.command));
    let mut errors = parsed.errors;
    if let Some(instruction) = refused {
        errors.push(crate::diag::Diagnostic::error(
            format!("`{}` cannot change a config", instruction.keyword.text),
            instruction.keyword.span,
        ));
    }
    if parsed.dockerfile.stages.len() > 1 {
        return Err(Error::new(Kind::Usage, "`FROM` cannot change a config").into());
    }
    if !errors.is_empty() {
        return Err(Failure::in_text(Error::at(Kind::Usage, errors), source));
    }
    let plan = plan::resolve(&parsed.dockerfile, &plan::Request::default(), &NoBases);
    let plan = plan.map_err(|unresolved| Failure::in_text(Error::at(Kind::Usage, unresolved.places), source))?;
    Ok(plan.stages.get(plan.target.0).map(|stage| stage.config.clone()).unwrap_or_default())
}

/// There are no images: `FROM scratch` needs none.
struct NoBases;

impl plan::Bases for NoBases {
    fn base(&self, _name: &str, _platform: &Platform) -> Result<Option<plan::Base>, plan::BaseError> {
        Ok(None)
    }
}
