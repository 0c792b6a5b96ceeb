//! `--chmod`: octal, or the symbolic grammar of BSD's chmod, without a umask.
//!
//! ```text
//! mode   = clause { "," clause }      clause = { "u" | "g" | "o" | "a" } action { action }
//! action = ( "+" | "-" | "=" ) ( { "r" | "w" | "x" | "X" | "s" | "t" } | "u" | "g" | "o" )
//! ```
//!
//! Source: FreeBSD `chmod(1)`, `setmode(3)`; BuildKit uses the same grammar (fsutil `ModeStr`).

/// A mode that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid chmod parameter: '{text}': {reason}")]
pub struct BadMode {
    /// As written.
    pub text: String,
    /// What is wrong.
    pub reason: &'static str,
}

/// What `--chmod` does to a mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModeChange {
    /// These bits, whatever was there.
    Octal(u32),
    /// A change of what is there.
    Symbolic(Vec<Action>),
}

/// One `[ugoa]*[+-=]…` of a symbolic mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// The bits of those that are named.
    who: u32,
    op: Op,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Bits, and whether `X` is among them.
    Bits { bits: u32, search: bool },
    /// The bits that somebody has now, by the number of places that they stand to the left.
    Copy(u32),
}

const ALL: u32 = 0o6777;
const OTHERS: u32 = 0o007;
const SEARCH: u32 = 0o111;
const STICKY: u32 = 0o1000;

impl ModeChange {
    /// Reads either form.
    pub fn parse(text: &str) -> Result<Self, BadMode> {
        let bad = |reason| BadMode { text: text.chars().take(100).collect(), reason };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::Octal(mode)),
                _ => Err(bad("it must be an octal number between 0 and 07777")),
            };
        }
        let mut actions = Vec::new();
        for clause in text.split(',') {
            read_clause(clause.as_bytes(), &mut actions).map_err(bad)?;
        }
        Ok(Self::Symbolic(actions))
    }

    /// The mode of something that has `mode` now.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(actions) => {
                let search = is_dir || mode & SEARCH != 0;
                actions.iter().fold(mode, |now, action| action.apply(now, search)) & 0o7777
            }
        }
    }

    /// The mode of a directory that is made on the way: the octal one, else 0755.
    pub fn of_parents(&self) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(_) => 0o755,
        }
    }
}

impl Action {
    fn apply(self, now: u32, search: bool) -> u32 {
        let bits = match self.what {
            What::Bits { bits, search: asked } => bits | if asked && search { SEARCH } else { 0 },
            What::Copy(shift) => ((now >> shift) & 0o7) * SEARCH,
        } & self.who;
        match self.op {
            Op::Add => now | bits,
            Op::Remove => now & !bits,
            Op::Set => (now & !self.who) | bits,
        }
    }
}

fn read_clause(clause: &[u8], actions: &mut Vec<Action>) -> Result<(), &'static str> {
    let length = clause.iter().take_while(|byte| b"ugoa".contains(byte)).count();
    let (names, mut rest) = clause.split_at(length);
    let who = if names.is_empty() { ALL } else { names.iter().fold(0, |who, name| who | bits_of(*name)) };
    if rest.is_empty() {
        return Err("it needs one of `+`, `-`, `=`");
    }
    while let Some((op, after)) = rest.split_first() {
        let op = match op {
            b'+' => Op::Add,
            b'-' => Op::Remove,
            b'=' => Op::Set,
            _ => return Err("it is neither octal nor made of `[ugoa][+-=][rwxXst]`"),
        };
        let length = after.iter().take_while(|byte| !b"+-=".contains(byte)).count();
        let (letters, next) = after.split_at(length);
        actions.push(read_action(who, op, letters)?);
        rest = next;
    }
    Ok(())
}

/// All bits that belong to one of `ugoa`.
fn bits_of(name: u8) -> u32 {
    match name {
        b'u' => 0o4700,
        b'g' => 0o2070,
        b'o' => OTHERS,
        _ => ALL,
    }
}

fn read_action(who: u32, op: Op, letters: &[u8]) -> Result<Action, &'static str> {
    let copied = match letters {
        b"u" => Some(6),
        b"g" => Some(3),
        b"o" => Some(0),
        _ => None,
    };
    if let Some(shift) = copied {
        return Ok(Action { who: who & 0o777, op, what: What::Copy(shift) });
    }
    let (mut who, mut bits, mut search) = (who, 0, false);
    for letter in letters {
        bits |= match letter {
            b'r' => 0o444,
            b'w' => 0o222,
            b'x' => SEARCH,
            b's' => 0o6000,
            b'X' => {
                search = true;
                0
            }
            // Others have no sticky bit: `o+t` changes nothing, as chmod(1) says.
            b't' if who & !OTHERS != 0 => {
                who |= STICKY;
                STICKY
            }
            b't' => 0,
            _ => return Err("it is neither octal nor made of `[ugoa][+-=][rwxXst]`"),
        };
    }
    Ok(Action { who, op, what: What::Bits { bits, search } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, mode: u32, is_dir: bool) -> u32 {
        ModeChange::parse(text).unwrap().apply(mode, is_dir)
    }

    #[test]
    fn octal_modes_replace_what_was_there() {
        assert_eq!(changed("0644", 0o4755, false), 0o644);
        assert_eq!(changed("7777", 0, true), 0o7777);
        assert_eq!(changed("0", 0o777, false), 0);
    }

    #[test]
    fn symbolic_modes_change_what_was_there() {
        for (text, mode, is_dir, want) in [
            ("go-w", 0o666, false, 0o644),
            ("u=rw,g=r,o=r", 0o666, false, 0o644),
            ("a+X", 0o666, false, 0o666),
            ("a+X", 0o124, true, 0o135),
            ("a+X", 0o100, false, 0o111),
            ("u+rw,g+r,o-x,o+w", 0o124, true, 0o766),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o640, false, 0o644),
            ("g=u", 0o740, false, 0o770),
            ("o=g-w", 0o760, false, 0o764),
            ("+x", 0o644, false, 0o755),
            ("=", 0o6755, false, 0),
            ("u+s", 0o755, false, 0o4755),
            ("g+s,+t", 0o755, true, 0o3755),
            ("o+t", 0o755, true, 0o755),
            ("u=rwx", 0o4755, false, 0o755),
            ("a=r+x", 0o777, false, 0o555),
        ] {
            assert_eq!(changed(text, mode, is_dir), want, "{text} on {mode:o}");
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["", "64a", "10000", "abc", "u", "u+q", "8", "u=rw,", "rw", "u=ug", "-1"] {
            assert!(ModeChange::parse(text).is_err(), "{text}");
        }
    }
}
