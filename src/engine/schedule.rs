//! Who is next: every step as soon as the steps that it needs are done, so many at once.
//!
//! A chain of steps stays on its thread; a step that several wait for starts a thread for each of the others. The first step
//! that fails stops the build: what runs is killed, nothing more is begun, and its error is the build's.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    thread::{Builder, Scope},
};

use super::{
    graph::{Graph, Node},
    permits::Permits,
    stop::{Stop, interrupted},
    timing::Instant,
    whole,
};
use crate::error::{Error, Kind};

/// As much as a main thread has: paths are as deep as a hostile archive makes them.
const STACK: usize = 16 << 20;

/// Does one step, named by its number, which could have been begun at a time.
pub(super) type Work<'a> = dyn Fn(usize, Node, Instant) -> Result<(), Error> + Sync + 'a;

/// A graph on its way.
pub(super) struct Schedule<'a> {
    graph: &'a Graph,
    slots: &'a Permits,
    stop: &'a Stop,
    work: &'a Work<'a>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    done: BTreeSet<usize>,
    begun: BTreeSet<usize>,
    failed: Option<Error>,
}

impl<'a> Schedule<'a> {
    /// Nothing is done. `slots` are as many steps as may run at once.
    pub(super) fn new(graph: &'a Graph, slots: &'a Permits, stop: &'a Stop, work: &'a Work<'a>) -> Self {
        Self { graph, slots, stop, work, state: Mutex::default() }
    }

    /// All steps in turn, in the order of the plan, on the calling thread.
    pub(super) fn in_turn(self) -> Result<(), Error> {
        for (number, node) in self.graph.nodes().enumerate() {
            self.stop.go_on()?;
            let _slot = self.slots.one();
            (self.work)(number, node, Instant::now())?;
        }
        Ok(())
    }

    /// All steps, those that need nothing of each other at once.
    pub(super) fn at_once(self) -> Result<(), Error> {
        let first = self.ready(None);
        std::thread::scope(|scope| self.follow(scope, self.share_out(scope, first)));
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.failed {
            Some(error) => Err(error),
            None if state.done.len() < self.graph.len() => Err(interrupted()),
            None => Ok(()),
        }
    }

    /// Notes that a step is done, and takes those that can be begun now, in order.
    fn ready(&self, done: Option<usize>) -> Vec<usize> {
        let mut state = whole(&self.state);
        state.done.extend(done);
        let candidates: Vec<usize> = match done {
            None => (0..self.graph.len()).collect(),
            Some(done) => self.graph.needed_by(done).to_vec(),
        };
        let ready = candidates.into_iter().filter(|number| self.graph.needs(*number).is_subset(&state.done)).collect::<Vec<_>>();
        ready.into_iter().filter(|number| state.begun.insert(*number)).collect()
    }

    /// Gives each a thread, but for the first: that one, and those for whom there is no thread, are the caller's own.
    fn share_out<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, ready: Vec<usize>) -> Vec<usize> {
        let mut ready = ready.into_iter();
        let mut own: Vec<usize> = ready.next().into_iter().collect();
        own.extend(ready.filter(|number| {
            let number = *number;
            Builder::new().stack_size(STACK).spawn_scoped(scope, move || self.follow(scope, vec![number])).is_err()
        }));
        own
    }

    /// Does these steps and what comes after them.
    fn follow<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, mut own: Vec<usize>) {
        own.reverse();
        while let Some(number) = own.pop() {
            let Some(node) = self.graph.node(number) else { return };
            let ready = Instant::now();
            let slot = self.slots.one();
            if self.stop.go_on().is_err() {
                return;
            }
            let result = (self.work)(number, node, ready);
            drop(slot);
            match result {
                Ok(()) => own.extend(self.share_out(scope, self.ready(Some(number))).into_iter().rev()),
                Err(error) => return self.fail(error),
            }
        }
    }

    /// The first to fail is the one to blame: what is killed after it is not.
    fn fail(&self, error: Error) {
        let mut state = whole(&self.state);
        let blamed = state.failed.as_ref().is_some_and(|earlier| earlier.kind != Kind::Interrupted);
        if !blamed {
            state.failed = Some(error);
        }
        drop(state);
        self.stop.now();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::engine::graph::tests::graph;

    /// Two chains of three that meet in one step.
    const CHAINS: [&[usize]; 7] = [&[], &[0], &[1], &[], &[3], &[4], &[2, 5]];

    #[test]
    fn every_step_is_done_once_and_after_those_that_it_needs() {
        let graph = graph(&CHAINS);
        for width in [1, 2, 16] {
            let (slots, done) = (Permits::new(width), Mutex::new(Vec::new()));
            let (lifeline, _held) = rustix::pipe::pipe().unwrap();
            let stop = Stop::of(std::os::fd::AsFd::as_fd(&lifeline)).unwrap();
            let work = |number: usize, _: Node, _: Instant| {
                assert!(CHAINS[number].iter().all(|needed| whole(&done).contains(needed)));
                whole(&done).push(number);
                Ok(())
            };
            Schedule::new(&graph, &slots, &stop, &work).at_once().unwrap();
            let mut all = done.into_inner().unwrap();
            all.sort_unstable();
            assert_eq!(all, (0..7).collect::<Vec<_>>(), "{width}");
        }
    }

    #[test]
    fn steps_that_need_nothing_of_each_other_run_at_once_as_many_as_may() {
        let graph = graph(&[&[], &[], &[], &[], &[]]);
        for width in [1, 3] {
            let (slots, inside, most) = (Permits::new(width), AtomicUsize::new(0), AtomicUsize::new(0));
            let (lifeline, _held) = rustix::pipe::pipe().unwrap();
            let stop = Stop::of(std::os::fd::AsFd::as_fd(&lifeline)).unwrap();
            let met = std::sync::Barrier::new(width);
            let work = |number: usize, _: Node, _: Instant| {
                let _before = most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // The first so many meet: none ends before the others have begun.
                if number < width {
                    let _leader = met.wait();
                }
                let _after = inside.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            };
            Schedule::new(&graph, &slots, &stop, &work).at_once().unwrap();
            assert_eq!(most.into_inner(), width);
        }
    }

    #[test]
    fn the_first_failure_is_the_builds_and_nothing_is_begun_after_it() {
        let graph = graph(&CHAINS);
        let (slots, begun) = (Permits::new(16), Mutex::new(Vec::new()));
        let (lifeline, _held) = rustix::pipe::pipe().unwrap();
        let stop = Stop::of(std::os::fd::AsFd::as_fd(&lifeline)).unwrap();
        let work = |number: usize, _: Node, _: Instant| {
            whole(&begun).push(number);
            match number {
                1 => Err(Error::new(Kind::Step, "it is this one")),
                // As a step that runs: until it is killed.
                4 => stop.go_on_after(std::time::Duration::from_mins(1)),
                _ => Ok(()),
            }
        };
        let error = Schedule::new(&graph, &slots, &stop, &work).at_once().unwrap_err();
        assert_eq!((error.kind, error.headline.as_str()), (Kind::Step, "it is this one"));
        assert!(!begun.into_inner().unwrap().iter().any(|number| [2, 5, 6].contains(number)));
    }
}
