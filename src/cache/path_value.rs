//! What a record says of one path.

use std::fmt;

/// What is selected at a path, in the parts that a user changes. In a record: `<mode>:<uid>:<gid>:<kind>:<attributes>:<digest>`,
/// as in `0644:0:0:file::<hex>`, its digests salted. A text of another form is all content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathValue {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// One word: `file`, `dir`, `symlink`, `char`, `block`, `fifo`.
    pub kind: String,
    /// Of the extended attributes; empty if there are none.
    pub attributes: String,
    /// Of the bytes, the target, the device numbers: whatever else the key was made of. May be empty.
    pub digest: String,
}

impl fmt::Display for PathValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}:{}:{}:{}:{}:{}", self.mode, self.uid, self.gid, self.kind, self.attributes, self.digest)
    }
}

impl PathValue {
    /// Reads the form; what is not of it is all content.
    pub(super) fn parse(text: &str) -> Self {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let parsed = match parts.as_slice() {
            [mode, uid, gid, kind, attributes, digest] => (|| {
                let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
                let mode = u32::from_str_radix(mode, 8).ok()?;
                let [kind, attributes, digest] = [kind, attributes, digest].map(|&part| part.to_owned());
                Some(Self { mode, uid, gid, kind, attributes, digest })
            })(),
            _ => None,
        };
        let content = || Self { mode: 0, uid: 0, gid: 0, kind: String::new(), attributes: String::new(), digest: text.to_owned() };
        parsed.unwrap_or_else(content)
    }

    /// What is different, in words for a user. `None`: nothing.
    pub(super) fn change(&self, now: &Self) -> Option<String> {
        let mut changes = Vec::new();
        if self.kind != now.kind {
            changes.push(format!("{}→{}", self.kind, now.kind));
        } else if self.digest != now.digest {
            changes.push(if self.kind == "symlink" { "target" } else { "content" }.to_owned());
        }
        // A link has no mode of its own.
        if self.mode != now.mode && self.kind == now.kind {
            changes.push(format!("mode {:04o}→{:04o}", self.mode, now.mode));
        }
        if (self.uid, self.gid) != (now.uid, now.gid) {
            changes.push(format!("owner {}:{}→{}:{}", self.uid, self.gid, now.uid, now.gid));
        }
        if self.attributes != now.attributes {
            changes.push("extended attributes".to_owned());
        }
        (!changes.is_empty()).then(|| changes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_was_written_and_anything_else_is_content() {
        let value = PathValue { mode: 0o4755, uid: 33, gid: 0, kind: "file".into(), attributes: "x".into(), digest: "ab:c".into() };
        assert_eq!(value.to_string(), "4755:33:0:file:x:ab:c");
        assert_eq!(PathValue::parse(&value.to_string()), value);
        assert_eq!(PathValue::parse("x:1:2:file::d").digest, "x:1:2:file::d");
        assert_eq!(PathValue::parse("plain").change(&PathValue::parse("other")), Some("content".into()));
    }

    #[test]
    fn changes_are_told_part_by_part() {
        let told = |one: &str, other: &str| PathValue::parse(one).change(&PathValue::parse(other));
        assert_eq!(told("0644:0:0:file::a", "0644:0:0:file::a"), None);
        assert_eq!(told("0644:0:0:file::a", "0664:0:0:file::a").unwrap(), "mode 0644→0664");
        assert_eq!(told("0644:0:0:file::a", "0644:0:0:symlink::b").unwrap(), "file→symlink");
        assert_eq!(told("0644:0:0:file::a", "0644:33:0:file::b").unwrap(), "content, owner 0:0→33:0");
        assert_eq!(told("0777:0:0:symlink::a", "0777:0:0:symlink::b").unwrap(), "target");
        assert_eq!(told("0644:0:0:file::a", "0644:0:0:file:x:a").unwrap(), "extended attributes");
    }
}
