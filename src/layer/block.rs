//! The 512 bytes of a tar header, read.
//!
//! Source: POSIX ustar; GNU tar's `tar.h` (base-256 numbers, the old magic); Go's `archive/tar`, which every container
//! runtime reads layers with, where the two leave a choice.

/// The size of a block.
pub(crate) const BLOCK: usize = 512;

/// A header's fields, not yet interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) name: Vec<u8>,
    pub(crate) mode: i128,
    pub(crate) uid: i128,
    pub(crate) gid: i128,
    pub(crate) size: i128,
    pub(crate) mtime: i128,
    pub(crate) type_flag: u8,
    pub(crate) link: Vec<u8>,
    pub(crate) major: i128,
    pub(crate) minor: i128,
    /// Of a sparse file in GNU's old format: its map's beginning, whether there is more, and its size.
    pub(crate) sparse: Vec<u8>,
}

/// Reads a header whose bytes are not all zero.
pub(crate) fn parse(bytes: &[u8; BLOCK]) -> Result<Block, &'static str> {
    check_sum(bytes)?;
    let field = |from: usize, length: usize| bytes.get(from..from + length).unwrap_or_default();
    let magic = field(257, 8);
    let (posix, gnu) = (magic.starts_with(b"ustar\0"), magic == b"ustar  \0");
    let mut name = text(field(0, 100)).to_vec();
    // GNU's old format has times and sparse maps where POSIX has the prefix.
    let prefix = if posix { text(field(345, 155)) } else { b"" };
    if !prefix.is_empty() {
        name = [prefix, b"/", &name].concat();
    }
    let device = |from| if posix || gnu { number(field(from, 8)) } else { Ok(0) };
    Ok(Block {
        name,
        mode: number(field(100, 8))?,
        uid: number(field(108, 8))?,
        gid: number(field(116, 8))?,
        size: number(field(124, 12))?,
        mtime: number(field(136, 12))?,
        type_flag: bytes[156],
        link: text(field(157, 100)).to_vec(),
        major: device(329)?,
        minor: device(337)?,
        sparse: if bytes[156] == b'S' && gnu { field(386, 4 * 24 + 1 + 12).to_vec() } else { Vec::new() },
    })
}

/// The sum of all bytes, those of the sum itself taken as spaces; old writers took bytes as signed.
fn check_sum(bytes: &[u8; BLOCK]) -> Result<(), &'static str> {
    let want = number(bytes.get(148..156).unwrap_or_default())?;
    let counted = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    let unsigned: i128 = bytes.iter().enumerate().map(|(at, byte)| i128::from(counted(at, *byte))).sum();
    let signed: i128 = bytes.iter().enumerate().map(|(at, byte)| i128::from(counted(at, *byte).cast_signed())).sum();
    if want == unsigned || want == signed { Ok(()) } else { Err("a header whose checksum is wrong") }
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits between spaces and NULs, or base 256 if the first bit is set.
pub(crate) fn number(field: &[u8]) -> Result<i128, &'static str> {
    match field.split_first() {
        // At most 12 bytes: 96 bits, so that an i128 holds any of them.
        Some((first, rest)) if first & 0x80 != 0 => {
            let negative = first & 0x40 != 0;
            let start = if negative { i128::from(first | 0x80) - 0x100 } else { i128::from(first & 0x3f) };
            Ok(rest.iter().fold(start, |sum, byte| sum * 256 + i128::from(*byte)))
        }
        _ => {
            let start = field.iter().position(|byte| !matches!(byte, b' ' | 0)).unwrap_or(field.len());
            let digits = field.get(start..).unwrap_or_default();
            let end = digits.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(digits.len());
            digits.get(..end).unwrap_or_default().iter().try_fold(0_i128, |sum, digit| match digit {
                b'0'..=b'7' => Ok(sum * 8 + i128::from(digit - b'0')),
                _ => Err("a header with a number that is none"),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"   644 \0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0"), Ok(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\0"), Ok(256));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Ok(-2));
        assert!(number(b"-644\0").is_err());
        assert!(number(b"0x12\0").is_err());
        assert!(number(&[0xbf; 12]).unwrap() > i128::from(u64::MAX));
    }
}
