//! Who a task is: the calls that ask it, and those that change it.
//!
//! Source: credentials(7), getresuid(2), getgroups(2), capget(2), kill(2), getrlimit(2).

use rustix::{io::Errno, process::Pid};

use super::{
    Answer, State,
    credentials::{Change, Credentials},
    task::Task,
};
use crate::sys::asking::Call;

/// As many groups as one process may ask for here; the kernel's 65,536 would be memory that a step decides over.
const MOST_GROUPS: u32 = 1024;

impl State {
    /// The calls that only ask, and those that only say.
    pub(super) fn identity(&mut self, task: &Task<'_>, call: Call) -> Result<Answer, Errno> {
        let who = self.registry.of(task.thread())?;
        let (users, groups) = (who.users, who.groups);
        match call {
            Call::Getuid => Ok(Answer::Value(users.real.into())),
            Call::Geteuid => Ok(Answer::Value(users.effective.into())),
            Call::Getgid => Ok(Answer::Value(groups.real.into())),
            Call::Getegid => Ok(Answer::Value(groups.effective.into())),
            Call::Getresuid => write_all(task, [users.real, users.effective, users.saved]),
            Call::Getresgid => write_all(task, [groups.real, groups.effective, groups.saved]),
            Call::Getgroups => get_groups(task, &who),
            Call::Setgroups => {
                let others = set_groups(task)?;
                let new = who.set_others(others)?;
                self.become_one(task, new, 0)
            }
            Call::Setfsuid => self.become_one(task, who.set_users(Change::Files(task.number(0)))?, users.files),
            Call::Setfsgid => self.become_one(task, who.set_groups(Change::Files(task.number(0)))?, groups.files),
            Call::Setuid | Call::Setreuid | Call::Setresuid => self.become_one(task, who.set_users(change(task, call))?, 0),
            Call::Setgid | Call::Setregid | Call::Setresgid => self.become_one(task, who.set_groups(change(task, call))?, 0),
            Call::Prctl => {
                // The kernel keeps the flag as well, for who asks it.
                let new = Credentials { keep_capabilities: task.word(1) != 0, ..(*who).clone() };
                self.become_one(task, new, 0)?;
                Ok(Answer::Continue)
            }
            Call::Capget => capabilities(task, &who),
            Call::Getrlimit => unlimited(task, task.word(1)),
            Call::Prlimit64 => unlimited(task, task.word(3)),
            Call::Kill => self.kill(task, &who),
            _ => Ok(Answer::Continue),
        }
    }

    fn become_one(&mut self, task: &Task<'_>, new: Credentials, value: u32) -> Result<Answer, Errno> {
        task.waits()?;
        self.registry.give(task.thread(), new)?;
        Ok(Answer::Value(value.into()))
    }

    /// May it send that one a signal?
    fn kill(&self, task: &Task<'_>, who: &Credentials) -> Result<Answer, Errno> {
        let target = task.fd(0);
        if who.users.effective == 0 || target <= 0 {
            return Ok(Answer::Continue);
        }
        let Some(init) = self.init else { return Ok(Answer::Continue) };
        let other = match target {
            // pid 1 is under no filter, and root's.
            1 => std::rc::Rc::new(Credentials::default()),
            _ => match task.window().number_inside(init, target) {
                Ok(number) => self.registry.numbered(number),
                // The kernel knows whether there is one.
                Err(_) => return Ok(Answer::Continue),
            },
        };
        let (mine, its) = (who.users, other.users);
        let allowed = [mine.real, mine.effective].iter().any(|id| *id == its.real || *id == its.saved);
        if allowed { Ok(Answer::Continue) } else { Err(Errno::PERM) }
    }
}

fn change(task: &Task<'_>, call: Call) -> Change {
    let [first, second, third] = [0, 1, 2].map(|number| task.number(number));
    match call {
        Call::Setuid | Call::Setgid => Change::One(first),
        Call::Setreuid | Call::Setregid => Change::Two(first, second),
        _ => Change::Three(first, second, third),
    }
}

fn write_all(task: &Task<'_>, ids: [u32; 3]) -> Result<Answer, Errno> {
    for (number, id) in ids.into_iter().enumerate() {
        task.write(task.word(number), &id.to_ne_bytes())?;
    }
    Ok(Answer::Value(0))
}

fn get_groups(task: &Task<'_>, who: &Credentials) -> Result<Answer, Errno> {
    let count = i64::try_from(who.others.len()).unwrap_or(0);
    let room = i64::from(task.fd(0));
    if room != 0 && room < count {
        return Err(Errno::INVAL);
    }
    if room > 0 && count > 0 {
        let bytes: Vec<u8> = who.others.iter().flat_map(|group| group.to_ne_bytes()).collect();
        task.write(task.word(1), &bytes)?;
    }
    Ok(Answer::Value(count))
}

fn set_groups(task: &Task<'_>) -> Result<Vec<u32>, Errno> {
    let count = task.number(0);
    if count > MOST_GROUPS {
        return Err(Errno::INVAL);
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let bytes = task.bytes(task.word(1), count as usize * 4)?;
    let mut groups: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|chunk| u32::from_ne_bytes(*chunk)).collect();
    if groups.contains(&super::credentials::NONE) {
        return Err(Errno::INVAL);
    }
    // As the kernel sorts them.
    groups.sort_unstable();
    Ok(groups)
}

/// Somebody who is not root has no capabilities, though to the kernel it has root's.
fn capabilities(task: &Task<'_>, who: &Credentials) -> Result<Answer, Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    if who.users.effective == 0 || who.keep_capabilities || task.word(1) == 0 {
        return Ok(Answer::Continue);
    }
    let header = task.bytes(task.word(0), 8)?;
    let (version, pid) = header.split_at_checked(4).ok_or(Errno::FAULT)?;
    if version != VERSION_3.to_ne_bytes() || pid != [0; 4] {
        return Ok(Answer::Continue);
    }
    task.write(task.word(1), &[0; 24])?;
    Ok(Answer::Value(0))
}

/// The limit that holds the number of the credentials looks as it does without.
fn unlimited(task: &Task<'_>, at: u64) -> Result<Answer, Errno> {
    if at != 0 {
        task.write(at, &[0xff; 16])?;
    }
    Ok(Answer::Value(0))
}

/// The parent of a step's first program is its pid 1. `None` if no other process can be found by it.
pub(super) fn parent(task: &Task<'_>) -> Option<Pid> {
    let window = task.window();
    let parent = window.status(task.thread(), "PPid:").ok()?.parse().ok().and_then(Pid::from_raw)?;
    window.has_own_proc(parent).then_some(parent)
}
