//! System calls by name, for filters and for who answers them. Those of the first list are everywhere; those of the second
//! are what x86-64 has besides, from before there were directories as fds.
//!
//! Source: the kernel's tables of system calls, syscalls(2).

macro_rules! calls {
    ({ $($name:ident = $number:expr,)* } { $($old:ident = $old_number:ident,)* }) => {
        /// A call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each is the call of its name")]
        pub enum Call { $($name,)* $($old,)* }

        impl Call {
            /// Its number, if this machine has it.
            pub(super) fn number(self) -> Option<libc::c_long> {
                match self {
                    $(Self::$name => Some($number),)*
                    $(#[cfg(target_arch = "x86_64")] Self::$old => Some(libc::$old_number),)*
                    #[cfg(not(target_arch = "x86_64"))]
                    _ => None,
                }
            }

            /// The call of a number.
            pub(super) fn of(number: libc::c_long) -> Option<Self> {
                $(if number == $number { return Some(Self::$name); })*
                #[cfg(target_arch = "x86_64")]
                {
                    $(if number == libc::$old_number { return Some(Self::$old); })*
                }
                None
            }
        }
    };
}

/// Not in every library's table, because newer machines have only the other one.
const RENAMEAT: libc::c_long = if cfg!(target_arch = "x86_64") { 264 } else { 38 };

calls! {
    {
        Newfstatat = libc::SYS_newfstatat,
        Fstat = libc::SYS_fstat,
        Statx = libc::SYS_statx,
        Getuid = libc::SYS_getuid,
        Geteuid = libc::SYS_geteuid,
        Getgid = libc::SYS_getgid,
        Getegid = libc::SYS_getegid,
        Openat = libc::SYS_openat,
        Execve = libc::SYS_execve,
        Execveat = libc::SYS_execveat,
        Faccessat = libc::SYS_faccessat,
        Faccessat2 = libc::SYS_faccessat2,
        Mkdirat = libc::SYS_mkdirat,
        Unlinkat = libc::SYS_unlinkat,
        Renameat = RENAMEAT,
        Renameat2 = libc::SYS_renameat2,
        Fchownat = libc::SYS_fchownat,
        Fchown = libc::SYS_fchown,
        Fchmodat = libc::SYS_fchmodat,
        Fchmodat2 = 452,
        Fchmod = libc::SYS_fchmod,
        Symlinkat = libc::SYS_symlinkat,
        Mknodat = libc::SYS_mknodat,
        Openat2 = libc::SYS_openat2,
        Getresuid = libc::SYS_getresuid,
        Getresgid = libc::SYS_getresgid,
        Getgroups = libc::SYS_getgroups,
        Setuid = libc::SYS_setuid,
        Setgid = libc::SYS_setgid,
        Setreuid = libc::SYS_setreuid,
        Setregid = libc::SYS_setregid,
        Setresuid = libc::SYS_setresuid,
        Setresgid = libc::SYS_setresgid,
        Setgroups = libc::SYS_setgroups,
        Setfsuid = libc::SYS_setfsuid,
        Setfsgid = libc::SYS_setfsgid,
        Prctl = libc::SYS_prctl,
        Capget = libc::SYS_capget,
        Kill = libc::SYS_kill,
        Getsockopt = libc::SYS_getsockopt,
        Bind = libc::SYS_bind,
        Getrlimit = libc::SYS_getrlimit,
        Setrlimit = libc::SYS_setrlimit,
        Prlimit64 = libc::SYS_prlimit64,
        Listxattr = libc::SYS_listxattr,
        Llistxattr = libc::SYS_llistxattr,
        Flistxattr = libc::SYS_flistxattr,
        Setxattr = libc::SYS_setxattr,
        Lsetxattr = libc::SYS_lsetxattr,
        Fsetxattr = libc::SYS_fsetxattr,
        Removexattr = libc::SYS_removexattr,
        Lremovexattr = libc::SYS_lremovexattr,
        Fremovexattr = libc::SYS_fremovexattr,
        // The kernel gives calls since 424 one number everywhere; the library's tables lag behind.
        Setxattrat = 463,
        Listxattrat = 465,
        Removexattrat = 466,
        IoUringSetup = 425,
    }
    {
        Open = SYS_open,
        Creat = SYS_creat,
        Stat = SYS_stat,
        Lstat = SYS_lstat,
        Access = SYS_access,
        Mkdir = SYS_mkdir,
        Rmdir = SYS_rmdir,
        Unlink = SYS_unlink,
        Rename = SYS_rename,
        Chown = SYS_chown,
        Lchown = SYS_lchown,
        Chmod = SYS_chmod,
        Symlink = SYS_symlink,
        Mknod = SYS_mknod,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_its_own_number() {
        for number in 0..500 {
            assert!(Call::of(number).is_none_or(|call| call.number() == Some(number)), "{number}");
        }
        assert_eq!(Call::of(libc::SYS_fchownat), Some(Call::Fchownat));
        assert_eq!(Call::of(libc::SYS_renameat2), Some(Call::Renameat2));
    }
}
