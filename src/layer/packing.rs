//! How a stream is compressed, told by its first bytes and by nothing else: media types and file names lie.

use std::io::{self, Cursor, Read};

/// What xz may take to decompress: its largest preset needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// The longest magic number.
const MAGIC: usize = 6;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not, or not in a way that is known.
    Plain,
    /// gzip, of any number of members.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// zstd, of any number of frames, skippable ones too.
    Zstd,
}

impl Packing {
    /// By the first bytes of a stream; six are enough.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// The plain bytes of a stream, whatever it is packed in. What follows the packed data must be more of the same: anything
/// else is a read error, so that no byte goes unread.
pub fn decompress<'a>(mut from: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut head = Vec::with_capacity(MAGIC);
    let _read = (&mut from).take(MAGIC as u64).read_to_end(&mut head)?;
    let packing = Packing::of(&head);
    let all = io::BufReader::with_capacity(128 * 1024, Cursor::new(head).chain(from));
    Ok(match packing {
        Packing::Plain => Box::new(all),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(all)),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(all)),
        Packing::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED);
            Box::new(liblzma::bufread::XzDecoder::new_stream(all, stream.map_err(io::Error::other)?))
        }
        // Without a setting the window is at most 128 MiB.
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(all)?),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn plain(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let _read = decompress(packed)?.read_to_end(&mut all)?;
        Ok(all)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_packing_is_told_by_its_bytes() {
        let text = b"some bytes, some bytes, some bytes".repeat(100);
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(&text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&text).unwrap();
        for (packed, packing) in [
            (text.clone(), Packing::Plain),
            (gzip(&text), Packing::Gzip),
            (bz.finish().unwrap(), Packing::Bzip2),
            (xz.finish().unwrap(), Packing::Xz),
            (zstd::encode_all(text.as_slice(), 1).unwrap(), Packing::Zstd),
        ] {
            assert_eq!(Packing::of(&packed), packing);
            assert_eq!(plain(&packed).unwrap(), text, "{packing:?}");
        }
        assert_eq!(plain(b"").unwrap(), b"");
        assert_eq!(plain(b"\x1f").unwrap(), b"\x1f");
    }

    #[test]
    fn members_and_frames_are_joined_and_skippable_ones_skipped() {
        assert_eq!(plain(&[gzip(b"ab"), gzip(b""), gzip(b"cd")].concat()).unwrap(), b"abcd");
        let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let skip = b"\x5a\x2a\x4d\x18\x03\0\0\0xyz".to_vec();
        assert_eq!(plain(&[skip.clone(), frame(b"ab"), skip.clone(), frame(b"cd"), skip].concat()).unwrap(), b"abcd");
    }

    #[test]
    fn garbage_after_the_end_and_cuts_are_errors() {
        for packed in [gzip(b"abcdef"), zstd::encode_all(&b"abcdef"[..], 1).unwrap()] {
            assert!(plain(&[packed.as_slice(), b"garbage"].concat()).is_err());
            assert!(plain(&packed[..packed.len() - 3]).is_err());
        }
    }
}
