//! What a step may use: limits of its processes, of its control group, of its time and of what it writes.

use std::time::Duration;

use rustix::{
    io::Errno,
    process::{Resource, getrlimit, setrlimit},
};
use serde::{Deserialize, Serialize};

use super::cgroup::Setting;

/// What a step may use. Nothing said means nothing limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Limits of each process; each resource once.
    pub processes: Vec<ProcessLimit>,
    /// The size of /dev/shm in bytes; `None`: 64 MiB.
    pub shared_memory: Option<u64>,
    /// How long it may run.
    pub time: Option<Duration>,
    /// How many bytes of the disk it may fill.
    pub disk: Option<u64>,
    /// Settings of its control group.
    pub group: Vec<Setting>,
    /// The control group that its own is made in, below the root of all; `None`: the engine's.
    pub group_parent: Option<String>,
}

/// A limit of each process of a step; `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimit {
    /// Of what.
    pub of: Limited,
    /// What applies.
    pub soft: Option<u64>,
    /// How far a process may raise it.
    pub hard: Option<u64>,
}

/// What a [`ProcessLimit`] limits, as setrlimit(2) has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of setrlimit(2)")]
pub enum Limited {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl Limited {
    /// All, with the names that Docker gives them.
    pub const ALL: [(&'static str, Self); 15] = [
        ("core", Self::Core),
        ("cpu", Self::Cpu),
        ("data", Self::Data),
        ("fsize", Self::Fsize),
        ("locks", Self::Locks),
        ("memlock", Self::Memlock),
        ("msgqueue", Self::Msgqueue),
        ("nice", Self::Nice),
        ("nofile", Self::Nofile),
        ("nproc", Self::Nproc),
        ("rss", Self::Rss),
        ("rtprio", Self::Rtprio),
        ("rttime", Self::Rttime),
        ("sigpending", Self::Sigpending),
        ("stack", Self::Stack),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).map_or("", |(name, _)| name)
    }

    fn resource(self) -> Resource {
        match self {
            Self::Core => Resource::Core,
            Self::Cpu => Resource::Cpu,
            Self::Data => Resource::Data,
            Self::Fsize => Resource::Fsize,
            Self::Locks => Resource::Locks,
            Self::Memlock => Resource::Memlock,
            Self::Msgqueue => Resource::Msgqueue,
            Self::Nice => Resource::Nice,
            Self::Nofile => Resource::Nofile,
            Self::Nproc => Resource::Nproc,
            Self::Rss => Resource::Rss,
            Self::Rtprio => Resource::Rtprio,
            Self::Rttime => Resource::Rttime,
            Self::Sigpending => Resource::Sigpending,
            Self::Stack => Resource::Stack,
        }
    }
}

impl ProcessLimit {
    /// Makes sure that a step of ours can have it: a hard limit above this process's own is raised, which only root can.
    /// `Err`: our own hard limit, which is in the way. Source: setrlimit(2), `CAP_SYS_RESOURCE`.
    pub fn prepare(&self) -> Result<(), u64> {
        let ours = getrlimit(self.of.resource());
        match ours.maximum {
            Some(most) if self.hard.is_none_or(|hard| hard > most) => {
                let more = rustix::process::Rlimit { current: ours.current, maximum: self.hard };
                setrlimit(self.of.resource(), more).map_err(|_refused: Errno| most)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// As the kernel takes it.
    pub(super) fn raw(&self) -> crate::sys::ResourceLimit {
        let value = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        crate::sys::ResourceLimit { resource: self.of.resource() as u32, soft: value(self.soft), hard: value(self.hard) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resource_has_one_name_and_the_number_of_the_kernel() {
        let raw = |of: Limited| ProcessLimit { of, soft: Some(1), hard: None }.raw();
        assert!(Limited::ALL.iter().all(|(name, one)| one.name() == *name));
        // RLIMIT_NOFILE, RLIMIT_CORE, RLIMIT_RTTIME
        assert_eq!([Limited::Nofile, Limited::Core, Limited::Rttime].map(|of| raw(of).resource), [7, 4, 15]);
        assert_eq!((raw(Limited::Cpu).soft, raw(Limited::Cpu).hard), (1, u64::MAX));
    }
}
