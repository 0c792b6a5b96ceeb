//! Every raw syscall, and the only `unsafe`. It decides no policy and knows no word of OCI or Dockerfile.

#![allow(unsafe_code, reason = "this is the one room that may; every block argues its own case")]

pub mod asking;
mod calls;
mod clock;
mod core_dumps;
pub mod dir;
mod error;
mod heap;
mod landlock;
mod namespace;
mod poll;
mod seccomp;
pub mod signals;
mod spawn;
pub mod task;
mod usage;
mod write_back;

pub use clock::{coarse_now, now, since_boot, thread_time};
pub use core_dumps::no_core_dumps;
pub use error::PathError;
pub use heap::share_heap;
pub use landlock::own_abstract_sockets;
pub use namespace::{
    child_signals, leave_session_keyring, own_program, raise_loopback, set_hostname, set_mount_attributes, unshare_mounts, unshare_network,
    unshare_user_and_mounts,
};
pub use poll::{is_ready, is_ready_within};
pub use seccomp::{Filter, Instruction};
pub use spawn::{Child, Launch, Namespaces, Program, ResourceLimit, Stage, Supervised, as_standard, inherited_fd};
pub use usage::{Usage, reap, used_by_all};
pub use write_back::WriteBack;
