//! What goes on behind the steps: the compression of a layer, while the next step runs on its tree.
//!
//! ```text
//! step ──tar──▶ diff id, index, tree ──▶ next step …
//!        └─ spool ─▶ compressed ─▶ index, blob ─▶ record ─▶ the step's lock is let go
//! ```
//!
//! A record is written when its blob is in the store, never before: after a kill the step is done again. Whoever needs the
//! blob itself (an output, a tree that was lost) waits for it. When a step fails, the layers of those that were done are finished; when the
//! build is interrupted they are given up.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    panic::resume_unwind,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{Builder, JoinHandle},
};

use super::{
    stop::{Stop, interrupted},
    timing::{Instant, Span},
    whole,
};
use crate::{
    error::{Error, Kind},
    layer::{self, Changes, Compression, Tarred},
    oci::DiffId,
    store::{self, Store},
    sys,
    tree::Chain,
};

/// Layers on their way into the store.
pub(super) struct Behind {
    store: Store,
    compression: Compression,
    shared: Arc<Shared>,
    threads: Mutex<Vec<Packer>>,
}

/// A thread that compresses. What it returns is why it failed, if nobody wanted its layer in the end.
type Packer = JoinHandle<Option<layer::Error>>;

struct Shared {
    stop: Arc<Stop>,
    lifeline: OwnedFd,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// How many of each layer are on their way, and what they are made of, if that stays as it is.
    pending: BTreeMap<DiffId, (usize, Option<Source>)>,
    failed: Option<Error>,
    /// When the layer of a step was compressed.
    spans: Vec<(usize, Span)>,
}

/// What a layer is made of: its files can be read again.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) changes: Arc<Changes>,
    pub(super) chain: Chain,
}

/// A layer whose tar is known and whose blob is being made. Dropped, there is no record of it.
pub(super) struct Pending {
    pub(super) layer: Tarred,
    source: Option<Source>,
    then: Sender<Then>,
}

impl Pending {
    /// Its tree can be made of this while its blob is on its way.
    #[must_use]
    pub(super) fn of(self, source: Source) -> Self {
        Self { source: Some(source), ..self }
    }
}

/// What is done when the blob is there.
struct Then {
    step: usize,
    layer: Tarred,
    record: Box<Record>,
}

/// Writes the step's record; what it holds on to is let go after that.
type Record = dyn FnOnce(&Store) -> Result<(), store::Error> + Send;

impl Behind {
    /// Nothing is on its way.
    pub(super) fn new(store: &Store, compression: Compression, stop: Arc<Stop>, lifeline: BorrowedFd<'_>) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::new(Kind::Environment, "cannot duplicate the lifeline").because(&error);
        let lifeline = lifeline.try_clone_to_owned().map_err(failed)?;
        let shared = Shared { stop, lifeline, state: Mutex::default(), moved: Condvar::new() };
        Ok(Self { store: store.clone(), compression, shared: Arc::new(shared), threads: Mutex::default() })
    }

    /// Writes changes as a tar, which another thread compresses. Returns when the tar is complete; if that is `awaited`, it does not
    /// wait for the compressor.
    pub(super) fn write(&self, changes: &Changes, chain: &Chain, awaited: bool) -> Result<Pending, layer::Error> {
        let (to, from) = layer::spool(&self.store, self.compression, awaited);
        let (then, told) = channel();
        let (store, compression, shared) = (self.store.clone(), self.compression, Arc::clone(&self.shared));
        let packer = Builder::new().name("packer".to_owned()).spawn(move || shared.pack(&store, from, compression, &told));
        let packer = packer.map_err(sys::PathError::new("start", "a thread that compresses"))?;
        match layer::tar(changes, chain, to) {
            Ok(layer) => {
                whole(&self.threads).push(packer);
                Ok(Pending { layer, source: None, then })
            }
            Err(error) => {
                drop(then);
                let deaf = matches!(&error, layer::Error::Path(error) if error.source.kind() == ErrorKind::BrokenPipe);
                let why = packer.join().unwrap_or_else(|panic| resume_unwind(panic));
                // That nobody read is no reason: why nobody did is one.
                Err(why.filter(|_| deaf).unwrap_or(error))
            }
        }
    }

    /// Has the record of a layer written when its blob is there. What `record` holds is let go after that.
    pub(super) fn commit(&self, step: usize, pending: Pending, record: Box<Record>) {
        let Pending { layer, source, then } = pending;
        let diff_id = layer.diff_id;
        whole(&self.shared.state).pending.entry(diff_id).or_insert((0, source)).0 += 1;
        if then.send(Then { step, layer, record }).is_err() {
            // It panicked, and nobody will ever settle it.
            self.shared.settle(&diff_id, Err(Error::new(Kind::Bug, "the thread that compresses a layer is gone")));
        }
    }

    /// What a layer is made of, if it is on its way.
    pub(super) fn source(&self, diff_id: &DiffId) -> Option<Source> {
        whole(&self.shared.state).pending.get(diff_id).and_then(|(_, source)| source.clone())
    }

    /// Waits until a layer is not on its way, if it is.
    pub(super) fn settled(&self, diff_id: &DiffId) -> Result<(), Error> {
        let mut state = whole(&self.shared.state);
        while state.pending.contains_key(diff_id) {
            state = self.shared.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.shared.stop.go_on()
    }

    /// When the layer of each step was compressed, of those that are there.
    pub(super) fn spans(&self) -> Vec<(usize, Span)> {
        whole(&self.shared.state).spans.clone()
    }

    /// Waits for all of them. The error of the first that failed.
    pub(super) fn finish(&self) -> Result<(), Error> {
        let threads = std::mem::take(&mut *whole(&self.threads));
        for thread in threads {
            drop(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        whole(&self.shared.state).failed.take().map_or(Ok(()), Err)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        // Else a scratch file would be left by the end of the process.
        for thread in std::mem::take(&mut *whole(&self.threads)) {
            drop(thread.join());
        }
    }
}

impl Shared {
    /// What a packer does.
    fn pack(&self, store: &Store, from: layer::Reader, compression: Compression, told: &Receiver<Then>) -> Option<layer::Error> {
        let begun = Instant::now();
        let cancelled = || sys::is_ready(self.lifeline.as_fd());
        let blob = layer::pack(store, &from, compression, &cancelled);
        // Now the writer learns that nobody reads any more.
        drop(from);
        let Ok(Then { step, layer: Tarred { diff_id, index }, record }) = told.recv() else { return blob.err() };
        let recorded = match blob {
            Err(_) if cancelled() => Err(interrupted()),
            Err(error) => Err(error.into()),
            Ok(blob) => store
                .put_index(&diff_id, &index)
                .and_then(|()| store.put_layer_blob(&diff_id, &compression.id(), &blob))
                .and_then(|()| record(store))
                .map_err(Error::from),
        };
        whole(&self.state).spans.push((step, Span::since(begun)));
        self.settle(&diff_id, recorded);
        None
    }

    fn settle(&self, diff_id: &DiffId, result: Result<(), Error>) {
        let mut state = whole(&self.state);
        if let Some((count, _)) = state.pending.get_mut(diff_id) {
            *count -= 1;
            if *count == 0 {
                drop(state.pending.remove(diff_id));
            }
        }
        if let Err(error) = result {
            let _first = state.failed.get_or_insert(error);
            self.stop.now();
        }
        drop(state);
        self.moved.notify_all();
    }
}
