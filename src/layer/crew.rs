//! The threads that compress, and the memory that is on its way to them: one crew for the process, however many layers
//! are written at once.
//!
//! Invariants: at most [`Crew::room`] blocks of all layers are under way (waiting, being compressed, or compressed and not
//! yet written), so memory does not grow with the size of a layer nor with their number; a thread is started when there is work
//! for it. Who waits for room holds none of what the others need: blocks are written in the order they were admitted in, by a
//! thread of each layer's own, so the oldest block under way can always be finished.

use std::{
    collections::VecDeque,
    mem::take,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

/// More threads than this would take more memory than all of a build may.
const MOST_THREADS: usize = 24;
/// Blocks under way for each thread, and beyond.
const AHEAD: usize = 4;

/// Work for one thread.
type Job = Box<dyn FnOnce() + Send>;

/// Threads that compress. Dropped, they end.
#[derive(Debug)]
pub(super) struct Crew {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    threads: usize,
    state: Mutex<State>,
    work: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    started: usize,
    idle: usize,
    admitted: usize,
    /// Memory that was used before.
    spare: Vec<Vec<u8>>,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("jobs", &self.jobs.len()).field("admitted", &self.admitted).finish_non_exhaustive()
    }
}

static COMMON: OnceLock<Crew> = OnceLock::new();

/// How many threads of this process may compress layers; the first word counts. Unsaid: one for each processor. The bytes of
/// layers do not depend on it.
pub fn employ(threads: usize) {
    let _first = COMMON.get_or_init(|| Crew::new(threads));
}

impl Crew {
    pub(super) fn new(threads: usize) -> Self {
        let threads = threads.clamp(1, MOST_THREADS);
        Self { shared: Arc::new(Shared { threads, state: Mutex::default(), work: Condvar::new(), room: Condvar::new() }) }
    }

    /// The one that all of the process shares.
    pub(super) fn common() -> &'static Self {
        COMMON.get_or_init(|| Self::new(thread::available_parallelism().map_or(1, NonZeroUsize::get)))
    }

    pub(super) fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Memory of at least that capacity, empty.
    pub(super) fn buffer(&self, capacity: usize) -> Buffer {
        let mut bytes = self.shared.lock().spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.reserve_exact(capacity);
        Buffer { bytes, admitted: false, shared: Arc::clone(&self.shared) }
    }

    /// Waits until there is room for one more block under way. It is until the buffer is dropped.
    pub(super) fn admit(&self, mut buffer: Buffer) -> Buffer {
        let full = |state: &mut State| state.admitted >= self.shared.threads + AHEAD;
        let state = self.shared.lock();
        let mut state = self.shared.room.wait_while(state, full).unwrap_or_else(PoisonError::into_inner);
        state.admitted += 1;
        buffer.admitted = true;
        buffer
    }

    /// Has a thread do it, in the order of the calls.
    pub(super) fn employ(&self, job: Job) {
        let mut state = self.shared.lock();
        state.jobs.push_back(job);
        if state.idle < state.jobs.len() && state.started < self.shared.threads {
            let shared = Arc::clone(&self.shared);
            match thread::Builder::new().name("compress".into()).spawn(move || shared.serve()) {
                Ok(_detached) => state.started += 1,
                // With no thread at all the caller does it: as slow as on one processor, and no slower.
                Err(_no_more) if state.started == 0 => {
                    let job = state.jobs.pop_back();
                    drop(state);
                    if let Some(job) = job {
                        job();
                    }
                    return;
                }
                Err(_no_more) => {}
            }
        }
        drop(state);
        self.shared.work.notify_one();
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    /// Nothing that panics is done with the lock held, and each field is right by itself.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread.
    fn serve(&self) {
        loop {
            let mut state = self.lock();
            state.idle += 1;
            let waits = |state: &mut State| state.jobs.is_empty() && !state.closed;
            let mut state = self.work.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            let Some(job) = state.jobs.pop_front() else { return };
            drop(state);
            // Who waits for this job learns of it, and the thread goes on.
            drop(catch_unwind(AssertUnwindSafe(job)));
        }
    }
}

/// Memory that goes back to the crew when it is dropped, and its block's room with it.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    admitted: bool,
    shared: Arc<Shared>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // Each block under way has memory for its plain bytes and for its packed ones.
        if state.spare.len() < 2 * (self.shared.threads + AHEAD) {
            state.spare.push(take(&mut self.bytes));
        }
        if self.admitted {
            state.admitted -= 1;
            drop(state);
            self.shared.room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn there_is_room_for_a_few_blocks_and_dropping_one_makes_room() {
        let crew = Crew::new(1);
        let mut held: Vec<Buffer> = (0..=AHEAD).map(|_| crew.admit(crew.buffer(10))).collect();
        let (send, receive) = channel();
        thread::scope(|scope| {
            let crew = &crew;
            let _waiter = scope.spawn(move || send.send(crew.admit(crew.buffer(10))));
            assert!(receive.recv_timeout(std::time::Duration::from_millis(50)).is_err());
            drop(held.pop());
            assert!(receive.recv_timeout(std::time::Duration::from_secs(20)).is_ok());
        });
    }

    #[test]
    fn memory_is_used_again_and_no_more_is_kept_than_blocks_need() {
        let crew = Crew::new(1);
        drop((0..100).map(|_| crew.buffer(1000)).collect::<Vec<_>>());
        assert_eq!(crew.shared.lock().spare.len(), 2 * (1 + AHEAD));
        assert_eq!(crew.buffer(1000).bytes.capacity(), 1000);
        assert_eq!(crew.shared.lock().spare.len(), 2 * (1 + AHEAD));
    }

    #[test]
    fn as_many_threads_work_as_are_employed_and_no_more_than_there_is_work() {
        let crew = Crew::new(3);
        let (send, receive) = channel();
        for each in 0..50 {
            let send = send.clone();
            crew.employ(Box::new(move || send.send(each).unwrap()));
        }
        let mut done: Vec<i32> = receive.iter().take(50).collect();
        done.sort_unstable();
        assert_eq!(done, (0..50).collect::<Vec<_>>());
        assert!((1..=3).contains(&crew.shared.lock().started));
    }
}
