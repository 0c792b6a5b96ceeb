//! Which calls the supervisor answers, as data. What is not here the kernel does by itself: reading and writing, opening
//! what is there, hard links. An owner's mark follows the inode.
//!
//! Calls of 32-bit programs kill the process: their numbers and structures are others, nothing of them is emulated, and an
//! errno for each call would let the program go on with wrong owners, or die somewhere else with another message. x32 calls
//! fail as on the many kernels that are built without them. `io_uring` would do files' calls past the filter, and is not
//! there; nor are the calls about attributes that are younger than what the supervisor knows, which programs do without.
//!
//! Source: SANDBOX.md, section 10, of the design; the calls' manual pages.

use rustix::io::Errno;

use crate::sys::asking::{Call, Filter, Rule, Verdict, When};

/// `O_CREAT`, and the bit of `O_TMPFILE` that is its own.
const MAKES: u32 = 0o100 | 0o20_000_000;
const RLIMIT_LOCKS: u32 = 10;
const PR_SET_KEEPCAPS: u32 = 8;
const SOL_SOCKET: u32 = 1;
const SO_PEERCRED: u32 = 17;
const SO_PEERGROUPS: u32 = 59;

/// Asked each time.
const ASKED: &[Call] = &[
    // What things are.
    Call::Newfstatat,
    Call::Fstat,
    Call::Statx,
    Call::Stat,
    Call::Lstat,
    Call::Access,
    Call::Faccessat,
    Call::Faccessat2,
    // Who a process is.
    Call::Getuid,
    Call::Geteuid,
    Call::Getgid,
    Call::Getegid,
    Call::Getresuid,
    Call::Getresgid,
    Call::Getgroups,
    Call::Capget,
    Call::Setuid,
    Call::Setgid,
    Call::Setreuid,
    Call::Setregid,
    Call::Setresuid,
    Call::Setresgid,
    Call::Setgroups,
    Call::Setfsuid,
    Call::Setfsgid,
    // What begins with another owner, or gets one.
    Call::Creat,
    Call::Openat2,
    Call::Mkdir,
    Call::Mkdirat,
    Call::Symlink,
    Call::Symlinkat,
    Call::Mknod,
    Call::Mknodat,
    Call::Bind,
    Call::Chown,
    Call::Lchown,
    Call::Fchown,
    Call::Fchownat,
    Call::Execve,
    Call::Execveat,
    // What only an owner may.
    Call::Chmod,
    Call::Fchmod,
    Call::Fchmodat,
    Call::Fchmodat2,
    Call::Unlink,
    Call::Unlinkat,
    Call::Rmdir,
    Call::Rename,
    Call::Renameat,
    Call::Renameat2,
    Call::Kill,
    // Where the marks are.
    Call::Listxattr,
    Call::Llistxattr,
    Call::Flistxattr,
    Call::Setxattr,
    Call::Lsetxattr,
    Call::Fsetxattr,
    Call::Removexattr,
    Call::Lremovexattr,
    Call::Fremovexattr,
];

/// Asked, or refused, if the arguments are these.
const SOMETIMES: &[(Call, When, Verdict)] = &[
    (Call::Openat, When::AnyBit(2, MAKES), Verdict::Ask),
    (Call::Open, When::AnyBit(1, MAKES), Verdict::Ask),
    (Call::Getsockopt, When::Both((1, SOL_SOCKET), (2, [SO_PEERCRED, SO_PEERGROUPS])), Verdict::Ask),
    (Call::Prctl, When::Equals(0, PR_SET_KEEPCAPS), Verdict::Ask),
    // The limit that credentials are kept in.
    (Call::Getrlimit, When::Equals(0, RLIMIT_LOCKS), Verdict::Ask),
    (Call::Prlimit64, When::Equals(1, RLIMIT_LOCKS), Verdict::Ask),
    (Call::Setrlimit, When::Equals(0, RLIMIT_LOCKS), Verdict::Refuse(None)),
    (Call::IoUringSetup, When::Always, Verdict::Refuse(Some(Errno::NOSYS))),
    (Call::Setxattrat, When::Always, Verdict::Refuse(Some(Errno::NOSYS))),
    (Call::Listxattrat, When::Always, Verdict::Refuse(Some(Errno::NOSYS))),
    (Call::Removexattrat, When::Always, Verdict::Refuse(Some(Errno::NOSYS))),
];

/// The filter of a step.
pub(crate) fn filter() -> Filter {
    let asked = ASKED.iter().map(|call| Rule { call: *call, when: When::Always, verdict: Verdict::Ask });
    let sometimes = SOMETIMES.iter().map(|(call, when, verdict)| Rule { call: *call, when: *when, verdict: *verdict });
    Filter::compile(&asked.chain(sometimes).collect::<Vec<_>>(), Verdict::Kill)
}
