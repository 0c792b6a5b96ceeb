//! PAX extended records: `"%d %s=%s\n"`, the length counting itself. A value may hold any byte, newlines and `=` too, so
//! records are cut by their lengths and by nothing else.
//!
//! Source: POSIX pax, "pax Extended Header"; the `SCHILY.xattr.` prefix of star.

use std::collections::BTreeMap;

/// Records by key. An empty value takes back what the plain header, or a global record, says.
pub(crate) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// The map of a sparse file: offsets and lengths in turn, with commas.
pub(crate) const SPARSE_MAP: &[u8] = b"GNU.sparse.map";

/// The prefix of extended attributes.
pub(crate) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Reads the body of an `x` or `g` entry; a later record of a key replaces an earlier one.
pub(crate) fn parse(mut body: &[u8]) -> Result<Records, &'static str> {
    let mut records = Records::new();
    let mut sparse_numbers = Vec::new();
    while !body.is_empty() {
        // Some writers fill the block with zeros and count them.
        if body.iter().all(|byte| *byte == 0) {
            break;
        }
        let space = body.iter().take(12).position(|byte| *byte == b' ').ok_or("a PAX record without a length")?;
        let digits = body.get(..space).unwrap_or_default();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err("a PAX record whose length is no number");
        }
        let length = digits.iter().fold(0_usize, |sum, digit| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
        let record = body.get(space + 1..length).ok_or("a PAX record longer than its header, or of no length")?;
        let text = record.strip_suffix(b"\n").ok_or("a PAX record that does not end where it says")?;
        let equals = text.iter().position(|byte| *byte == b'=').ok_or("a PAX record without `=`")?;
        let (key, value) = text.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        let is_name = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
        if key.is_empty() || key.contains(&0) || (is_name && value.contains(&0)) {
            return Err("a PAX record with a NUL, or without a key");
        }
        match key {
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => sparse_numbers.push((key, value)),
            _ => drop(records.insert(key.to_vec(), value.to_vec())),
        }
        body = body.get(length..).unwrap_or_default();
    }
    if !sparse_numbers.is_empty() {
        drop(records.insert(SPARSE_MAP.to_vec(), sparse_map(&sparse_numbers)?));
    }
    Ok(records)
}

/// The first version of sparse files has two keys that come again and again, in turn.
fn sparse_map(numbers: &[(&[u8], &[u8])]) -> Result<Vec<u8>, &'static str> {
    let wanted = [&b"GNU.sparse.offset"[..], b"GNU.sparse.numbytes"];
    let in_turn = numbers.iter().zip(wanted.iter().cycle()).all(|((key, value), wanted)| key == wanted && !value.contains(&b','));
    if !in_turn {
        return Err("a sparse file whose map is out of order");
    }
    Ok(numbers.iter().map(|(_, value)| *value).collect::<Vec<_>>().join(&b','))
}

/// The body of an `x` entry.
pub(crate) fn format(records: &Records) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        // A space, `=` and the newline; then the length's own digits, which may add a digit.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + decimal_digits(rest);
        if rest + decimal_digits(length) != length {
            length = rest + decimal_digits(length);
        }
        body.extend_from_slice(length.to_string().as_bytes());
        body.push(b' ');
        body.extend_from_slice(key);
        body.push(b'=');
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}

fn decimal_digits(number: usize) -> usize {
    number.to_string().len()
}

/// A decimal number of at most 19 digits, without a sign.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// A time as seconds with an optional fraction, rounded down to a whole second.
pub(crate) fn seconds(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || whole.starts_with('+') {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let below = whole.starts_with('-') && fraction.bytes().any(|byte| byte != b'0');
    if below { seconds.checked_sub(1) } else { Some(seconds) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_may_hold_what_looks_like_a_record() {
        let records =
            Records::from([(b"SCHILY.xattr.user.a".to_vec(), b"x\n18 linkpath=/etc\n".to_vec()), (b"path".to_vec(), b"p".to_vec())]);
        assert_eq!(parse(&format(&records)), Ok(records));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for body in [
            &b"5 a=b"[..],
            b"99 a=b\n",
            b"0 a=b\n",
            b"3 a=b\n",
            b"x a=b\n",
            b" a=b\n",
            b"-6 a=b\n",
            b"6 abc\n",
            b"5 =b\n",
            b"99999999999999999999 a=b\n",
            b"+6 a=b\n",
            b"11 path=a\0b\n",
        ] {
            assert!(parse(body).is_err(), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn times_are_rounded_down() {
        assert_eq!(seconds(b"1.999"), Some(1));
        assert_eq!(seconds(b"-1.5"), Some(-2));
        assert_eq!(seconds(b"-1.0"), Some(-1));
        assert_eq!(seconds(b"12"), Some(12));
        for bad in [&b""[..], b"a", b"1.x", b"+1", b"99999999999999999999"] {
            assert_eq!(seconds(bad), None);
        }
    }

    proptest! {
        #[test]
        fn records_read_back(records in proptest::collection::btree_map("[a-zA-Z.]{1,120}".prop_map(String::into_bytes), proptest::collection::vec(1_u8.., 0..1100), 0..4)) {
            prop_assert_eq!(parse(&format(&records)), Ok(records));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _result = parse(&body);
        }
    }
}
