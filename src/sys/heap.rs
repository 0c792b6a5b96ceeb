//! Where the threads of this process have their memory.
//!
//! Source: mallopt(3); glibc `malloc/arena.c` (`grow_heap`).

/// Gives all threads one heap, from now on. glibc makes one for each, which holds on to what its thread no longer needs, and
/// which grows page by page, with a call to the kernel each time.
pub fn share_heap() {
    // SAFETY: it takes two numbers and changes a setting of the allocator, under the allocator's own lock.
    let _taken: libc::c_int = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
