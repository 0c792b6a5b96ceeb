//! RUN: an overlay over the stage's trees, a sandbox on it, and what it left as a layer.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    sync::atomic::Ordering,
};

use super::{
    Event, How,
    behind::Pending,
    build::{At, Site},
    fault,
    key::Recipe,
    mounts::{self, Prepared},
    snapshot::Snapshot,
    stop::interrupted,
    timing::{Instant, Span, Spell, Used},
    workplace::Workplace,
};
use crate::{
    cache::Outcome,
    diag::Diagnostic,
    error::{Error, Kind},
    layer,
    plan::{NetworkMode, Run, Security},
    rootfs::account::Account,
    sandbox::{
        self, Driver, Finished, Foreign, Limited, MountSource, Network, Root, Spec, Status,
        driver::{Ids, Isolation},
    },
    tree::{Moments, TreePath},
};

/// Runs the step unless its result is known.
pub(super) fn run(site: &Site<'_>, at: At<'_>, before: &Snapshot, run: &Run) -> Result<(Outcome, How), Error> {
    refuse(site, at, run)?;
    let mut laps = site.laps(at.number);
    let selected = mounts::select(site, at, run)?;
    laps.lap("looked at what is mounted");
    let mut recipe = Recipe::run(at, before, &site.job.plan.platform, run, &site.job.limits);
    for each in &selected {
        if let Some(selection) = &each.selection {
            recipe = recipe.with_mounted(&each.mount, selection)?;
        }
    }
    site.cached_or_made(at, &recipe, || make(site, at, before, run, &selected))
}

/// What the engine cannot do or was not allowed to, at its place.
fn refuse(site: &Site<'_>, at: At<'_>, run: &Run) -> Result<(), Error> {
    let allowed = site.job.allowed;
    let not_allowed = |right: &str| (format!("{right} is not allowed"), format!("allow it to this build: `--allow {right}`"));
    let (headline, help) = if run.security == Security::Insecure && !allowed.insecure {
        not_allowed("security.insecure")
    } else if run.network == NetworkMode::Host && !allowed.host_network {
        not_allowed("network.host")
    } else if let Some(device) = run.devices.first() {
        (format!("lapstrake cannot give a step the device `{}`", device.name), "leave `--device` out".to_owned())
    } else {
        return Ok(());
    };
    Err(fault::refused(at.step, "", headline, help))
}

fn make(site: &Site<'_>, at: At<'_>, before: &Snapshot, run: &Run, selected: &[mounts::Selected]) -> Result<(Pending, Moments), Error> {
    let driver = site.ways.needed().map_err(|error| fault::at(error, at.step, "", "needed for this step"))?;
    refuse_here(site, at, run, driver)?;
    let mut laps = site.laps(at.number);
    let scratch = site.store.scratch()?;
    // First: a layer that is extracted need not be read for its index.
    let place = Workplace::make(site, &before.layers, &scratch, driver.snapshots)?;
    laps.lap("made the tree that it runs in");
    let chain = site.trees.chain(&before.layers)?;
    let account = Account::of(&chain, &run.user).map_err(|error| fault::at(error, at.step, "user", "this step runs as that user"))?;
    let Prepared { mounts, env, held, mounted, moments } = mounts::prepare(site, at, selected, scratch.path())?;
    site.stop.go_on()?;
    let foreign = Foreign { rooted: layer::unmarked(&chain, site.ways.owners()), mounted };
    let spec = Spec { foreign, ..spec(site, run, driver, place.root(&scratch)?, &account, mounts, env)? };
    laps.lap("prepared its mounts");
    let mut output = |stream, bytes: &[u8]| site.front.event(Event::Output { step: at.number, stream, bytes: bytes.to_vec() });
    let begun = Instant::now();
    let finished = sandbox::run(spec, site.stop.fd(), &mut output);
    site.front.event(Event::Spent { step: at.number, at: Spell::Running, span: Span::since(begun) });
    let finished = finished.map_err(|error| not_started(error, at, run))?;
    site.front.event(Event::Used { step: at.number, used: Used::by_processes(finished.usage) });
    drop(held);
    if finished.outer_proc && !site.proc_told.swap(true, Ordering::Relaxed) {
        site.front.event(Event::Note { text: sandbox::probe::OUTER_PROC.to_owned() });
    }
    verdict(site, at, &finished, &place)?;
    let mut laps = site.laps(at.number);
    let kept = place.keep(site, at, &chain, &finished)?;
    laps.lap("compared what it left and wrote the layer's tar");
    Ok((kept, moments))
}

/// What a step cannot have where it is run like this.
fn refuse_here(site: &Site<'_>, at: At<'_>, run: &Run, driver: Driver) -> Result<(), Error> {
    let limits = &site.job.limits;
    let in_chroot = driver.isolation == Isolation::Chroot;
    let (asked, why) = if in_chroot && run.security == Security::Insecure {
        ("--security=insecure", "needs steps in namespaces, and here they run in a chroot")
    } else if in_chroot && limits.shared_memory.is_some() {
        ("--shm-size", "needs steps in namespaces, and here they run in a chroot")
    } else if driver.ids == Ids::Single && limits.processes.iter().any(|limit| limit.of == Limited::Locks) {
        ("--ulimit locks", "needs more than one id: with a single one that limit holds who a process is")
    } else {
        return Ok(());
    };
    let error =
        Error::new(Kind::Environment, format!("`{asked}` {why}")).help("leave it out; `lapstrake doctor` says what the other ways need");
    Err(fault::at(error, at.step, "", "asked for here"))
}

fn spec(
    site: &Site<'_>,
    run: &Run,
    driver: Driver,
    root: Root,
    account: &Account,
    mut mounts: Vec<sandbox::Mount>,
    secrets: Vec<OsString>,
) -> Result<Spec, Error> {
    let text = |(name, value): &(String, String)| OsString::from(format!("{name}={value}"));
    let mut env: Vec<OsString> = run.env.iter().map(text).collect();
    env.extend(run.proxy.iter().filter(|(name, _)| !run.env.iter().any(|(have, _)| have == name)).map(text));
    if !run.env.iter().any(|(name, _)| name == "HOME") {
        let mut home = OsString::from("HOME=");
        home.push(OsString::from_vec(account.home.clone()));
        env.push(home);
    }
    for secret in secrets {
        // In the place of a variable of the same name: of two, each program takes another one.
        let name = |text: &OsString| text.as_bytes().split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
        env.retain(|text| name(text) != name(&secret));
        env.push(secret);
    }
    for file in &run.files {
        let target = TreePath::clean(file.name.as_bytes())?;
        let what = MountSource::File { bytes: file.data.as_bytes().to_vec(), mode: 0o755, uid: 0, gid: 0 };
        mounts.push(sandbox::Mount { target, what, readonly: true });
    }
    let cwd = TreePath::clean(run.cwd.as_bytes())?;
    Ok(Spec {
        driver,
        foreign: Foreign::default(),
        argv: run.argv.iter().map(OsString::from).collect(),
        env,
        cwd,
        user: sandbox::User { uid: account.uid, gid: account.gid, groups: account.groups.clone() },
        root,
        network: if run.network == NetworkMode::None { Network::None } else { Network::Host },
        hostname: run.hostname.clone(),
        mounts,
        hosts: hosts(site, run),
        resolv_conf: std::fs::read("/etc/resolv.conf").unwrap_or_default(),
        limits: site.job.limits.clone(),
        groups: site.groups.clone(),
        security: if run.security == Security::Insecure { sandbox::Security::Insecure } else { sandbox::Security::Sandbox },
    })
}

/// The host's own /etc/hosts where the step is on the host's network, and the lines of `--add-host`.
fn hosts(site: &Site<'_>, run: &Run) -> Vec<u8> {
    let mut text = format!("127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\n", run.hostname).into_bytes();
    if run.network != NetworkMode::None {
        text.extend(std::fs::read("/etc/hosts").unwrap_or_default());
    }
    for line in &site.job.hosts {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    text
}

/// The error of a step whose sandbox or program could not be started.
fn not_started(error: sandbox::InitError, at: At<'_>, run: &Run) -> Error {
    let mut error = Error::from(error);
    if error.kind == Kind::Step && error.help.is_none() {
        let program = run.argv.first().map(String::as_str).unwrap_or_default();
        error.help = Some(if program == "/bin/sh" {
            "the image has no shell: begin with one that has, or write `RUN [\"/program\"]`".to_owned()
        } else {
            format!("check that the image has `{program}` and, if it is a script, the interpreter that its first line names")
        });
    }
    fault::at(error, at.step, "", "needed for this step")
}

/// The error of a step that did not end well.
fn verdict(site: &Site<'_>, at: At<'_>, finished: &Finished, workplace: &Workplace) -> Result<(), Error> {
    let limits = &site.job.limits;
    let memory = || limits.group.iter().find(|setting| setting.file == "memory.max").map_or("", |setting| setting.flag.as_str());
    let (what, help) = match finished.status {
        Status::Exited(0) => return Ok(()),
        Status::Cancelled => return Err(interrupted()),
        Status::OutOfTime => {
            let time = limits.time.unwrap_or_default();
            (format!("it ran longer than {time:?}"), "raise `--step-timeout`, or leave it out".to_owned())
        }
        Status::OutOfDisk => {
            let disk = shown_size(limits.disk.unwrap_or_default());
            (format!("it wrote more than {disk}"), "raise `--step-disk`, or leave it out".to_owned())
        }
        status if finished.out_of_memory => {
            (format!("{}; its memory ran out", ending(status)), format!("raise `{}`, or leave it out", memory()))
        }
        Status::Exited(127) => (
            ending(finished.status),
            "the shell did not find a command: install it in an earlier step, or check its name and PATH".to_owned(),
        ),
        Status::Exited(126) => (
            ending(finished.status),
            "the command was found and could not be executed: check its mode (`chmod +x`) and its first line".to_owned(),
        ),
        Status::Signalled(9) => (ending(finished.status), "something killed it: often the kernel, when memory is short".to_owned()),
        Status::Exited(_) | Status::Signalled(_) => (ending(finished.status), "what it printed stands above".to_owned()),
    };
    let mut place =
        Diagnostic::error(format!("`{}` did not complete successfully: {what}", at.step.shown), at.step.span).label("this step failed");
    place.help = workplace.full(site).or(Some(help));
    Err(Error::at(Kind::Step, vec![place]))
}

fn ending(status: Status) -> String {
    match status {
        Status::Exited(code) => format!("exit code: {code}"),
        Status::Signalled(signal) => format!("killed by signal {signal}"),
        Status::Cancelled | Status::OutOfTime | Status::OutOfDisk => "stopped".to_owned(),
    }
}

/// In the largest unit that leaves it whole.
fn shown_size(bytes: u64) -> String {
    let unit = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")].into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes} bytes"), |(unit, name)| format!("{} {name}", bytes / unit))
}
