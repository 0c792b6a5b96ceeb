//! Why there is no engine: what was tried, what the kernel said, and which knob is missing.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tried {
    /// Starting this program again.
    Start,
    /// Making a user and a mount namespace.
    Unshare,
    /// Finding the ids that the user may use.
    FindIds,
    /// Writing the id maps.
    WriteMap,
    /// Becoming root inside.
    BecomeRoot,
    /// Making the mounts private.
    PrivateMounts,
    /// Being root without a user namespace.
    BecomeHostRoot,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "starting the engine's process",
            Self::Unshare => "making a user namespace",
            Self::FindIds => "finding subordinate ids",
            Self::WriteMap => "writing the id maps",
            Self::BecomeRoot => "becoming root in the user namespace",
            Self::PrivateMounts => "making the mounts private",
            Self::BecomeHostRoot => "being root without a user namespace",
        })
    }
}

/// What is missing, and what provides it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Knob {
    /// `kernel.unprivileged_userns_clone` is 0.
    UnprivilegedClone,
    /// The limit on user namespaces is reached: `user.max_user_namespaces`, with its value.
    MaxUserNamespaces(String),
    /// `AppArmor` takes the rights of a user namespace away.
    AppArmor,
    /// A container's seccomp profile or security module forbids it.
    Container,
    /// /proc is mounted read-only: no id map can be written.
    ReadOnlyProc,
    /// `newuidmap` or `newgidmap` is not installed.
    NoHelper(String),
    /// They are, without the right to write maps.
    PlainHelper(String),
    /// The user has no line in this file.
    NoIds {
        /// `/etc/subuid` or `/etc/subgid`.
        file: String,
        /// The user's name.
        user: String,
    },
    /// Root in a namespace that has a single id.
    SingleId,
    /// This user is not root.
    NotRoot,
    /// It was not asked for, and root is not a container's here.
    NotAskedFor,
    /// Root without these capabilities.
    Capabilities(String),
}

impl Knob {
    /// The command that turns it, if one does.
    pub fn command(&self) -> Option<String> {
        match self {
            Self::UnprivilegedClone => Some("sysctl -w kernel.unprivileged_userns_clone=1".to_owned()),
            Self::MaxUserNamespaces(_) => Some("sysctl -w user.max_user_namespaces=15000".to_owned()),
            Self::AppArmor => {
                let profile = "/etc/apparmor.d/lapstrake";
                Some(format!("lapstrake doctor --apparmor-profile > {profile} && apparmor_parser -r {profile}"))
            }
            Self::ReadOnlyProc => Some("mount -o remount,bind,rw /proc".to_owned()),
            Self::NoHelper(_) => Some("apt-get install uidmap".to_owned()),
            Self::PlainHelper(path) => Some(format!("chmod u+s {path}")),
            Self::NoIds { file, user } if user.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(format!("echo {user}:100000:65536 >> {file}"))
            }
            Self::NoIds { file, user } => {
                let what = if file.ends_with("gid") { "--add-subgids" } else { "--add-subuids" };
                Some(format!("usermod {what} 100000-165535 {user}"))
            }
            Self::Container | Self::SingleId | Self::NotRoot | Self::NotAskedFor | Self::Capabilities(_) => None,
        }
    }

    /// What to do, as a line: the command for root, or how a container is started.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Container => {
                Some("in Docker: `--security-opt seccomp=unconfined`; in Kubernetes: `seccompProfile: {type: Unconfined}`".to_owned())
            }
            Self::Capabilities(names) => Some(format!("in Docker: `--cap-add` of {names}")),
            Self::NotAskedFor => Some("`--driver chroot`, if you trust what is built".to_owned()),
            Self::UnprivilegedClone
            | Self::MaxUserNamespaces(_)
            | Self::AppArmor
            | Self::ReadOnlyProc
            | Self::NoHelper(_)
            | Self::PlainHelper(_)
            | Self::NoIds { .. }
            | Self::SingleId
            | Self::NotRoot => self.command().map(|command| format!("as root: `{command}`")),
        }
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnprivilegedClone => f.write_str("`kernel.unprivileged_userns_clone` is 0"),
            Self::MaxUserNamespaces(limit) => write!(f, "the limit `user.max_user_namespaces` ({limit}) is reached"),
            Self::AppArmor => f.write_str("`kernel.apparmor_restrict_unprivileged_userns` is 1: AppArmor wants a profile for this program"),
            Self::ReadOnlyProc => f.write_str("/proc is mounted read-only"),
            Self::Container => f.write_str("a seccomp profile or a security module forbids it"),
            Self::NoHelper(name) => write!(f, "`{name}` is not installed (package uidmap or shadow-utils)"),
            Self::PlainHelper(path) => write!(f, "`{path}` is neither setuid root nor has it the capability"),
            Self::NoIds { file, user } => write!(f, "`{file}` has no line for `{user}`"),
            Self::SingleId => f.write_str("this user namespace has one id only"),
            Self::NotRoot => f.write_str("only root can"),
            Self::NotAskedFor => f.write_str("steps would not be confined, and root here is more than a container's"),
            Self::Capabilities(names) => write!(f, "root lacks the capabilities {names} here"),
        }
    }
}

/// Why there is no engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnterError {
    /// What was tried.
    pub tried: Tried,
    /// What the kernel, or the helper, said. Empty: neither was asked.
    pub said: String,
    /// The kernel's number for it, if it was the kernel.
    pub errno: Option<i32>,
    /// What is missing, if that is known.
    pub knob: Option<Knob>,
}

impl fmt::Display for EnterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.tried)?;
        match &self.knob {
            Some(knob) if self.said.is_empty() => write!(f, "{knob}"),
            Some(knob) => write!(f, "{}; {knob}", self.said),
            None => f.write_str(&self.said),
        }
    }
}

impl std::error::Error for EnterError {}

impl EnterError {
    pub(in crate::sandbox) fn new(tried: Tried, error: &io::Error) -> Self {
        let errno = error.raw_os_error();
        let knob = errno.and_then(|errno| blame(tried, errno, &|path| std::fs::read_to_string(path).ok()));
        // ENOSPC here is a limit of namespaces, and "No space left on device" would send the user to look at disks.
        let said = match (tried, &knob) {
            (Tried::Unshare, Some(Knob::MaxUserNamespaces(_))) => "ENOSPC".to_owned(),
            _ => error.to_string(),
        };
        Self { tried, said, errno, knob }
    }

    pub(super) fn missing(tried: Tried, knob: Knob) -> Self {
        Self { tried, said: String::new(), errno: None, knob: Some(knob) }
    }

    /// The host's ids may be used, and were not asked for.
    pub(in crate::sandbox) fn not_asked_for() -> Self {
        Self::missing(Tried::BecomeHostRoot, Knob::NotAskedFor)
    }

    pub(super) fn helper(said: String, path: &str) -> Self {
        let knob = if said.contains("Read-only file system") {
            Some(Knob::ReadOnlyProc)
        } else {
            said.contains("Operation not permitted").then(|| Knob::PlainHelper(path.to_owned()))
        };
        Self { tried: Tried::WriteMap, said, errno: None, knob }
    }
}

/// Which knob an errno points to; `read` reads a file of /proc/sys.
fn blame(tried: Tried, errno: i32, read: &dyn Fn(&str) -> Option<String>) -> Option<Knob> {
    let value = |path: &str| read(path).map(|text| text.trim().to_owned());
    let refused = errno == rustix::io::Errno::PERM.raw_os_error() || errno == rustix::io::Errno::ACCESS.raw_os_error();
    match tried {
        Tried::Unshare if errno == rustix::io::Errno::NOSPC.raw_os_error() => {
            Some(Knob::MaxUserNamespaces(value("/proc/sys/user/max_user_namespaces").unwrap_or_else(|| "unknown".to_owned())))
        }
        Tried::WriteMap if errno == rustix::io::Errno::ROFS.raw_os_error() => Some(Knob::ReadOnlyProc),
        Tried::Unshare | Tried::WriteMap | Tried::BecomeRoot | Tried::PrivateMounts if refused => {
            if value("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
                Some(Knob::UnprivilegedClone)
            } else if value("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
                Some(Knob::AppArmor)
            } else {
                Some(Knob::Container)
            }
        }
        Tried::Start
        | Tried::Unshare
        | Tried::FindIds
        | Tried::WriteMap
        | Tried::BecomeRoot
        | Tried::PrivateMounts
        | Tried::BecomeHostRoot => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tried: Tried, errno: i32, path: &'static str, value: &'static str) -> Option<Knob> {
        blame(tried, errno, &move |asked| (asked == path).then(|| value.to_owned()))
    }

    #[test]
    fn a_full_table_of_namespaces_is_not_called_a_full_disk() {
        let error = EnterError::new(Tried::Unshare, &io::Error::from_raw_os_error(libc_enospc()));
        assert!(!error.to_string().contains("space left"), "{error}");
        assert!(error.to_string().contains("user.max_user_namespaces"), "{error}");
        assert!(error.knob.and_then(|knob| knob.command()).unwrap().contains("user.max_user_namespaces"));
    }

    fn libc_enospc() -> i32 {
        rustix::io::Errno::NOSPC.raw_os_error()
    }

    #[test]
    fn each_refusal_names_the_knob_that_is_set() {
        let eperm = rustix::io::Errno::PERM.raw_os_error();
        let clone = "/proc/sys/kernel/unprivileged_userns_clone";
        let apparmor = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
        assert_eq!(of(Tried::Unshare, eperm, clone, "0\n"), Some(Knob::UnprivilegedClone));
        assert_eq!(of(Tried::Unshare, eperm, clone, "1\n"), Some(Knob::Container));
        assert_eq!(of(Tried::PrivateMounts, eperm, apparmor, "1\n"), Some(Knob::AppArmor));
        assert_eq!(of(Tried::PrivateMounts, eperm, apparmor, "0\n"), Some(Knob::Container));
        assert_eq!(of(Tried::Start, eperm, clone, "0\n"), None);
    }

    #[test]
    fn missing_ids_come_with_the_command_that_adds_them() {
        let knob = Knob::NoIds { file: "/etc/subgid".to_owned(), user: "ann".to_owned() };
        assert_eq!(knob.command().unwrap(), "usermod --add-subgids 100000-165535 ann");
    }
}
