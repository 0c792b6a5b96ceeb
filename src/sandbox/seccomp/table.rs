//! The table of calls, read for one architecture and one set of capabilities. It is our own file: a row that is not
//! understood is a bug, which a test finds; such a row allows nothing.

use std::collections::BTreeMap;

use rustix::thread::CapabilitySet;

use super::{Condition, EPERM, Test, Verdict, program::Arch};

/// The profile.
pub(super) const DOCKER: &str = include_str!("docker.table");

/// Capabilities by their names in the table.
const CAPABILITIES: [(&str, CapabilitySet); 14] = [
    ("BPF", CapabilitySet::BPF),
    ("DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH),
    ("PERFMON", CapabilitySet::PERFMON),
    ("SYSLOG", CapabilitySet::SYSLOG),
    ("SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("SYS_BOOT", CapabilitySet::SYS_BOOT),
    ("SYS_CHROOT", CapabilitySet::SYS_CHROOT),
    ("SYS_MODULE", CapabilitySet::SYS_MODULE),
    ("SYS_NICE", CapabilitySet::SYS_NICE),
    ("SYS_PACCT", CapabilitySet::SYS_PACCT),
    ("SYS_PTRACE", CapabilitySet::SYS_PTRACE),
    ("SYS_RAWIO", CapabilitySet::SYS_RAWIO),
    ("SYS_TIME", CapabilitySet::SYS_TIME),
    ("SYS_TTY_CONFIG", CapabilitySet::SYS_TTY_CONFIG),
];

/// One row, for one architecture.
struct Row {
    number: Option<u32>,
    /// Does it count for these capabilities?
    counts: bool,
    verdict: Verdict,
}

/// What each number gets, and 0 to the highest number known to the table that are in no row EPERM.
pub(super) fn verdicts(table: &str, arch: Arch, capabilities: CapabilitySet) -> BTreeMap<u32, Verdict> {
    let mut verdicts = BTreeMap::new();
    for row in rows(table).filter_map(|line| row(line, arch, capabilities)) {
        let Some(number) = row.number else { continue };
        let verdict = verdicts.entry(number).or_insert(Verdict::Refused(EPERM));
        if row.counts {
            add(verdict, row.verdict);
        }
    }
    verdicts
}

/// One more row of the same call.
fn add(verdict: &mut Verdict, more: Verdict) {
    match (&mut *verdict, more) {
        (Verdict::Allowed, _) | (Verdict::If(_), Verdict::Refused(_)) => {}
        (Verdict::If(conditions), Verdict::If(more)) => conditions.extend(more),
        (Verdict::Refused(_), more) | (_, more @ Verdict::Allowed) => *verdict = more,
    }
}

fn rows(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn row(line: &str, arch: Arch, capabilities: CapabilitySet) -> Option<Row> {
    let mut words = line.split(' ').skip(1);
    let numbers: Vec<&str> = words.by_ref().take(4).collect();
    let number = match *numbers.get(arch.column())? {
        "-" => None,
        number => Some(number.parse().ok()?),
    };
    let mut row = Row { number, counts: true, verdict: Verdict::Allowed };
    for word in words {
        if let Some(name) = word.strip_prefix("with:") {
            row.counts &= capabilities.contains(capability(name)?);
        } else if let Some(name) = word.strip_prefix("without:") {
            row.counts &= !capabilities.contains(capability(name)?);
        } else if let Some(errno) = word.strip_prefix("errno:") {
            row.verdict = Verdict::Refused(errno.parse().ok()?);
        } else {
            row.verdict = Verdict::If(vec![condition(word)?]);
        }
    }
    Some(row)
}

fn capability(name: &str) -> Option<CapabilitySet> {
    CAPABILITIES.iter().find(|(known, _)| *known == name).map(|(_, capability)| *capability)
}

/// `arg0<38`, `arg0=8`, `arg0>40`, `arg0&0x10=0`.
fn condition(word: &str) -> Option<Condition> {
    let (argument, rest) = word.strip_prefix("arg")?.split_at_checked(1)?;
    let (sign, rest) = rest.split_at_checked(1)?;
    let test = match sign {
        "<" => Test::Below(value(rest)?),
        "=" => Test::Is(value(rest)?),
        ">" => Test::Above(value(rest)?),
        "&" => Test::Without(value(rest.strip_suffix("=0")?)?),
        _ => return None,
    };
    Some(Condition { argument: argument.parse().ok().filter(|argument| *argument < 6)?, test })
}

fn value(text: &str) -> Option<u32> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_understood_for_every_architecture() {
        for arch in Arch::ALL {
            let count = rows(DOCKER).map(|line| assert!(row(line, arch, CapabilitySet::all()).is_some(), "{line}")).count();
            assert!(count > 400, "{count}");
        }
    }

    #[test]
    fn a_capability_makes_a_row_count() {
        let of = |capabilities| verdicts(DOCKER, Arch::X86_64, capabilities);
        let (some, all) = (of(CapabilitySet::SYS_CHROOT), of(CapabilitySet::all()));
        // mount, chroot, unshare, clone3, clone
        assert_eq!((&some[&165], &all[&165]), (&Verdict::Refused(EPERM), &Verdict::Allowed));
        assert_eq!((&some[&161], &of(CapabilitySet::empty())[&161]), (&Verdict::Allowed, &Verdict::Refused(EPERM)));
        assert_eq!((&some[&272], &all[&272]), (&Verdict::Refused(EPERM), &Verdict::Allowed));
        assert_eq!((&some[&435], &all[&435]), (&Verdict::Refused(super::super::ENOSYS), &Verdict::Allowed));
        let without = Verdict::If(vec![Condition { argument: 0, test: Test::Without(0x7e02_0000) }]);
        assert_eq!((&some[&56], &all[&56]), (&without, &Verdict::Allowed));
    }
}
