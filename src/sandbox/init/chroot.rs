//! The first process of a step that has no namespaces: it changes its root, starts the program, and ends with nobody of the
//! step left. It outlives the engine if it must: the socket tells it.
//!
//! Source: chroot(2), capabilities(7).

use std::os::fd::OwnedFd;

use rustix::{
    io::Errno,
    process::Pid,
    thread::{CapabilitySet, CapabilitySets},
};

use super::{InitError, Orders, Report, drop_bounding_set, standard_streams, start};
use crate::{
    sandbox::{Network, family::Family},
    sys,
};

pub(super) fn begin(socket: &OwnedFd, orders: &Orders, root: &OwnedFd) -> Result<(Pid, Family), InitError> {
    // Else the end of the engine would leave nobody to end the step.
    rustix::process::set_parent_process_death_signal(None).map_err(InitError::new("start", "the step"))?;
    let family = Family::adopt()?;
    rustix::process::setsid().map_err(InitError::new("start", "the step"))?;
    // A container may have none.
    sys::leave_session_keyring().ok();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if orders.network == Network::None {
        sys::unshare_network().map_err(InitError::new("make", "a network without connections"))?;
        sys::raise_loopback().map_err(InitError::new("raise", "lo"))?;
    }
    let failed = |step: &'static str| InitError::new::<Errno>(step, "/");
    rustix::process::fchdir(root).map_err(failed("enter"))?;
    rustix::process::chroot(c".").map_err(failed("change the root to"))?;
    rustix::process::chdir(c"/").map_err(failed("enter"))?;
    Report::Mounted(Vec::new()).send(socket).map_err(InitError::new("report", "mounts"))?;
    standard_streams(orders)?;
    restrict()?;
    // A filter of system calls would need a right that a container's root has not; the container has its own.
    let started = start(orders, root, &[], None);
    keep(CapabilitySet::KILL).map_err(InitError::new("drop", "capabilities"))?;
    started.map(|program| (program, family))
}

/// What Docker gives a step, as far as this process has it.
fn restrict() -> Result<(), InitError> {
    // Where nothing can be dropped: no container gives less than that right and more than others.
    drop_bounding_set(Some(Errno::PERM))?;
    let have = rustix::thread::capabilities(None).map_err(InitError::new("drop", "capabilities"))?;
    let sets = CapabilitySets { inheritable: CapabilitySet::empty(), ..have };
    rustix::thread::set_capabilities(None, sets).map_err(InitError::new("drop", "capabilities"))
}

fn keep(right: CapabilitySet) -> Result<(), Errno> {
    let have = rustix::thread::capabilities(None)?;
    let right = have.permitted & right;
    rustix::thread::set_capabilities(None, CapabilitySets { effective: right, permitted: right, inheritable: CapabilitySet::empty() })
}
