//! The id maps of a user namespace: which extents, and who writes them.

use std::{fmt::Write as _, io, path::Path};

use rustix::process::Pid;

use super::{EnterError, Ids, Knob, Tried};

/// One line of `/proc/PID/uid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    inside: u32,
    outside: u32,
    count: u32,
}

/// Users or groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Users,
    Groups,
}

impl Which {
    fn map(self) -> &'static str {
        match self {
            Self::Users => "uid_map",
            Self::Groups => "gid_map",
        }
    }

    fn subordinates(self) -> &'static str {
        match self {
            Self::Users => "/etc/subuid",
            Self::Groups => "/etc/subgid",
        }
    }

    fn helper(self) -> &'static str {
        match self {
            Self::Users => "newuidmap",
            Self::Groups => "newgidmap",
        }
    }
}

/// What a whole image needs: ids up to 65535, nobody's included.
const ENOUGH: u32 = 65_536;

/// Where the helpers may be. The user's PATH is not asked: they run with root's rights.
const DIRECTORIES: [&str; 6] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/run/wrappers/bin"];

/// Writes both maps of a process that has just unshared, as whoever we are.
pub(super) fn write(pid: Pid, ids: Ids) -> Result<(), EnterError> {
    if ids == Ids::Single {
        return write_single(pid);
    }
    if rustix::process::geteuid().is_root() {
        let users = own(Which::Users)?;
        if count()? < 2 {
            return Err(EnterError::missing(Tried::FindIds, Knob::SingleId));
        }
        write_directly(pid, Which::Users, &to_themselves(&users))?;
        return write_directly(pid, Which::Groups, &to_themselves(&own(Which::Groups)?));
    }
    let uid = rustix::process::getuid().as_raw();
    let name = user_name(uid, &read_or_empty("/etc/passwd"));
    let with_own = |own: u32, which: Which| -> Result<Vec<Extent>, EnterError> {
        let ranges = subordinates(&read_or_empty(which.subordinates()), name.as_deref(), uid);
        if ranges.is_empty() {
            let user = name.clone().unwrap_or_else(|| uid.to_string());
            return Err(EnterError::missing(Tried::FindIds, Knob::NoIds { file: which.subordinates().to_owned(), user }));
        }
        Ok(joined(own, &ranges))
    };
    let (users, groups) = (with_own(uid, Which::Users)?, with_own(rustix::process::getgid().as_raw(), Which::Groups)?);
    write_by_helper(pid, Which::Users, &users)?;
    write_by_helper(pid, Which::Groups, &groups)
}

/// Root inside is who we are, and there is nobody else.
fn write_single(pid: Pid) -> Result<(), EnterError> {
    let path = format!("/proc/{}/setgroups", pid.as_raw_nonzero());
    std::fs::write(path, "deny").map_err(|error| EnterError::new(Tried::WriteMap, &error))?;
    let only = |outside: u32| [Extent { inside: 0, outside, count: 1 }];
    write_directly(pid, Which::Users, &only(rustix::process::geteuid().as_raw()))?;
    write_directly(pid, Which::Groups, &only(rustix::process::getegid().as_raw()))
}

/// The text of a map, for a child namespace, of every id of this namespace to itself: `uid_map`, `gid_map`.
pub(crate) fn one_to_one() -> io::Result<(String, String)> {
    let read = |which: Which| -> io::Result<String> {
        Ok(text(&to_themselves(&parse(&std::fs::read_to_string(format!("/proc/self/{}", which.map()))?))))
    };
    Ok((read(Which::Users)?, read(Which::Groups)?))
}

/// How many users there are in this namespace.
pub(super) fn count() -> Result<u64, EnterError> {
    Ok(own(Which::Users)?.iter().map(|extent| u64::from(extent.count)).sum())
}

fn own(which: Which) -> Result<Vec<Extent>, EnterError> {
    let path = format!("/proc/self/{}", which.map());
    Ok(parse(&std::fs::read_to_string(path).map_err(|error| EnterError::new(Tried::FindIds, &error))?))
}

fn parse(map: &str) -> Vec<Extent> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let (inside, outside, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Extent { inside, outside, count })
    };
    map.lines().filter_map(line).collect()
}

/// Every id of the parent to itself. The parent's extents are kept: one that spans two of them is refused.
fn to_themselves(parent: &[Extent]) -> Vec<Extent> {
    parent.iter().map(|extent| Extent { outside: extent.inside, ..*extent }).collect()
}

fn text(extents: &[Extent]) -> String {
    extents.iter().fold(String::new(), |mut text, Extent { inside, outside, count }| {
        // Writing to a String does not fail.
        writeln!(text, "{inside} {outside} {count}").ok();
        text
    })
}

fn write_directly(pid: Pid, which: Which, extents: &[Extent]) -> Result<(), EnterError> {
    let path = format!("/proc/{}/{}", pid.as_raw_nonzero(), which.map());
    std::fs::write(path, text(extents)).map_err(|error| EnterError::new(Tried::WriteMap, &error))
}

fn write_by_helper(pid: Pid, which: Which, extents: &[Extent]) -> Result<(), EnterError> {
    let found = DIRECTORIES.iter().map(|dir| Path::new(dir).join(which.helper())).find(|path| path.exists());
    let Some(helper) = found else {
        return Err(EnterError::missing(Tried::WriteMap, Knob::NoHelper(which.helper().to_owned())));
    };
    #[expect(clippy::disallowed_methods, reason = "the sandbox starts the two helpers of the id maps")]
    let mut command = std::process::Command::new(&helper);
    // Not what is the default: where there is no /dev/null it could not be started.
    command.stdin(std::process::Stdio::piped()).env_clear().arg(pid.as_raw_nonzero().to_string());
    for Extent { inside, outside, count } in extents {
        command.args([inside, outside, count].map(u32::to_string));
    }
    let output = command.output().map_err(|error| EnterError::new(Tried::WriteMap, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect::<String>();
    Err(EnterError::helper(said, &helper.display().to_string()))
}

fn read_or_empty(path: &str) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn user_name(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The ranges of `name` or `uid` in the text of /etc/subuid: (first, count).
fn subordinates(file: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let ours = Some(owner) == name || owner.parse() == Ok(uid);
        (ours && count > 0 && first.checked_add(count).is_some()).then_some((first, count))
    };
    file.lines().filter_map(line).collect()
}

/// Root inside is the user; what follows are the subordinate ids: one range if one is enough, else all of them.
fn joined(own: u32, ranges: &[(u32, u32)]) -> Vec<Extent> {
    let enough = ranges.iter().find(|(_, count)| *count >= ENOUGH);
    let used = enough.map_or(ranges, std::slice::from_ref);
    let mut extents = vec![Extent { inside: 0, outside: own, count: 1 }];
    let mut inside = 1_u32;
    // The kernel takes 340 extents.
    for (first, count) in used.iter().take(339) {
        let count = (*count).min((u32::MAX - 1).saturating_sub(inside));
        extents.push(Extent { inside, outside: *first, count });
        inside = inside.saturating_add(count);
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_enough_is_taken_alone() {
        let text = "bob:1:5\nann:100000:10\nann:200000:65536\n1001:300000:70000\n";
        let ranges = subordinates(text, Some("ann"), 1001);
        assert_eq!(ranges, [(100_000, 10), (200_000, 65_536), (300_000, 70_000)]);
        let map = joined(1001, &ranges);
        assert_eq!(super::text(&map), "0 1001 1\n1 200000 65536\n");
    }

    #[test]
    fn small_ranges_are_joined() {
        assert_eq!(text(&joined(1001, &[(100, 10), (500, 20)])), "0 1001 1\n1 100 10\n11 500 20\n");
    }

    #[test]
    fn a_nested_map_is_split_along_the_extents_of_its_parent() {
        let parent = parse("         0       1001          1\n         1     100000      65536\n");
        assert_eq!(text(&to_themselves(&parent)), "0 0 1\n1 1 65536\n");
    }

    #[test]
    fn lines_that_are_no_ranges_are_passed_over() {
        assert_eq!(subordinates("ann:x:5\nann:1\n\nann:4294967295:9\nann:7:0\n#c\n", Some("ann"), 1), []);
        assert_eq!(user_name(7, "root:x:0:0::/:/bin/sh\nann:x:7:7::/:/bin/sh\n").as_deref(), Some("ann"));
    }
}
