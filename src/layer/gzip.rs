//! gzip in blocks that are compressed independently of each other, and are one member together.
//!
//! ```text
//! header · block · block · … · empty last block · CRC · size
//! ```
//!
//! Each block of [`BLOCK`] plain bytes is raw deflate that was primed with the [`WINDOW`] before it and ends on a byte (a sync
//! flush), or, where compressing would be in vain, stored as it is. So its bytes depend on the plain bytes and the level alone: not
//! on how many threads there are, nor on the sizes of writes.
//!
//! Source: RFC 1951, RFC 1952; zlib's manual (`deflateSetDictionary`, `Z_SYNC_FLUSH`).

use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress};

use super::noise::is_noise;

/// The plain bytes of a block; the last one may have fewer.
pub(super) const BLOCK: usize = 256 * 1024;
/// How far back a block's strings may refer.
pub(super) const WINDOW: usize = 32 * 1024;
/// A stored block's size has 16 bits.
const STORED: usize = 0xffff;

/// No name, no time, the slowest and the fastest levels not told, no system: nothing of the machine.
pub(super) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The last block, which is empty.
const LAST: [u8; 2] = [3, 0];

/// A block of plain bytes under way: those before it that it may refer to, then its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    /// At most [`WINDOW`]; fewer at the beginning of the stream.
    pub(super) window: &'a [u8],
    /// At most [`BLOCK`], at least one.
    pub(super) plain: &'a [u8],
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The output has it.
    Deflated,
    /// Its plain bytes are to be stored.
    Stored,
}

/// Compresses a block onto the end of `out`, unless storing it is as good. Each block has a new compressor: a reset one is not
/// quite new (zlib-rs 0.6 at level 1), and its bytes would depend on what it did before.
pub(super) fn deflate(block: Block<'_>, level: u32, out: &mut Vec<u8>) -> io::Result<Form> {
    if level == 0 || is_noise(block.plain) {
        return Ok(Form::Stored);
    }
    let mut compress = Compress::new(Compression::new(level), false);
    if !block.window.is_empty() {
        let _adler = compress.set_dictionary(block.window)?;
    }
    let begin = out.len();
    out.reserve(block.plain.len() + 64);
    loop {
        let used = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let rest = block.plain.get(used..).unwrap_or_default();
        let _status = compress.compress_vec(rest, out, FlushCompress::Sync)?;
        // Room that is left says that the flush is complete.
        if compress.total_in() == block.plain.len() as u64 && out.len() < out.capacity() {
            break;
        }
        out.reserve(4096);
    }
    if out.len() - begin < stored_size(block.plain.len()) {
        return Ok(Form::Deflated);
    }
    out.truncate(begin);
    Ok(Form::Stored)
}

fn stored_size(plain: usize) -> usize {
    plain + 5 * plain.div_ceil(STORED)
}

/// Writes a block as it is. What is before it ended on a byte.
pub(super) fn store(plain: &[u8], to: &mut impl Write) -> io::Result<()> {
    for part in plain.chunks(STORED) {
        let size = u16::try_from(part.len()).unwrap_or(u16::MAX);
        let ([low, high], [not_low, not_high]) = (size.to_le_bytes(), (!size).to_le_bytes());
        to.write_all(&[0, low, high, not_low, not_high])?;
        to.write_all(part)?;
    }
    Ok(())
}

/// The sum of plain bytes.
pub(super) fn sum(plain: &[u8]) -> Crc {
    let mut crc = Crc::new();
    crc.update(plain);
    crc
}

/// What follows the last block, by the sum of all of them.
pub(super) fn trailer(sum: &Crc) -> [u8; 10] {
    let mut bytes = [0; 10];
    let parts = LAST.into_iter().chain(sum.sum().to_le_bytes()).chain(sum.amount().to_le_bytes());
    for (to, from) in bytes.iter_mut().zip(parts) {
        *to = from;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn gzip(plain: &[u8], level: u32) -> Vec<u8> {
        let (mut out, mut sums) = (HEADER.to_vec(), Crc::new());
        for (number, part) in plain.chunks(BLOCK).enumerate() {
            let before = &plain[..number * BLOCK];
            let block = Block { window: &before[before.len().saturating_sub(WINDOW)..], plain: part };
            if deflate(block, level, &mut out).unwrap() == Form::Stored {
                store(part, &mut out).unwrap();
            }
            sums.combine(&sum(part));
        }
        out.extend_from_slice(&trailer(&sums));
        out
    }

    fn gunzip(packed: &[u8]) -> Vec<u8> {
        let (mut plain, mut decoder) = (Vec::new(), flate2::bufread::GzDecoder::new(packed));
        let _size = decoder.read_to_end(&mut plain).unwrap();
        assert!(decoder.into_inner().is_empty(), "it is more than one member");
        plain
    }

    fn noise(size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn words(count: usize) -> Vec<u8> {
        noise(count).iter().flat_map(|byte| format!("word-{byte} ").into_bytes()).collect()
    }

    #[test]
    fn any_level_and_size_is_one_member_that_unpacks_to_the_same_bytes() {
        let text = words(100_000);
        for level in 0..=9 {
            for size in [0, 1, 4095, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + WINDOW] {
                assert_eq!(gunzip(&gzip(&text[..size], level)), &text[..size], "{level} {size}");
            }
        }
    }

    #[test]
    fn strings_are_found_across_the_border_of_blocks() {
        // All but the first block is what the block before it ended with.
        let window = noise(WINDOW / 2);
        let all = [vec![7; BLOCK - window.len()], window.clone(), window.clone(), vec![7; 1000]].concat();
        let packed = gzip(&all, 6);
        assert!(packed.len() < window.len() + 3000, "{}", packed.len());
        assert_eq!(gunzip(&packed), all);
    }

    #[test]
    fn noise_is_stored_and_grows_by_less_than_a_thousandth() {
        let plain = noise(BLOCK * 3 + 77_777);
        let packed = gzip(&plain, 6);
        assert!(packed.len() < plain.len() + plain.len() / 5000, "{}", packed.len());
        assert_eq!(gunzip(&packed), plain);
        assert!(packed.windows(1000).any(|part| part == &plain[..1000]));
    }

    #[test]
    fn a_level_of_zero_stores() {
        let packed = gzip(&words(10), 0);
        assert!(packed.windows(words(10).len()).any(|part| part == words(10)));
    }

    #[test]
    fn nothing_is_a_member_too() {
        assert_eq!(gzip(b"", 6), [HEADER.as_slice(), &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat());
        assert_eq!(gunzip(&gzip(b"", 6)), b"");
    }
}
