//! The system calls that a step may make: the default profile of Docker, for the capabilities that the step has.
//!
//! - `docker.table`: the profile as facts, with its source.
//! - `table`: what the table says. `program`: the filter made of it.
//!
//! Two differences to what libseccomp makes of the profile: of an argument only the word that the kernel reads is
//! looked at (`socket(0x1_0000_0026, …)` is `AF_ALG` and not some family above 40), and x32 is a kernel without x32.
//! As with Docker, i386 programs reach the families that are refused through `socketcall`, whose arguments no
//! filter can see.

mod program;
mod table;

use rustix::thread::CapabilitySet;

use crate::sys::Filter;

/// What a call gets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// Refused with this number.
    Refused(u16),
    /// Allowed if one of these holds, else EPERM.
    If(Vec<Condition>),
}

/// What the first word of an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    /// Which argument, from 0.
    argument: u8,
    test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Below(u32),
    Is(u32),
    Above(u32),
    /// None of these bits.
    Without(u32),
}

/// The kernel's numbers of what is answered: `linux/errno.h` is the same on all that we know.
const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// A filter for a step with these capabilities, for the machine that this program is made for.
pub(super) fn docker(capabilities: CapabilitySet) -> Filter {
    program::of(&program::HERE.map(|arch| (arch, table::verdicts(table::DOCKER, arch, capabilities))))
}
