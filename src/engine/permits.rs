//! How many may do something at once: run steps, or use a processor.
//!
//! A permit for a processor is held for work alone: whoever waits for a lock, a step or another thread holds none, so that
//! with a single one nobody waits for somebody who waits for it.

use std::sync::{Condvar, Mutex, PoisonError};

use super::whole;

/// So many permits, shared by threads.
#[derive(Debug)]
pub(super) struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One or more of them, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    of: &'a Permits,
    count: usize,
}

impl Permits {
    /// At least one.
    pub(super) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count.max(1)), freed: Condvar::new() }
    }

    /// Waits for one.
    pub(super) fn one(&self) -> Permit<'_> {
        self.up_to(1)
    }

    /// Waits for one, and takes with it what is free, so many at most.
    pub(super) fn up_to(&self, most: usize) -> Permit<'_> {
        let mut free = whole(&self.free);
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        let count = (*free).min(most.max(1));
        *free -= count;
        Permit { of: self, count }
    }

    /// Does something for which the caller's permit is not needed: another one may have it meanwhile.
    pub(super) fn without<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.give_back(1);
        let waited = wait();
        std::mem::forget(self.one());
        waited
    }

    fn give_back(&self, count: usize) {
        *whole(&self.free) += count;
        self.freed.notify_all();
    }
}

impl Permit<'_> {
    /// How many.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.of.give_back(self.count);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn never_are_there_more_than_permits() {
        let (permits, inside, most) = (Permits::new(3), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (permits, inside, most) = (&permits, &inside, &most);
                let _thread = scope.spawn(move || {
                    for _ in 0..50 {
                        let permit = permits.up_to(1 + number % 3);
                        let now = inside.fetch_add(permit.count(), Ordering::SeqCst) + permit.count();
                        let _before = most.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        let _after = inside.fetch_sub(permit.count(), Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(permits.up_to(9).count(), 3);
    }

    #[test]
    fn who_waits_lends_its_permit() {
        let permits = Permits::new(1);
        let _mine = permits.one();
        let others = permits.without(|| std::thread::scope(|scope| scope.spawn(|| permits.one().count()).join().unwrap()));
        assert_eq!((others, *whole(&permits.free)), (1, 0));
    }
}
