//! A SHA-256 that is taken beside the work on the same bytes.
//!
//! Invariant: a few blocks wait for their digest and no more, so memory is bounded; what is too small for a thread has none.

use std::{
    panic::resume_unwind,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Builder, JoinHandle},
};

use sha2::{Digest as _, Sha256};

use crate::oci::Digest;

/// How many blocks wait for their digest.
const WAITING: usize = 4;

/// A digest of blocks that are bytes to `bytes`.
#[derive(Debug)]
pub struct Digesting<B> {
    bytes: fn(&B) -> &[u8],
    by: By<B>,
}

#[derive(Debug)]
enum By<B> {
    /// Who has the bytes.
    Itself(Sha256),
    Thread(SyncSender<B>, JoinHandle<Sha256>),
}

impl<B: Send + 'static> Digesting<B> {
    /// Of nothing yet, and with no thread.
    pub fn new(bytes: fn(&B) -> &[u8]) -> Self {
        Self { bytes, by: By::Itself(Sha256::new()) }
    }

    /// From now on a thread takes it. Where none can be had, all stays as it is.
    pub fn go_beside(&mut self) {
        let By::Itself(digest) = &self.by else { return };
        let (digest, bytes) = (digest.clone(), self.bytes);
        let (send, blocks) = sync_channel(WAITING);
        if let Ok(thread) = Builder::new().name("digest".to_owned()).spawn(move || take(digest, bytes, &blocks)) {
            self.by = By::Thread(send, thread);
        }
    }

    /// For bytes that are nobody's to hand on. `None`: a thread has it.
    pub fn itself(&mut self) -> Option<&mut Sha256> {
        match &mut self.by {
            By::Itself(digest) => Some(digest),
            By::Thread(..) => None,
        }
    }

    /// Goes on with a block.
    pub fn update(&mut self, block: B) {
        match &mut self.by {
            By::Itself(digest) => digest.update((self.bytes)(&block)),
            // The thread ends before this end is dropped only by a panic, which shows when it is joined.
            By::Thread(blocks, _) => drop(blocks.send(block)),
        }
    }

    /// Of all of it.
    pub fn finish(self) -> Digest {
        let digest = match self.by {
            By::Itself(digest) => digest,
            By::Thread(blocks, thread) => {
                drop(blocks);
                thread.join().unwrap_or_else(|panic| resume_unwind(panic))
            }
        };
        Digest::from_bytes(digest.finalize().into())
    }
}

fn take<B>(mut digest: Sha256, bytes: fn(&B) -> &[u8], blocks: &Receiver<B>) -> Sha256 {
    for block in blocks {
        digest.update(bytes(&block));
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_same_with_and_without_a_thread_and_from_the_middle_on() {
        let blocks: Vec<Vec<u8>> = (0..50_u8).map(|each| vec![each; 1000 * usize::from(each)]).collect();
        let all = blocks.concat();
        for beside in [None, Some(0), Some(20)] {
            let mut digesting = Digesting::new(Vec::as_slice);
            for (number, block) in blocks.iter().enumerate() {
                if beside == Some(number) {
                    digesting.go_beside();
                }
                digesting.update(block.clone());
            }
            assert_eq!(digesting.itself().is_none(), beside.is_some());
            assert_eq!(digesting.finish(), Digest::of(&all));
        }
    }
}
