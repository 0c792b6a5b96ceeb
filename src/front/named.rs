//! Named contexts that are far off: each brought here when it is first asked for, and kept until the build is over.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use super::{Context, ContextFrom, NamedContext, Order, Request, Session, dockerfile_text};
use crate::{
    engine::{Event, Files},
    error::Error,
    layer::archive,
    plan::{CopySource, Dated},
};

/// The named contexts of one build that were brought here.
#[derive(Debug, Default)]
pub(super) struct Named(RefCell<BTreeMap<String, Rc<Context>>>);

impl Named {
    /// One that is far off. `None`: that name is a directory's, an image's, or nobody's.
    pub(super) fn far(
        &self,
        name: &str,
        request: &Request,
        session: &Session<'_>,
        event: &mut dyn FnMut(Event),
    ) -> Result<Option<Rc<Context>>, Error> {
        let from = match request.contexts.get(name) {
            Some(NamedContext::Http(address)) => ContextFrom::Http(address.clone()),
            Some(NamedContext::Git(address)) => ContextFrom::Git(address.clone()),
            Some(NamedContext::Directory(_) | NamedContext::Scratch | NamedContext::Image(_) | NamedContext::Layout(..)) | None => {
                return Ok(None);
            }
        };
        if let Some(known) = self.0.borrow().get(name) {
            return Ok(Some(Rc::clone(known)));
        }
        let brought = Rc::new(Context::called(&format!("the context `{name}`"), from, request, session, event)?);
        drop(self.0.borrow_mut().insert(name.to_owned(), Rc::clone(&brought)));
        Ok(Some(brought))
    }

    /// For the engine: all directories, and what was asked for of the far ones.
    pub(super) fn files(&self, request: &Request) -> Result<BTreeMap<String, Files>, Error> {
        let mut all = BTreeMap::new();
        for (name, context) in &request.contexts {
            if let NamedContext::Directory(dir) = context {
                let dir = dockerfile_text::directory(dir)?;
                drop(all.insert(name.clone(), Files::Directory { dir, dockerfile: None }));
            }
        }
        for (name, context) in self.0.borrow().iter() {
            all.extend(context.files.clone().map(|files| (name.clone(), files)));
        }
        Ok(all)
    }
}

/// When something was made that `SOURCE_DATE_EPOCH` names, in seconds since 1970. `None`: nobody knows.
pub(super) fn time(
    of: &Dated,
    context: &Context,
    named: &Named,
    request: &Request,
    session: &Session<'_>,
    event: &mut dyn FnMut(Event),
) -> Result<Option<i64>, Error> {
    match of {
        Dated::Context => Ok(context.time),
        Dated::Named(name) => Ok(named.far(name, request, session, event)?.and_then(|context| context.time)),
        Dated::Far(CopySource::Http { url, checksum }) => {
            let download = session.remotes.download(url, checksum.as_ref(), Order::of(request, session), event)?;
            let newest = || session.store.open_blob(&download.blob()).map(|blob| blob.and_then(archive::newest));
            Ok(match download.last_modified {
                Some(time) => Some(time),
                None => newest()?,
            })
        }
        Dated::Far(CopySource::Git(address)) => {
            let checkout = session.remotes.checkout(address, Order::of(request, session), event)?;
            Ok(Some(checkout.commit_time))
        }
        Dated::Far(CopySource::Path(_) | CopySource::Inline(_)) => Ok(None),
    }
}
