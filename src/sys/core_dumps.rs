//! Core dumps, and how to have none.
//!
//! Source: core(5), `fs/coredump.c`: a limit below the size of a page lets no file be written, and where dumps are piped to a
//! program the limit counts for nothing, except if it is one byte.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// This program and all that it starts write no memory to a file when they crash, unless they ask for it themselves.
pub fn no_core_dumps() -> std::io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Core);
    if current.is_some_and(|bytes| bytes <= 1) && maximum.is_some_and(|bytes| bytes == 0) {
        return Ok(());
    }
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(1), maximum })?)
}
