//! ADD of what is far off: asked of the front, then selected like any directory.
//!
//! What is in the key is what was fetched, not where it was: an URL that has the same file again is a hit. A `.git` is in it
//! by its commit, name and origin.

use super::{Fetched, FetchedAs, build::Site};
use crate::{
    context::Context,
    error::Error,
    pattern::PatternList,
    plan::{Copy, CopySource},
    rootfs::{self, CopySpec, Selection},
};

/// All of a source: a file, or what a repository holds. With `for_key`, what a `.git` holds is left out.
pub(super) fn select(site: &Site<'_>, source: &CopySource, copy: &Copy, for_key: bool) -> Result<Selection, Error> {
    let Fetched { dir, what } = site.front.source(source)?;
    let context = Context::open(&dir, PatternList::default())?.called(name(source));
    let processors = site.processors.up_to(site.job.jobs);
    let mut spec =
        CopySpec { exclude: copy.exclude.clone(), jobs: processors.count(), store: Some(site.store.clone()), ..CopySpec::default() };
    match what {
        FetchedAs::File { name } => {
            spec.paths.push(literally(&name));
            let selection = rootfs::select(&context, &spec)?;
            Ok(if copy.unpack == Some(true) { selection } else { selection.as_it_is() })
        }
        FetchedAs::Tree { git_dir } => {
            spec.paths.push("/".to_owned());
            spec.exclude.extend(git_dir.filter(|_| for_key).map(|_| "**/.git".to_owned()));
            Ok(rootfs::select(&context, &spec)?)
        }
    }
}

/// What a key holds of the sources' `.git`.
pub(super) fn git_dirs(site: &Site<'_>, copy: &Copy) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for source in copy.sources.iter().filter(|source| keeps_git_dir(source)) {
        if let FetchedAs::Tree { git_dir: Some(words) } = site.front.source(source)?.what {
            all.push(words);
        }
    }
    Ok(all)
}

/// Is there more in the source than its key looks at?
pub(super) fn keeps_git_dir(source: &CopySource) -> bool {
    matches!(source, CopySource::Git(address) if address.keep_git_dir == Some(true))
}

/// A name as a path: nothing in it is a pattern.
fn literally(name: &str) -> String {
    name.chars().flat_map(|letter| matches!(letter, '*' | '?' | '[' | '\\').then_some('\\').into_iter().chain([letter])).collect()
}

fn name(source: &CopySource) -> String {
    match source {
        CopySource::Http { url, .. } => format!("`{url}`"),
        CopySource::Git(address) => format!("`{address}`"),
        CopySource::Path(_) | CopySource::Inline(_) => String::new(),
    }
}
