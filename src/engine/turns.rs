//! One at a time for a name: threads of this build by turns, builds of the machine by a lock of the store.
//!
//! Whoever waits holds no slot of a step meanwhile, and stops waiting when the build ends. How long a step waited is noted, until it
//! has a slot again: another step may run in the one that it lent. Names are taken in one order, by whoever takes several: a step,
//! then its caches by name, then what holds the first layers of a deep stage (of more layers before of fewer), then a tree, then an
//! index. So nobody waits for somebody who waits for it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Condvar, Mutex, PoisonError},
    thread::{self, ThreadId},
    time::Duration,
};

use super::{
    Event, Front,
    permits::Permits,
    stop::Stop,
    timing::{Instant, Span},
    whole,
};
use crate::{
    error::Error,
    store::{self, Lock, Store},
};

/// Who waits for another build looks again after so long.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// And at most after so long.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The names that are taken in this build, and the way to take one.
pub(super) struct Turns<'a> {
    store: &'a Store,
    front: &'a dyn Front,
    stop: &'a Stop,
    slots: &'a Permits,
    busy: Mutex<BTreeSet<String>>,
    freed: Condvar,
    /// When each thread that does a step waited, since it was asked last.
    waits: Mutex<HashMap<ThreadId, Vec<Span>>>,
}

/// Nobody else has the name, in this build or in another one.
pub(super) struct Alone<'a> {
    // Let go before the turn is.
    _lock: Lock,
    _turn: Turn<'a>,
}

/// Nobody else in this build has the name.
pub(super) struct Turn<'a> {
    of: &'a Turns<'a>,
    name: String,
}

impl<'a> Turns<'a> {
    /// None is taken.
    pub(super) fn new(store: &'a Store, front: &'a dyn Front, stop: &'a Stop, slots: &'a Permits) -> Self {
        Self { store, front, stop, slots, busy: Mutex::default(), freed: Condvar::new(), waits: Mutex::default() }
    }

    /// When the calling thread waited, and has not been told yet.
    pub(super) fn waits(&self) -> Vec<Span> {
        whole(&self.waits).remove(&thread::current().id()).unwrap_or_default()
    }

    /// Takes a name; `said` is told if another build has it. Called with a slot.
    pub(super) fn take(&'a self, name: &str, said: impl FnOnce() -> String) -> Result<Alone<'a>, Error> {
        let turn = self.turn(name)?;
        let lock = self.lock(name, said)?;
        Ok(Alone { _lock: lock, _turn: turn })
    }

    /// The same for a thread that works for a step and has no slot of its own to lend.
    pub(super) fn take_for(&'a self, name: &str, said: impl FnOnce() -> String) -> Result<Alone<'a>, Error> {
        let turn = self.wait_turn(name, Slot::NotOurs)?;
        let lock = self.wait(|| self.store.try_lock(name), said, Slot::NotOurs)?;
        Ok(Alone { _lock: lock, _turn: turn })
    }

    /// A lock that is shared with whoever shares it, and kept from who wants it alone.
    pub(super) fn share(&self, name: &str, said: impl FnOnce() -> String) -> Result<Lock, Error> {
        self.wait(|| self.store.try_lock_shared(name), said, Slot::Lent)
    }

    /// Only the lock, which another step of this build may have as well as another build.
    pub(super) fn lock(&self, name: &str, said: impl FnOnce() -> String) -> Result<Lock, Error> {
        self.wait(|| self.store.try_lock(name), said, Slot::Lent)
    }

    /// Only within this build.
    pub(super) fn turn(&'a self, name: &str) -> Result<Turn<'a>, Error> {
        self.wait_turn(name, Slot::Lent)
    }

    fn wait_turn(&'a self, name: &str, slot: Slot) -> Result<Turn<'a>, Error> {
        loop {
            if whole(&self.busy).insert(name.to_owned()) {
                return Ok(Turn { of: self, name: name.to_owned() });
            }
            self.idle(slot, || self.until_free(name))?;
        }
    }

    fn until_free(&self, name: &str) -> Result<(), Error> {
        let mut busy = whole(&self.busy);
        while busy.contains(name) {
            self.stop.go_on()?;
            (busy, _) = self.freed.wait_timeout(busy, LONGEST_PAUSE).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    fn wait(
        &self,
        mut attempt: impl FnMut() -> Result<Option<Lock>, store::Error>,
        said: impl FnOnce() -> String,
        slot: Slot,
    ) -> Result<Lock, Error> {
        if let Some(lock) = attempt()? {
            return Ok(lock);
        }
        self.front.event(Event::Note { text: said() });
        self.idle(slot, || {
            let mut pause = FIRST_PAUSE;
            loop {
                self.stop.go_on_after(pause)?;
                if let Some(lock) = attempt()? {
                    return Ok(lock);
                }
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        })
    }

    fn idle<T>(&self, slot: Slot, wait: impl FnOnce() -> T) -> T {
        match slot {
            Slot::Lent => {
                let from = Instant::now();
                let waited = self.slots.without(wait);
                whole(&self.waits).entry(thread::current().id()).or_default().push(Span::since(from));
                waited
            }
            Slot::NotOurs => wait(),
        }
    }
}

/// What becomes of a slot while its holder waits.
#[derive(Clone, Copy)]
enum Slot {
    /// Another step has it.
    Lent,
    /// The waiting thread has none.
    NotOurs,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let _was: bool = whole(&self.of.busy).remove(&self.name);
        self.of.freed.notify_all();
    }
}
