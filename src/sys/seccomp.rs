//! Filters of system calls, as the kernel takes them.
//!
//! Source: seccomp(2), `linux/filter.h`.

use std::io;

/// One instruction of a program that judges a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What is done.
    pub code: u16,
    /// How many instructions are passed over if a comparison holds.
    pub jt: u8,
    /// How many if it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A program that judges every system call of the process that installed it, and of all that come from it.
#[derive(Debug, Clone)]
pub struct Filter(Vec<libc::sock_filter>);

/// A cell of the form in which [`Filter::to_bytes`] gives an instruction.
const CELL: usize = 8;

impl Filter {
    /// A program as written; the kernel checks it when it is installed.
    pub fn new(program: impl IntoIterator<Item = Instruction>) -> Self {
        let cell = |one: Instruction| libc::sock_filter { code: one.code, jt: one.jt, jf: one.jf, k: one.k };
        Self(program.into_iter().map(cell).collect())
    }

    /// For another process of this program on this machine.
    pub fn to_bytes(&self) -> Vec<u8> {
        let cell = |one: &libc::sock_filter| {
            let jumps = [one.jt, one.jf];
            one.code.to_ne_bytes().into_iter().chain(jumps).chain(one.k.to_ne_bytes())
        };
        self.0.iter().flat_map(cell).collect()
    }

    /// What [`Filter::to_bytes`] gave. `None`: it did not.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (cells, rest) = bytes.as_chunks::<CELL>();
        let cell = |&[code @ .., jt, jf, k0, k1, k2, k3]: &[u8; CELL]| libc::sock_filter {
            code: u16::from_ne_bytes(code),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        };
        rest.is_empty().then(|| Self(cells.iter().map(cell).collect()))
    }

    /// Sets it for this process, for good; the caller has `CAP_SYS_ADMIN` in its user namespace, or can gain no
    /// privileges. Allocates nothing.
    pub(super) fn install(&self) -> Result<(), i32> {
        let len = libc::c_ushort::try_from(self.0.len()).map_err(|_too_long| libc::E2BIG)?;
        // The kernel does not write to it.
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // Without the flag, kernels before 5.16 make every program of the step slower, against an attack on itself.
        let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        // SAFETY: the structure and the instructions it points to live here, and its length is theirs.
        match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_crosses_to_another_process_as_it_is() {
        let all = [Instruction { code: 0x15, jt: 1, jf: 2, k: 0xc000_003e }, Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }];
        let bytes = Filter::new(all).to_bytes();
        assert_eq!(Filter::from_bytes(&bytes).unwrap().to_bytes(), bytes);
        assert_eq!(bytes.len(), 16);
        assert!(Filter::from_bytes(&bytes[..9]).is_none());
    }
}
