//! Who a process believes to be, and the kernel's rules for changing it.
//!
//! Credentials are interned; the number of a process's own is kept with the process itself (`sys::task::number_of`), so that
//! children, orphans and what they become inherit it, and a number of a process that is used again does not.
//!
//! Source: credentials(7), setresuid(2), setuid(2), setfsuid(2), capabilities(7); the kernel's `kernel/sys.c`.

use std::{collections::BTreeMap, rc::Rc};

use rustix::{io::Errno, process::Pid};

use crate::sys::task;

/// Users or groups: real, effective, saved, of the file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ids {
    pub(super) real: u32,
    pub(super) effective: u32,
    pub(super) saved: u32,
    pub(super) files: u32,
}

impl Ids {
    /// The same for all.
    pub(super) fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, files: id }
    }

    fn has(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }
}

/// No id: "as it is".
pub(super) const NONE: u32 = u32::MAX;

/// A process's credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Credentials {
    pub(super) users: Ids,
    pub(super) groups: Ids,
    pub(super) others: Vec<u32>,
    pub(super) keep_capabilities: bool,
}

impl Credentials {
    pub(super) fn of(uid: u32, gid: u32, others: Vec<u32>) -> Self {
        Self { users: Ids::all(uid), groups: Ids::all(gid), others, keep_capabilities: false }
    }

    /// May it become whoever it likes?
    fn may_set_ids(&self) -> bool {
        self.users.effective == 0 || self.keep_capabilities
    }

    /// Does root's right over files hold for it?
    pub(super) fn overrides(&self) -> bool {
        self.users.files == 0
    }

    /// Are files that it makes 0:0?
    pub(super) fn makes_roots(&self) -> bool {
        self.users.files == 0 && self.groups.files == 0
    }

    /// Is a group one of its own?
    pub(super) fn is_in(&self, group: u32) -> bool {
        self.groups.files == group || self.others.contains(&group)
    }

    /// What exec makes of them; `user` and `group` are those of a setuid or setgid program.
    pub(super) fn after_exec(&self, user: Option<u32>, group: Option<u32>) -> Self {
        let set = |ids: Ids, to: Option<u32>| {
            let effective = to.unwrap_or(ids.effective);
            Ids { real: ids.real, effective, saved: effective, files: effective }
        };
        Self { users: set(self.users, user), groups: set(self.groups, group), others: self.others.clone(), keep_capabilities: false }
    }

    pub(super) fn set_users(&self, change: Change) -> Result<Self, Errno> {
        Ok(Self { users: change.apply(self.users, self.may_set_ids())?, ..self.clone() })
    }

    pub(super) fn set_groups(&self, change: Change) -> Result<Self, Errno> {
        Ok(Self { groups: change.apply(self.groups, self.may_set_ids())?, ..self.clone() })
    }

    pub(super) fn set_others(&self, others: Vec<u32>) -> Result<Self, Errno> {
        if self.may_set_ids() { Ok(Self { others, ..self.clone() }) } else { Err(Errno::PERM) }
    }
}

/// A call of the set*id family.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    /// setuid, setgid.
    One(u32),
    /// setreuid, setregid: real, effective.
    Two(u32, u32),
    /// setresuid, setresgid: real, effective, saved.
    Three(u32, u32, u32),
    /// setfsuid, setfsgid: what is not allowed changes nothing.
    Files(u32),
}

impl Change {
    fn apply(self, ids: Ids, privileged: bool) -> Result<Ids, Errno> {
        let or = |id: u32, old: u32| if id == NONE { old } else { id };
        match self {
            Self::One(NONE) => Err(Errno::INVAL),
            Self::One(id) if privileged => Ok(Ids::all(id)),
            Self::One(id) if id == ids.real || id == ids.saved => Ok(Ids { effective: id, files: id, ..ids }),
            Self::One(_) => Err(Errno::PERM),
            Self::Two(real, effective) => {
                let allowed = (real == NONE || real == ids.real || real == ids.effective) && (effective == NONE || ids.has(effective));
                if !privileged && !allowed {
                    return Err(Errno::PERM);
                }
                let new = Ids { real: or(real, ids.real), effective: or(effective, ids.effective), ..ids };
                let saves = real != NONE || (effective != NONE && effective != ids.real);
                Ok(Ids { saved: if saves { new.effective } else { ids.saved }, files: new.effective, ..new })
            }
            Self::Three(real, effective, saved) => {
                if !privileged && [real, effective, saved].iter().any(|id| *id != NONE && !ids.has(*id)) {
                    return Err(Errno::PERM);
                }
                let effective = or(effective, ids.effective);
                Ok(Ids { real: or(real, ids.real), effective, saved: or(saved, ids.saved), files: effective })
            }
            Self::Files(id) if id != NONE && (privileged || ids.has(id) || id == ids.files) => Ok(Ids { files: id, ..ids }),
            Self::Files(_) => Ok(ids),
        }
    }
}

/// How many different credentials a step may have had, and how many groups in them: a bound on memory, far from use.
const MOST: (usize, usize) = (1 << 16, 1 << 20);

/// All credentials that a step's processes have had.
#[derive(Debug)]
pub(super) struct Registry {
    all: Vec<Rc<Credentials>>,
    numbers: BTreeMap<Rc<Credentials>, u64>,
    groups: usize,
}

/// The number of the program that a step begins with. A process without a number is root.
pub(crate) const FIRST: u64 = 1;

impl Registry {
    /// `first` are those of the step's program.
    pub(super) fn new(first: Credentials) -> Self {
        let (root, first) = (Rc::new(Credentials::default()), Rc::new(first));
        Self { all: vec![Rc::clone(&root), Rc::clone(&first)], numbers: BTreeMap::from([(root, 0), (first, FIRST)]), groups: 0 }
    }

    /// Of a process.
    pub(super) fn of(&self, process: Pid) -> Result<Rc<Credentials>, Errno> {
        Ok(self.numbered(task::number_of(process)?))
    }

    /// Of a number; root's if there is none.
    pub(super) fn numbered(&self, number: Option<u64>) -> Rc<Credentials> {
        let number = number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
        self.all.get(number).cloned().unwrap_or_default()
    }

    /// Gives them to a process.
    pub(super) fn give(&mut self, process: Pid, new: Credentials) -> Result<(), Errno> {
        if let Some(number) = self.numbers.get(&new) {
            return task::set_number_of(process, *number);
        }
        self.groups += new.others.len();
        if self.all.len() >= MOST.0 || self.groups > MOST.1 {
            return Err(Errno::AGAIN);
        }
        let (number, new) = (self.all.len() as u64, Rc::new(new));
        self.all.push(Rc::clone(&new));
        self.numbers.insert(new, number);
        task::set_number_of(process, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: u32) -> Credentials {
        Credentials::of(id, id, vec![])
    }

    fn users(credentials: &Credentials) -> [u32; 4] {
        let Ids { real, effective, saved, files } = credentials.users;
        [real, effective, saved, files]
    }

    #[test]
    fn root_becomes_anybody_and_cannot_come_back() {
        let one = user(0).set_users(Change::One(33)).unwrap();
        assert_eq!(users(&one), [33, 33, 33, 33]);
        assert_eq!(one.set_users(Change::One(0)).unwrap_err(), Errno::PERM);
        assert_eq!(one.set_others(vec![]).unwrap_err(), Errno::PERM);
        assert_eq!(one.set_users(Change::One(33)).unwrap(), one);
        assert_eq!(user(0).set_users(Change::One(NONE)).unwrap_err(), Errno::INVAL);
    }

    #[test]
    fn a_saved_id_is_a_way_back() {
        let lowered = user(0).set_users(Change::Three(NONE, 33, NONE)).unwrap();
        assert_eq!(users(&lowered), [0, 33, 0, 33]);
        assert_eq!(users(&lowered.set_users(Change::Three(NONE, 0, NONE)).unwrap()), [0, 0, 0, 0]);
        assert_eq!(users(&lowered.set_users(Change::One(0)).unwrap()), [0, 0, 0, 0]);
        assert_eq!(lowered.set_users(Change::Three(5, NONE, NONE)).unwrap_err(), Errno::PERM);
    }

    #[test]
    fn two_ids_may_be_swapped_and_what_was_set_is_saved() {
        let program = user(1000).after_exec(Some(0), None);
        assert_eq!(users(&program), [1000, 0, 0, 0]);
        let swapped = program.set_users(Change::Two(0, 1000)).unwrap();
        assert_eq!(users(&swapped), [0, 1000, 1000, 1000]);
        let plain = user(1000).set_users(Change::Two(NONE, 1000)).unwrap();
        assert_eq!(users(&plain), [1000; 4]);
        assert_eq!(user(1000).set_users(Change::Two(NONE, 0)).unwrap_err(), Errno::PERM);
    }

    #[test]
    fn the_files_id_changes_silently_or_not_at_all() {
        assert_eq!(users(&user(0).set_users(Change::Files(33)).unwrap()), [0, 0, 0, 33]);
        assert_eq!(users(&user(33).set_users(Change::Files(0)).unwrap()), [33; 4]);
        assert_eq!(users(&user(0).set_users(Change::Files(NONE)).unwrap()), [0; 4]);
    }

    #[test]
    fn kept_capabilities_allow_one_more_change_and_end_with_exec() {
        let kept = Credentials { keep_capabilities: true, ..user(0) }.set_users(Change::One(33)).unwrap();
        assert!(kept.set_others(vec![1]).is_ok());
        assert!(kept.after_exec(None, None).set_others(vec![1]).is_err());
    }
}
