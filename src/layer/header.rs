//! Tar headers as we write them: ustar with PAX records where a field is too small or not ASCII, and nowhere else. No
//! names of users, no times but whole seconds of modification, so that equal trees have equal bytes.
//!
//! Source: POSIX ustar and pax; image-spec `layer.md`.

use super::{
    block::BLOCK,
    pax::{self, Records},
};
use crate::tree::Meta;

/// What the header of one entry says.
pub(crate) struct Header<'a> {
    /// Relative; ends in `/` for a directory.
    pub(crate) name: &'a [u8],
    pub(crate) meta: &'a Meta,
    pub(crate) type_flag: u8,
    /// Of a file's body, else 0.
    pub(crate) size: u64,
    /// Of a symbolic or hard link.
    pub(crate) link: &'a [u8],
    /// Major and minor number.
    pub(crate) device: (u32, u32),
}

/// Two blocks of zeros.
pub(crate) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// What the last block of a body lacks.
pub(crate) fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK - over }
}

/// The blocks of an entry before its body; `None` if an attribute's name cannot be in a PAX record, or a device number in a header.
pub(crate) fn format(header: &Header<'_>) -> Option<Vec<u8>> {
    let mut records = Records::new();
    let mut block = [0_u8; BLOCK];
    text(&mut block, 0, header.name, "path", &mut records);
    number(&mut block, 100, 8, u64::from(header.meta.mode));
    for (at, length, key, value) in [
        (108, 8, "uid", i64::from(header.meta.uid)),
        (116, 8, "gid", i64::from(header.meta.gid)),
        (124, 12, "size", i64::try_from(header.size).ok()?),
        (136, 12, "mtime", header.meta.mtime),
    ] {
        let fits = u64::try_from(value).ok().filter(|value| *value < 1 << (3 * (length - 1)));
        if fits.is_none() {
            drop(records.insert(key.into(), value.to_string().into_bytes()));
        }
        number(&mut block, at, length, fits.unwrap_or(0));
    }
    block[156] = header.type_flag;
    text(&mut block, 157, header.link, "linkpath", &mut records);
    put(&mut block, 257, b"ustar\x0000");
    if header.device.0.max(header.device.1) >= 1 << 21 {
        return None;
    }
    number(&mut block, 329, 8, u64::from(header.device.0));
    number(&mut block, 337, 8, u64::from(header.device.1));
    for (name, value) in &header.meta.xattrs {
        if name.contains(&b'=') || name.contains(&0) {
            return None;
        }
        drop(records.insert([pax::XATTR, name].concat(), value.clone()));
    }
    let mut all = if records.is_empty() { Vec::new() } else { extended(header.name, &records) };
    all.extend_from_slice(&summed(block));
    Some(all)
}

/// The `x` entry that holds records.
fn extended(name: &[u8], records: &Records) -> Vec<u8> {
    let body = pax::format(records);
    let mut block = [0_u8; BLOCK];
    let base = name.strip_suffix(b"/").unwrap_or(name).rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    put(&mut block, 0, &ascii(&[b"PaxHeaders.0/", base].concat()));
    for (at, length, value) in
        [(100, 8, 0o644), (108, 8, 0), (116, 8, 0), (124, 12, body.len() as u64), (136, 12, 0), (329, 8, 0), (337, 8, 0)]
    {
        number(&mut block, at, length, value);
    }
    block[156] = b'x';
    put(&mut block, 257, b"ustar\x0000");
    let mut all = summed(block).to_vec();
    all.extend_from_slice(&body);
    all.resize(all.len().next_multiple_of(BLOCK), 0);
    all
}

/// A name of at most 100 ASCII bytes; else what of it fits, and a record.
fn text(block: &mut [u8; BLOCK], at: usize, value: &[u8], key: &str, records: &mut Records) {
    if value.len() > 100 || !value.is_ascii() {
        drop(records.insert(key.into(), value.to_vec()));
    }
    put(block, at, &ascii(value));
}

/// What a reader without PAX would see.
fn ascii(value: &[u8]) -> Vec<u8> {
    value.iter().copied().filter(u8::is_ascii).take(100).collect()
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    for (slot, byte) in block.iter_mut().skip(at).zip(bytes) {
        *slot = *byte;
    }
}

/// Octal digits and a NUL; the value fits.
fn number(block: &mut [u8; BLOCK], at: usize, length: usize, value: u64) {
    put(block, at, format!("{value:0width$o}\0", width = length - 1).as_bytes());
}

fn summed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    put(&mut block, 148, b"        ");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    block
}
