//! `lapstrake pull` and `push`.

use std::io;

use super::{
    Failure, images,
    progress::{Form, Progress},
    report,
    surroundings::Surroundings,
};
use crate::{
    engine::Event,
    error::{Error, Kind},
    oci::{Descriptor, Platform, Reference},
};

fn progress(around: &Surroundings, quiet: bool) -> Progress<io::Stderr> {
    Progress::new(if quiet { Form::Quiet } else { Form::Plain }, io::stderr(), "", around.log)
}

/// The last line: name and digest.
fn say(name: &Reference, target: &Descriptor, quiet: bool) -> Result<(), Failure> {
    let text = if quiet { target.digest.to_string() } else { format!("{name} {}", target.digest) };
    Ok(report::print(&format!(
        "{text}
"
    ))?)
}

/// Fetches an image into the store.
pub(super) fn pull(around: &Surroundings, text: &str, platform: Option<&str>, quiet: bool) -> Result<(), Failure> {
    let name = images::reference(text)?;
    let platform = platform.map_or_else(
        || Ok(Platform::host()),
        |text| text.parse::<Platform>().map_err(|error| Error::new(Kind::Usage, error.to_string())),
    )?;
    let store = around.store()?;
    let mut progress = progress(around, quiet);
    let mut event = |event: Event| progress.show(&event);
    let pulled = around.registries.pull(&name, &platform, &store, &mut event)?;
    let Some(target) = pulled else {
        return Err(Error::new(Kind::Remote, format!("there is no image `{name}`")).help("check the name and the tag").into());
    };
    store.put_ref(&name, &target)?;
    say(&name, &target, quiet)
}

/// Sends an image, or all tags of its repository.
pub(super) fn push(around: &Surroundings, text: &str, all_tags: bool, quiet: bool) -> Result<(), Failure> {
    let wanted = images::reference(text)?;
    let store = around.store()?;
    let refs = store.refs()?;
    let chosen: Vec<(Reference, Descriptor)> = if all_tags {
        refs.into_iter().filter(|(name, _)| name.registry == wanted.registry && name.repository == wanted.repository).collect()
    } else {
        refs.into_iter().filter(|(name, _)| *name == wanted).collect()
    };
    if chosen.is_empty() {
        return Err(images::unknown(&store, &wanted).into());
    }
    let mut progress = progress(around, quiet);
    for (name, target) in chosen {
        let mut event = |event: Event| progress.show(&event);
        around.registries.push(&name, &target, &store, &mut event)?;
        say(&name, &target, quiet)?;
    }
    Ok(())
}
