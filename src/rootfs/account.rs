//! Who USER and `--chown` mean, by the image's own `etc/passwd` and `etc/group`: the kept bytes of its index, never the
//! host's files and no name service.
//!
//! Both files are foreign: a line that is not sound is skipped, and nothing is held but the lines that were asked for.
//!
//! Source: moby/sys `user` (`GetExecUser`), which runc and BuildKit use; BuildKit `executor/oci/user.go`,
//! `solver/llbsolver/ops/user_linux.go`; `passwd(5)`, `group(5)`.

use std::sync::Arc;

use crate::{
    diag::closest,
    tree::{Chain, TreePath},
};

/// A name that the image does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No such user.
    #[error("no user `{name}` in the image's /etc/passwd")]
    User {
        /// As written.
        name: String,
        /// One that is there and has nearly that name.
        near: Option<String>,
    },
    /// No such group.
    #[error("no group `{name}` in the image's /etc/group")]
    Group {
        /// As written.
        name: String,
        /// One that is there and has nearly that name.
        near: Option<String>,
    },
    /// A number that is no id.
    #[error("`{0}` is not an id: ids are from 0 to 4294967294")]
    Id(String),
}

impl Unknown {
    /// One thing to do.
    pub fn help(&self) -> String {
        match self {
            Self::User { near: Some(near), .. } | Self::Group { near: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::User { name, .. } => format!("add it in a step before (`RUN adduser -D {name}` or `useradd {name}`), or give its number"),
            Self::Group { name, .. } => format!("add it in a step before (`RUN addgroup {name}` or `groupadd {name}`), or give its number"),
            Self::Id(_) => "give a name or a smaller number".to_owned(),
        }
    }
}

/// Who a step runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user's id.
    pub uid: u32,
    /// The primary group's id.
    pub gid: u32,
    /// The list of groups: the primary one first, as containerd has it; nothing more when USER names a group.
    pub groups: Vec<u32>,
    /// `HOME` where nothing sets it.
    pub home: Vec<u8>,
}

/// The two files of an image.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    passwd: Option<Arc<[u8]>>,
    group: Option<Arc<[u8]>>,
}

/// A line of passwd.
struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

/// A line of group.
struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

/// One half of `user:group`, as written.
enum Half<'a> {
    Absent,
    Id(u32),
    Name(&'a str),
}

impl Account {
    /// Who USER is in the tree of a chain; the empty text is root.
    pub fn of(chain: &Chain, user: &str) -> Result<Self, super::Error> {
        Ok(Accounts::of(chain).account(user)?)
    }
}

impl Accounts {
    /// Those of the merged tree of a chain.
    pub fn of(chain: &Chain) -> Self {
        let kept = |path: &[u8]| TreePath::parse(path).ok().and_then(|path| chain.kept(&path));
        Self { passwd: kept(b"etc/passwd"), group: kept(b"etc/group") }
    }

    /// The same, of the two files' bytes.
    pub fn new(passwd: Option<Arc<[u8]>>, group: Option<Arc<[u8]>>) -> Self {
        Self { passwd, group }
    }

    /// Who `USER text` runs as. A number needs no line; a user alone takes the primary group and all its groups from the
    /// files, and group 0 if there is no line for it; with a group there are no others.
    pub fn account(&self, text: &str) -> Result<Account, Unknown> {
        let (user, group) = halves(text)?;
        let line = match user {
            Half::Absent => self.users().find(|line| line.uid == 0),
            Half::Id(id) => self.users().find(|line| line.uid == id),
            Half::Name(name) => Some(self.user(name)?),
        };
        let uid = match (&user, &line) {
            (Half::Id(id), _) => *id,
            (_, Some(line)) => line.uid,
            (Half::Absent | Half::Name(_), None) => 0,
        };
        let (gid, groups) = match group {
            Half::Id(id) => (id, vec![id]),
            Half::Name(name) => self.group(name).map(|gid| (gid, vec![gid]))?,
            Half::Absent => match &line {
                Some(line) => (line.gid, self.groups_of(line.gid, line.name)),
                None => (0, vec![0]),
            },
        };
        let home = line.map(|line| line.home).filter(|home| !home.is_empty()).unwrap_or(b"/").to_vec();
        Ok(Account { uid, gid, groups, home })
    }

    /// Whom `--chown=text` gives files to: a number alone is user and group, a name alone has its primary group, a group
    /// alone leaves the user root.
    pub fn owner(&self, text: &str) -> Result<(u32, u32), Unknown> {
        let (user, group) = halves(text)?;
        let (uid, own_group) = match user {
            Half::Absent => (0, 0),
            Half::Id(id) => (id, id),
            Half::Name(name) => self.user(name).map(|line| (line.uid, line.gid))?,
        };
        match group {
            Half::Absent => Ok((uid, own_group)),
            Half::Id(gid) => Ok((uid, gid)),
            Half::Name(name) => Ok((uid, self.group(name)?)),
        }
    }

    fn user(&self, name: &str) -> Result<User<'_>, Unknown> {
        let found = self.users().find(|line| line.name == name.as_bytes());
        found.ok_or_else(|| Unknown::User { name: name.to_owned(), near: near(name, self.users().map(|line| line.name)) })
    }

    fn group(&self, name: &str) -> Result<u32, Unknown> {
        let found = self.groups().find(|line| line.name == name.as_bytes());
        let unknown = || Unknown::Group { name: name.to_owned(), near: near(name, self.groups().map(|line| line.name)) };
        found.map(|line| line.gid).ok_or_else(unknown)
    }

    /// The primary group, as containerd has it in the list too, and those that name the member.
    fn groups_of(&self, primary: u32, member: &[u8]) -> Vec<u32> {
        let mut all: Vec<u32> = vec![primary];
        for line in self.groups().filter(|line| line.members.split(|byte| *byte == b',').any(|name| name == member)) {
            // The kernel's own limit is NGROUPS_MAX, 65536.
            if all.len() < 65536 && !all.contains(&line.gid) {
                all.push(line.gid);
            }
        }
        all
    }

    fn users(&self) -> impl Iterator<Item = User<'_>> {
        lines(self.passwd.as_deref()).filter_map(|line| {
            let mut fields = line.splitn(7, |byte| *byte == b':');
            let (name, _password) = (fields.next()?, fields.next()?);
            let (uid, gid) = (number(fields.next()?)?, number(fields.next()?)?);
            let home = fields.nth(1).unwrap_or_default();
            Some(User { name, uid, gid, home })
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        lines(self.group.as_deref()).filter_map(|line| {
            let mut fields = line.splitn(4, |byte| *byte == b':');
            let (name, _password) = (fields.next()?, fields.next()?);
            let gid = number(fields.next()?)?;
            Some(Group { name, gid, members: fields.next().unwrap_or_default() })
        })
    }
}

/// How many names are looked at for one that was meant.
const CANDIDATES: usize = 1000;

fn near<'n>(name: &str, names: impl Iterator<Item = &'n [u8]>) -> Option<String> {
    closest(name, names.take(CANDIDATES).filter_map(|name| str::from_utf8(name).ok())).map(str::to_owned)
}

fn lines(file: Option<&[u8]>) -> impl Iterator<Item = &[u8]> {
    file.unwrap_or_default().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty() && !line.starts_with(b"#"))
}

fn number(field: &[u8]) -> Option<u32> {
    str::from_utf8(field).ok()?.parse().ok().filter(|id| *id != u32::MAX)
}

fn halves(text: &str) -> Result<(Half<'_>, Half<'_>), Unknown> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    Ok((half(user)?, half(group)?))
}

fn half(text: &str) -> Result<Half<'_>, Unknown> {
    if text.is_empty() {
        return Ok(Half::Absent);
    }
    // What consists of digits is an id, whatever the files say: `USER 1000` never means a user called 1000.
    if text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit()) {
        return number(text.as_bytes()).map(Half::Id).ok_or_else(|| Unknown::Id(text.to_owned()));
    }
    Ok(Half::Name(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nbroken:x:abc:1::/:\n\n# note\n\
        mail:x:8:8:mail:/var/mail:/bin/false\nwww-data:x:33:33::/var/www:\nbob:x:1111:1001::/home/john:/bin/sh\nshort:x:7:7\n";
    const GROUP: &str = "root:x:0:\ndaemon:x:1:\nwheel:x:10:root,bob\nstaff:x:50:\nvideo:x:44:bob,www-data\nbad:x:-4:bob\n";

    fn accounts() -> Accounts {
        Accounts::new(Some(Arc::from(PASSWD.as_bytes())), Some(Arc::from(GROUP.as_bytes())))
    }

    fn account(text: &str) -> (u32, u32, Vec<u32>, String) {
        let account = accounts().account(text).unwrap();
        (account.uid, account.gid, account.groups, String::from_utf8(account.home).unwrap())
    }

    #[test]
    fn a_user_alone_has_all_its_groups_and_its_home() {
        assert_eq!(account(""), (0, 0, vec![0, 10], "/root".into()));
        assert_eq!(account("root"), (0, 0, vec![0, 10], "/root".into()));
        assert_eq!(account("daemon"), (1, 1, vec![1], "/usr/sbin".into()));
        assert_eq!(account("bob"), (1111, 1001, vec![1001, 10, 44], "/home/john".into()));
        assert_eq!(account("1111"), (1111, 1001, vec![1001, 10, 44], "/home/john".into()));
    }

    #[test]
    fn a_number_without_a_line_has_group_zero() {
        assert_eq!(account("1234"), (1234, 0, vec![0], "/".into()));
        assert_eq!(account("short"), (7, 7, vec![7], "/".into()));
    }

    #[test]
    fn a_named_group_leaves_no_supplementary_groups() {
        assert_eq!(account("bob:staff"), (1111, 50, vec![50], "/home/john".into()));
        assert_eq!(account("0:0"), (0, 0, vec![0], "/root".into()));
        assert_eq!(account("1234:1234"), (1234, 1234, vec![1234], "/".into()));
    }

    #[test]
    fn owners_are_found_as_the_documentation_says() {
        for (text, want) in [
            ("1:2", (1, 2)),
            ("3", (3, 3)),
            ("www-data", (33, 33)),
            ("mail:staff", (8, 50)),
            (":9", (0, 9)),
            ("root:33", (0, 33)),
            ("3:", (3, 3)),
        ] {
            assert_eq!(accounts().owner(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn unknown_names_and_impossible_ids_are_errors() {
        let user = |name: &str| Err(Unknown::User { name: name.into(), near: None });
        assert_eq!(accounts().owner("nobodyhere"), user("nobodyhere"));
        assert!(matches!(accounts().owner("root:nogroup"), Err(Unknown::Group { name, .. }) if name == "nogroup"));
        assert!(accounts().account("broken").is_err());
        assert_eq!(Accounts::default().owner("root"), user("root"));
        assert_eq!(Accounts::default().owner("5:6"), Ok((5, 6)));
        for text in ["4294967295", "99999999999", "-1", "0:-7"] {
            assert!(matches!(accounts().account(text), Err(Unknown::Id(_))), "{text}");
        }
        assert_eq!(Accounts::default().account("").unwrap().uid, 0);
    }

    #[test]
    fn a_huge_line_costs_no_more_than_its_bytes() {
        let mut file = vec![b'x'; 1 << 20];
        file.extend_from_slice(b"\n\xff\xfe:x:9:9::/:\nlast:x:5:6::/h:\n");
        let accounts = Accounts::new(Some(Arc::from(file)), None);
        assert_eq!(accounts.owner("last"), Ok((5, 6)));
    }
}
