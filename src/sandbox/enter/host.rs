//! The engine as root of the machine, or of a container that allows no user namespace: nothing is entered.
//!
//! Source: capabilities(7).

use std::io;

use rustix::{io::Errno, thread::CapabilitySet};

use super::{EnterError, Knob, Tried, maps};

/// What owners, users and the changed root of a step need, with the names that a container's options have for them.
const NEEDED: [(CapabilitySet, &str); 7] = [
    (CapabilitySet::CHOWN, "CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "FOWNER"),
    (CapabilitySet::FSETID, "FSETID"),
    (CapabilitySet::SETGID, "SETGID"),
    (CapabilitySet::SETUID, "SETUID"),
    (CapabilitySet::SYS_CHROOT, "SYS_CHROOT"),
];

/// May this process mount? Root of an ordinary container may not.
pub(in crate::sandbox) fn may_mount() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Checks that this process is root and has what root usually has, and gives its groups up.
pub(super) fn enter() -> Result<(), EnterError> {
    let failed = |errno: Errno| EnterError::new(Tried::BecomeHostRoot, &io::Error::from(errno));
    if !rustix::process::geteuid().is_root() {
        return Err(EnterError::missing(Tried::BecomeHostRoot, Knob::NotRoot));
    }
    let had = rustix::thread::capabilities(None).map_err(failed)?.effective;
    let missing: Vec<&str> = NEEDED.iter().filter(|(right, _)| !had.contains(*right)).map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        return Err(EnterError::missing(Tried::BecomeHostRoot, Knob::Capabilities(missing.join(", "))));
    }
    // Where it cannot be read, nothing says that there are fewer.
    if maps::count().is_ok_and(|ids| ids < 2) {
        return Err(EnterError::missing(Tried::BecomeHostRoot, Knob::SingleId));
    }
    rustix::thread::set_thread_groups(&[]).map_err(failed)
}
