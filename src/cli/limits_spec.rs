//! What steps may use and ask for: `--ulimit`, `--shm-size`, `--memory`, `--resource`, `--cgroup-parent`, `--step-timeout`,
//! `--step-disk`, `--allow`.
//!
//! Source: docker/go-units `ulimit.go`, buildx `build/utils.go` (the words of `--resource`), runc's conversion of shares
//! to weights; the kernel's cgroup-v2.rst.

use std::time::Duration;

use super::args::Build;
use crate::{
    diag::closest,
    dockerfile,
    engine::Allowed,
    error::{Error, Kind},
    plan::NetworkMode,
    sandbox::{Limited, Limits, ProcessLimit, cgroup::Setting},
};

fn usage(text: impl Into<String>, help: impl Into<String>) -> Error {
    Error::new(Kind::Usage, text).help(help)
}

/// What each step may use.
pub(super) fn limits(args: &Build) -> Result<Limits, Error> {
    let mut processes: Vec<ProcessLimit> = Vec::new();
    for text in &args.ulimits {
        let limit = ulimit(text)?;
        // Of two, the last counts.
        processes.retain(|other| other.of != limit.of);
        processes.push(limit);
    }
    if args.cgroup_parent.as_deref() == Some("") {
        return Err(usage("`--cgroup-parent` names no group", "name one by its path below /sys/fs/cgroup"));
    }
    Ok(Limits {
        processes,
        shared_memory: args.shm_size.as_deref().map(|text| size("--shm-size", text)).transpose()?,
        time: args.step_timeout.as_deref().map(time).transpose()?,
        disk: args.step_disk.as_deref().map(|text| size("--step-disk", text)).transpose()?,
        group: group(args)?,
        group_parent: args.cgroup_parent.clone(),
    })
}

/// Makes sure that a limit can be set, which may need a right that this process does not have.
pub(super) fn prepare(limits: &Limits) -> Result<(), Error> {
    limits.processes.iter().try_for_each(|limit| {
        limit.prepare().map_err(|most| {
            let name = limit.of.name();
            Error::new(Kind::Environment, format!("`--ulimit {name}` is above this process's own hard limit, {most}"))
                .help(format!("raise that one first (`ulimit -H`, /etc/security/limits.conf), or ask for at most {name}={most}"))
        })
    })
}

/// What `--allow` and the network of the build allow.
pub(super) fn allowed(args: &Build, network: NetworkMode) -> Result<Allowed, Error> {
    const HOST: &str = "network.host";
    const INSECURE: &str = "security.insecure";
    let mut allowed = Allowed { host_network: network != NetworkMode::None, insecure: false };
    for word in &args.allow {
        match word.as_str() {
            HOST => allowed.host_network = true,
            INSECURE => allowed.insecure = true,
            other => {
                let help = match closest(other, [HOST, INSECURE]) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("what can be allowed is `{HOST}` and `{INSECURE}`"),
                };
                return Err(usage(format!("`{other}` in --allow is nothing that lapstrake can allow"), help));
            }
        }
    }
    Ok(allowed)
}

/// `NAME=SOFT[:HARD]`; -1 is no limit.
fn ulimit(text: &str) -> Result<ProcessLimit, Error> {
    const FORM: &str = "the form is `NAME=SOFT[:HARD]`, as in `nofile=1024:4096`; -1 is no limit";
    let (name, values) = text.split_once('=').ok_or_else(|| usage(format!("`--ulimit {text}` has no value"), FORM))?;
    let Some((_, of)) = Limited::ALL.iter().find(|(known, _)| *known == name) else {
        let help = match closest(name, Limited::ALL.iter().map(|(known, _)| *known)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("what can be limited is {}", Limited::ALL.map(|(known, _)| known).join(", ")),
        };
        return Err(usage(format!("`{name}` in --ulimit is no limit of processes"), help));
    };
    let value = |word: &str| match word {
        "-1" => Ok(None),
        word => word.parse().map(Some).map_err(|_bad| usage(format!("`{word}` in `--ulimit {text}` is no number"), FORM)),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (value(soft)?, value(hard)?),
        None => (value(values)?, value(values)?),
    };
    if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
        return Err(usage(format!("the soft limit is above the hard one in `--ulimit {text}`"), FORM));
    }
    Ok(ProcessLimit { of: *of, soft, hard })
}

fn size(flag: &str, text: &str) -> Result<u64, Error> {
    let bytes = dockerfile::size(text).and_then(|bytes| u64::try_from(bytes).ok());
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| usage(format!("`{text}` in {flag} is no size"), "write bytes, or a size like `64m` or `1.5g`"))
}

fn time(text: &str) -> Result<Duration, Error> {
    let read = dockerfile::duration(text).ok().filter(|time| !time.is_zero());
    read.ok_or_else(|| usage(format!("`{text}` in --step-timeout is no duration"), "write it like `90s`, `10m` or `1h30m`"))
}

/// The words of `--resource`; `--memory` is the first of them.
const RESOURCES: [&str; 7] = ["memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"];

/// What is said of one resource: the flag that says it, and its value.
type Said = (String, String);

fn group(args: &Build) -> Result<Vec<Setting>, Error> {
    let mut said: [Option<Said>; RESOURCES.len()] = std::array::from_fn(|_| None);
    let memory = args.memory.iter().map(|value| ("--memory".to_owned(), "memory", value.as_str()));
    let resources = args.resources.iter().map(|text| match text.split_once('=') {
        Some((key, value)) => Ok((format!("--resource {key}"), key, value)),
        None => Err(usage(format!("`--resource {text}` has no value"), "the form is `KEY=VALUE`, as in `memory=2g`")),
    });
    for each in memory.map(Ok).chain(resources) {
        let (flag, key, value) = each?;
        let Some(at) = RESOURCES.iter().position(|known| *known == key) else {
            let help = match closest(key, RESOURCES) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it is one of {}", RESOURCES.join(", ")),
            };
            return Err(usage(format!("`{key}` in --resource is no resource"), help));
        };
        if let Some(place) = said.get_mut(at) {
            if let Some((other, _)) = place.as_ref().filter(|(_, other)| other != value) {
                return Err(usage(format!("`{flag}` and `{other}` contradict each other"), "leave one of them out"));
            }
            *place = Some((flag, value.to_owned()));
        }
    }
    settings(said)
}

/// As the files of control groups of version 2 have it.
fn settings([memory, swap, shares, period, quota, cpus, nodes]: [Option<Said>; RESOURCES.len()]) -> Result<Vec<Setting>, Error> {
    let mut settings = Vec::new();
    let mut set = |file: &str, value: String, flag: &str| settings.push(Setting { file: file.to_owned(), value, flag: flag.to_owned() });
    let bytes = memory.as_ref().map(|(flag, text)| size(flag, text)).transpose()?;
    if let (Some(bytes), Some((flag, _))) = (bytes, &memory) {
        set("memory.max", bytes.to_string(), flag);
    }
    if let Some((flag, text)) = &swap {
        set("memory.swap.max", swap_only(flag, text, bytes)?, flag);
    }
    if let Some((flag, text)) = &shares {
        // 2 to 262144 shares are the weights 1 to 10000.
        let shares = number(flag, text)?.clamp(2, 262_144);
        set("cpu.weight", (1 + (shares - 2) * 9999 / 262_142).to_string(), flag);
    }
    if let Some((flag, _)) = quota.as_ref().or(period.as_ref()) {
        let quota = quota.as_ref().map_or(Ok("max".to_owned()), |(flag, text)| number(flag, text).map(|quota| quota.to_string()))?;
        let period = period.as_ref().map_or(Ok(100_000), |(flag, text)| number(flag, text))?;
        set("cpu.max", format!("{quota} {period}"), flag);
    }
    for (file, said) in [("cpuset.cpus", cpus), ("cpuset.mems", nodes)] {
        let Some((flag, text)) = said else { continue };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-')) {
            return Err(usage(format!("`{text}` in {flag} is no list of numbers"), "write it like `0-2,4`"));
        }
        set(file, text, &flag);
    }
    Ok(settings)
}

fn number(flag: &str, text: &str) -> Result<u64, Error> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| usage(format!("`{text}` in {flag} is no number"), "write a number above 0"))
}

/// Docker's number is memory and swap together, the kernel's is swap alone.
fn swap_only(flag: &str, text: &str, memory: Option<u64>) -> Result<String, Error> {
    let Some(memory) = memory else {
        return Err(usage(format!("`{flag}` needs a limit of the memory too"), "give `--memory` as well"));
    };
    if text == "-1" {
        return Ok("max".to_owned());
    }
    let both = size(flag, text)?;
    let swap = both.checked_sub(memory);
    let help = "it is the sum of memory and swap; -1 is no limit of swap";
    swap.map(|swap| swap.to_string()).ok_or_else(|| usage(format!("`{text}` in {flag} is less than `--memory`"), help))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{
        super::args::{Cli, Command},
        *,
    };

    fn args(flags: &[&str]) -> Build {
        let line = ["lapstrake", "build"].iter().chain(flags).chain(&["."]);
        let Command::Build(args) = Cli::try_parse_from(line).unwrap().command else { unreachable!("the line says build") };
        *args
    }

    fn error(flags: &[&str]) -> String {
        limits(&args(flags)).unwrap_err().to_string()
    }

    fn group_of(flags: &[&str]) -> Vec<(String, String)> {
        limits(&args(flags)).unwrap().group.into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    #[test]
    fn limits_of_processes_are_dockers() {
        let read = |text| limits(&args(&["--ulimit", text])).unwrap().processes;
        let nofile = |soft, hard| vec![ProcessLimit { of: Limited::Nofile, soft, hard }];
        assert_eq!(read("nofile=1024"), nofile(Some(1024), Some(1024)));
        assert_eq!(read("nofile=1024:2048"), nofile(Some(1024), Some(2048)));
        assert_eq!(read("nofile=1024:-1"), nofile(Some(1024), None));
        assert_eq!(limits(&args(&["--ulimit", "nofile=1", "--ulimit", "nofile=2"])).unwrap().processes, nofile(Some(2), Some(2)));
        for bad in ["nofile", "nofil=1", "x=1", "nofile=", "nofile=a", "nofile=2:1", "nofile=-1:1", "nofile=1:2:3", "nofile=1.5"] {
            assert!(error(&["--ulimit", bad]).contains("--ulimit"), "{bad}");
        }
    }

    #[test]
    fn resources_are_settings_of_control_groups() {
        let pair = |file: &str, value: &str| (file.to_owned(), value.to_owned());
        assert_eq!(group_of(&["-m", "64m"]), [pair("memory.max", "67108864")]);
        let swap = ["--resource", "memory=1g", "--resource", "memory-swap=1.5g"];
        assert_eq!(group_of(&swap), [pair("memory.max", "1073741824"), pair("memory.swap.max", "536870912")]);
        let cpu = ["--resource", "cpu-quota=50000", "--resource", "cpu-shares=1024", "--resource", "cpuset-cpus=0-1"];
        assert_eq!(group_of(&cpu), [pair("cpu.weight", "39"), pair("cpu.max", "50000 100000"), pair("cpuset.cpus", "0-1")]);
        assert!(error(&["--resource", "memry=1"]).contains("`memry`"));
        assert!(error(&["--resource", "memory-swap=1g"]).contains("memory-swap"));
        assert!(error(&["-m", "1g", "--resource", "memory=2g"]).contains("contradict"));
        assert!(error(&["-m", "much"]).contains("is no size"));
    }

    #[test]
    fn times_and_sizes_are_more_than_nothing() {
        let read = limits(&args(&["--step-timeout", "1m30s", "--step-disk", "10m", "--shm-size", "1g"])).unwrap();
        assert_eq!((read.time, read.disk, read.shared_memory), (Some(Duration::from_secs(90)), Some(10 << 20), Some(1 << 30)));
        for (flag, bad) in [("--step-timeout", "0"), ("--step-timeout", "90"), ("--step-disk", "0"), ("--shm-size", "-1m")] {
            assert!(error(&[&format!("{flag}={bad}")]).contains(flag), "{flag} {bad}");
        }
    }

    #[test]
    fn the_host_network_needs_a_word_only_where_it_is_not_the_builds() {
        let read = |flags: &[&str], network| allowed(&args(flags), network).unwrap();
        assert_eq!(read(&[], NetworkMode::Default), Allowed { host_network: true, insecure: false });
        assert_eq!(read(&[], NetworkMode::None), Allowed::default());
        let both = ["--allow", "network.host", "--allow", "security.insecure"];
        assert_eq!(read(&both, NetworkMode::None), Allowed { host_network: true, insecure: true });
        assert!(allowed(&args(&["--allow", "device"]), NetworkMode::None).is_err());
    }
}
