//! Would compressing these bytes be in vain? Judged from the bytes alone, so that the answer is the same everywhere.
//!
//! What deflate can use is an uneven distribution of bytes, or strings that come again within 32 KiB. Bytes are noise if
//! they have neither: pictures, films, archives, encrypted data.

/// Samples of the first look: so many, of so many bytes.
const SAMPLES: (usize, usize) = (16, 1024);
/// A string that comes again has at least as many bytes; one of twice that is certainly seen where it is looked for.
const STRING: usize = 8;
/// How far back deflate sees.
const REACH: usize = 32 * 1024;
/// It is looked for in so many bytes of each `STRETCH`: strings that come again are mostly long.
const LOOKED: usize = 256;
const STRETCH: usize = 1024;
/// Table of the strings' places: four times as many as are in reach.
const PLACES: u32 = 14;

/// Would compressing save less than about one part in a hundred?
pub(super) fn is_noise(bytes: &[u8]) -> bool {
    // Short ones cost little either way, and say little about themselves.
    bytes.len() >= 4096 && looks_even(bytes) && is_even(bytes) && !repeats(bytes)
}

/// A look at a part: most blocks are told apart here.
fn looks_even(bytes: &[u8]) -> bool {
    let (count, size) = SAMPLES;
    let step = (bytes.len() / count).max(size);
    let mut tally = [0_u32; 256];
    let mut seen = 0;
    for sample in bytes.chunks(step).map(|chunk| chunk.get(..size).unwrap_or(chunk)) {
        seen += sample.len();
        for byte in sample {
            tally[usize::from(*byte)] += 1;
        }
    }
    nearly_even(&tally, seen)
}

fn is_even(bytes: &[u8]) -> bool {
    // Several tallies, as equal bytes in a row would wait for each other's sum.
    let mut tallies = [[0_u32; 256]; 4];
    let (quads, rest) = bytes.as_chunks::<4>();
    for quad in quads {
        for (tally, byte) in tallies.iter_mut().zip(quad) {
            tally[usize::from(*byte)] += 1;
        }
    }
    let mut tally = [0_u32; 256];
    for each in &tallies {
        for (sum, count) in tally.iter_mut().zip(each) {
            *sum += count;
        }
    }
    for byte in rest {
        tally[usize::from(*byte)] += 1;
    }
    nearly_even(&tally, bytes.len())
}

/// With n bytes, `256·Σ count² / n² - 1` is about 256/n for noise, and beyond that eleven times the part that the best code of
/// bytes would save: a sixteenth is half a part in a hundred. In whole numbers, as floating point could differ between machines.
fn nearly_even(tally: &[u32; 256], size: usize) -> bool {
    let squares: u64 = tally.iter().map(|count| u64::from(*count) * u64::from(*count)).sum();
    let size = size as u64;
    squares * 256 < size * size + size * size / 16 + size * 256 * 3 / 2
}

/// Do strings come again, in more than one of 64 places that are looked at?
fn repeats(bytes: &[u8]) -> bool {
    let mut places = vec![0_u32; 1 << PLACES];
    let (mut looked, mut found) = (0_usize, 0_usize);
    let string =
        |at: usize| bytes.get(at..at + STRING).and_then(|string| string.first_chunk::<STRING>()).map(|string| u64::from_le_bytes(*string));
    let slot = |string: u64| usize::try_from(string.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES)).unwrap_or(0);
    for start in (0..bytes.len()).step_by(STRETCH) {
        for at in start..start + LOOKED {
            let Some(want) = string(at) else { break };
            looked += 1;
            let place = places.get(slot(want)).map_or(0, |place| *place as usize);
            // Zero says that there is none: the first string of all is not missed by anybody.
            found += usize::from(place > 0 && at - place < REACH && string(place) == Some(want));
        }
        for at in (start..start + STRETCH).step_by(STRING) {
            if let (Some(each), Ok(place)) = (string(at), u32::try_from(at))
                && let Some(slot) = places.get_mut(slot(each))
            {
                *slot = place;
            }
        }
    }
    found * 64 > looked
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise, always the same for a seed.
    fn noise(seed: u64, size: usize) -> Vec<u8> {
        let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut bytes = vec![0; size];
        reader.fill(&mut bytes);
        bytes
    }

    /// What deflate makes of it, in parts of a hundred.
    fn deflated(bytes: &[u8]) -> usize {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap().len() * 100 / bytes.len()
    }

    #[test]
    fn noise_of_any_size_is_noise() {
        for size in [4096, 10_000, 65_536, 256 * 1024] {
            for seed in 0..4 {
                assert!(is_noise(&noise(seed, size)), "{size} {seed}");
            }
        }
        let text = b"text ".repeat(2000);
        let gzip = [text.as_slice(), &noise(1, 100)].concat();
        assert!(!is_noise(&gzip));
        assert!(!is_noise(b""));
    }

    #[test]
    fn what_can_be_compressed_is_no_noise() {
        let size = 256 * 1024;
        let counted: Vec<u8> = (0..size).map(|at| u8::try_from(at % 256).unwrap()).collect();
        let base64: Vec<u8> = noise(1, size).iter().map(|byte| b' ' + byte % 64).collect();
        let again = noise(2, 16 * 1024).repeat(16);
        let half = [noise(3, size / 2), vec![0; size / 2]].concat();
        let header: Vec<u8> = (0..size / 512).flat_map(|at| [vec![0; 64], noise(at as u64, 448)].concat()).collect();
        for bytes in [counted, base64, again, half, header] {
            assert!(deflated(&bytes) < 97);
            assert!(!is_noise(&bytes), "{}", deflated(&bytes));
        }
    }

    #[test]
    fn little_is_lost_where_it_says_noise() {
        // Noise with ever more of something else in it.
        for zeros in (0..8192).step_by(512) {
            let bytes = [noise(9, 128 * 1024), vec![0; zeros], noise(10, 128 * 1024)].concat();
            assert!(!is_noise(&bytes) || deflated(&bytes) >= 97, "{zeros}");
        }
    }
}
