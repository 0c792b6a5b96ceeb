//! The program of a filter: which architecture, then a search for the number by halves, then the verdict.
//!
//! The kernel runs the program for each number once, without arguments, when it is installed; calls that are always
//! allowed cost nothing from then on. A binary search keeps the others cheap.
//!
//! Source: seccomp(2), `linux/seccomp.h`, `linux/audit.h`, `linux/bpf_common.h`.

use std::collections::BTreeMap;

use super::{Condition, ENOSYS, EPERM, Test, Verdict};
use crate::sys::{Filter, Instruction};

/// A way to make system calls, with numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arch {
    X86_64,
    I386,
    Aarch64,
    Arm,
}

impl Arch {
    #[cfg(test)]
    pub(super) const ALL: [Self; 4] = [Self::X86_64, Self::I386, Self::Aarch64, Self::Arm];

    /// Its place among the numbers of a row.
    pub(super) fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::I386 => 1,
            Self::Aarch64 => 2,
            Self::Arm => 3,
        }
    }

    /// What the kernel calls it.
    fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the table of system calls has no numbers for this architecture");

/// What runs on this machine: its own programs, and those of its 32-bit elder.
pub(super) const HERE: [Arch; 2] = if cfg!(target_arch = "aarch64") { [Arch::Aarch64, Arch::Arm] } else { [Arch::X86_64, Arch::I386] };

/// `struct seccomp_data`: where the number, the architecture and the low words of the arguments are.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_ABOVE: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const ALLOW: u32 = 0x7fff_0000;

/// Numbers of the architecture's own, beside the common ones.
const PRIVATE: u32 = 0xf_0000;

/// A filter of these tables. Another architecture ends the process: no kernel that we know has one.
pub(super) fn of(tables: &[(Arch, BTreeMap<u32, Verdict>)]) -> Filter {
    let mut program = vec![load(ARCH)];
    for (arch, verdicts) in tables {
        let mut section = vec![load(NUMBER)];
        section.extend(search(&ranges(verdicts)));
        program.push(test(IF_EQUAL, arch.audit(), 1, 0));
        program.push(jump(section.len()));
        program.append(&mut section);
    }
    program.push(answer(KILL_PROCESS));
    Filter::new(program)
}

/// The first number of each range of numbers with one verdict. The first begins at 0.
fn ranges(verdicts: &BTreeMap<u32, Verdict>) -> Vec<(u32, Verdict)> {
    let highest = verdicts.keys().copied().filter(|number| *number < PRIVATE).max().unwrap_or_default();
    let mut starts: Vec<(u32, Verdict)> = Vec::new();
    let mut next = 0;
    // A number that the table does not know may be of a newer kernel: programs have a way to do without it.
    let unknown = |number: u32| Verdict::Refused(if number > highest { ENOSYS } else { EPERM });
    for (number, verdict) in verdicts {
        if *number > next {
            starts.push((next, unknown(next)));
        }
        starts.push((*number, verdict.clone()));
        next = number + 1;
    }
    starts.push((next, unknown(next.max(highest + 1))));
    starts.dedup_by(|later, earlier| later.1 == earlier.1);
    starts
}

/// The number is loaded; every way through ends in an answer.
fn search(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    match ranges {
        [] => vec![answer(ERRNO | u32::from(EPERM))],
        [(_, verdict)] => verdict_program(verdict),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let from = high.first().map_or(0, |(first, _)| *first);
            let (low, high) = (search(low), search(high));
            let mut program = match u8::try_from(low.len()) {
                Ok(near) => vec![test(IF_AT_LEAST, from, near, 0)],
                Err(_far) => vec![test(IF_AT_LEAST, from, 0, 1), jump(low.len())],
            };
            program.extend(low);
            program.extend(high);
            program
        }
    }
}

fn verdict_program(verdict: &Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Allowed => vec![answer(ALLOW)],
        Verdict::Refused(errno) => vec![answer(ERRNO | u32::from(*errno))],
        Verdict::If(conditions) => {
            let each = conditions.iter().flat_map(|condition| {
                let [compare, loaded] = condition_program(*condition);
                [loaded, compare, answer(ALLOW)]
            });
            each.chain([answer(ERRNO | u32::from(EPERM))]).collect()
        }
    }
}

/// A comparison that goes to the next instruction if it holds, else past it; and what is to be loaded for it.
fn condition_program(Condition { argument, test: what }: Condition) -> [Instruction; 2] {
    let compare = match what {
        Test::Below(limit) => test(IF_AT_LEAST, limit, 1, 0),
        Test::Is(value) => test(IF_EQUAL, value, 0, 1),
        Test::Above(limit) => test(IF_ABOVE, limit, 0, 1),
        Test::Without(bits) => test(IF_ANY_BIT, bits, 1, 0),
    };
    // Little-endian machines only: the low word is the first.
    [compare, load(ARGUMENTS + 8 * u32::from(argument))]
}

fn load(at: u32) -> Instruction {
    Instruction { code: LOAD, jt: 0, jf: 0, k: at }
}

fn test(code: u16, operand: u32, holds: u8, fails: u8) -> Instruction {
    Instruction { code, jt: holds, jf: fails, k: operand }
}

fn jump(over: usize) -> Instruction {
    // A program is at most 4,096 instructions.
    Instruction { code: JUMP, jt: 0, jf: 0, k: u32::try_from(over).unwrap_or(u32::MAX) }
}

fn answer(what: u32) -> Instruction {
    Instruction { code: RETURN, jt: 0, jf: 0, k: what }
}

#[cfg(test)]
mod tests {
    use rustix::thread::CapabilitySet;

    use super::{
        super::table::{DOCKER, verdicts},
        *,
    };

    /// What the kernel would do with the program: a reading of its own.
    fn answer_to(program: &[u8], arch: u32, number: u32, argument: u64) -> u32 {
        let cells: Vec<&[u8; 8]> = program.as_chunks::<8>().0.iter().collect();
        let (mut at, mut loaded) = (0, 0_u32);
        loop {
            let &[code @ .., jt, jf, k0, k1, k2, k3] = cells[at];
            let (code, operand) = (u16::from_ne_bytes(code), u32::from_ne_bytes([k0, k1, k2, k3]));
            at += 1;
            let holds = match code {
                0x20 => {
                    loaded = match operand {
                        0 => number,
                        4 => arch,
                        16 => (argument & 0xffff_ffff) as u32,
                        other => unreachable!("{other}"),
                    };
                    continue;
                }
                0x05 => {
                    at += operand as usize;
                    continue;
                }
                0x06 => return operand,
                0x15 => loaded == operand,
                0x25 => loaded > operand,
                0x35 => loaded >= operand,
                0x45 => loaded & operand != 0,
                other => unreachable!("{other}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    fn both(capabilities: CapabilitySet) -> Vec<u8> {
        of(&[Arch::X86_64, Arch::I386].map(|arch| (arch, verdicts(DOCKER, arch, capabilities)))).to_bytes()
    }

    const X86_64: u32 = 0xc000_003e;
    const REFUSED: u32 = 0x0005_0001;
    const UNKNOWN: u32 = 0x0005_0026;

    #[test]
    fn each_number_gets_what_its_row_says_and_a_program_fits_the_kernel() {
        for capabilities in [CapabilitySet::empty(), CapabilitySet::SYS_CHROOT, CapabilitySet::all()] {
            for pair in [[Arch::X86_64, Arch::I386], [Arch::Aarch64, Arch::Arm]] {
                let tables = pair.map(|arch| (arch, verdicts(DOCKER, arch, capabilities)));
                let program = of(&tables).to_bytes();
                assert!(program.len() / 8 < 4096, "{}", program.len() / 8);
                for (arch, verdicts) in tables {
                    for number in 0..470 {
                        let expected = match verdicts.get(&number) {
                            Some(Verdict::Allowed) => ALLOW,
                            Some(Verdict::Refused(errno)) => ERRNO | u32::from(*errno),
                            // Neither clone nor socket nor personality: nothing of what 0xffff_fffe asks is allowed.
                            Some(Verdict::If(_)) => continue,
                            None if number > 466 => UNKNOWN,
                            None => REFUSED,
                        };
                        assert_eq!(answer_to(&program, arch.audit(), number, 0), expected, "{arch:?} {number}");
                    }
                }
            }
        }
    }

    #[test]
    fn conditions_look_at_what_the_kernel_reads_of_an_argument() {
        let program = both(CapabilitySet::empty());
        let call = |number, argument| answer_to(&program, X86_64, number, argument);
        // socket: neither AF_ALG nor AF_VSOCK
        let refused: Vec<u64> = (0..60).filter(|family| call(41, *family) != ALLOW).collect();
        assert_eq!(refused, [38, 40]);
        assert_eq!(call(41, 0x1_0000_0026), REFUSED);
        // clone: no namespaces
        assert_eq!((call(56, 0x0001_2011), call(56, 0x1000_0011), call(56, 0x0002_0011)), (ALLOW, REFUSED, REFUSED));
        // personality
        let allowed = [0, 8, 0x20000, 0x20008, 0xffff_ffff].map(|value| call(135, value));
        assert_eq!((allowed, call(135, 1)), ([ALLOW; 5], REFUSED));
    }

    #[test]
    fn x32_is_not_there_and_an_architecture_of_no_table_ends_the_process() {
        let program = both(CapabilitySet::all());
        assert_eq!(answer_to(&program, X86_64, 0x4000_0000, 0), UNKNOWN);
        assert_eq!(answer_to(&program, X86_64, u32::MAX, 0), UNKNOWN);
        assert_eq!(answer_to(&program, 0xc000_00b7, 0, 0), KILL_PROCESS);
        // read of i386
        assert_eq!(answer_to(&program, 0x4000_0003, 3, 0), ALLOW);
    }
}
