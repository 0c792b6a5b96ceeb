//! `sha256:<hex>`.

use std::{
    fmt,
    io::{self, Read},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a blob, as OCI names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The digest of a layer's uncompressed tar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

/// A text that is no digest we can check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest of the form sha256:<64 hex digits>")]
pub struct BadDigest {
    /// The text, cut to a readable length.
    pub text: String,
}

impl Digest {
    /// From the raw hash.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Of all that a stream gives, and how many bytes that is. An interrupted read is tried again.
    pub fn of_stream(mut from: impl Read) -> io::Result<(Self, u64)> {
        let (mut hash, mut bytes, mut size) = (Sha256::new(), vec![0; 128 * 1024], 0);
        loop {
            match from.read(&mut bytes) {
                Ok(0) => return Ok((Self(hash.finalize().into()), size)),
                Ok(count) => {
                    hash.update(bytes.get(..count).unwrap_or_default());
                    size += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The raw hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ignored = write!(text, "{byte:02x}");
            text
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bad = || BadDigest { text: text.chars().take(100).collect() };
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?.as_bytes();
        if hex.len() != 64 {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let nibble = |digit: u8| match digit {
                b'0'..=b'9' => Some(digit - b'0'),
                b'a'..=b'f' => Some(digit - b'a' + 10),
                _ => None,
            };
            let (high, low) = (nibble(pair[0]).ok_or_else(bad)?, nibble(pair[1]).ok_or_else(bad)?);
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interrupted before each piece; fails after the last, if it is to.
    struct Pieces(Vec<u8>, bool, bool);

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            match self {
                Self(_, true, _) => Err(io::ErrorKind::Interrupted.into()),
                Self(left, _, true) if left.is_empty() => Err(io::ErrorKind::ConnectionReset.into()),
                Self(left, ..) => {
                    let length = left.len().min(into.len()).min(777);
                    into[..length].copy_from_slice(&left[..length]);
                    drop(left.drain(..length));
                    Ok(length)
                }
            }
        }
    }

    #[test]
    fn a_stream_has_the_digest_of_its_bytes_or_none() {
        let bytes = b"0123456789".repeat(1000);
        assert_eq!(Digest::of_stream(Pieces(bytes.clone(), false, false)).unwrap(), (Digest::of(&bytes), 10_000));
        assert_eq!(Digest::of_stream(Pieces(bytes, false, true)).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_digest_is_the_same_as_text_and_back() {
        // The SHA-256 of nothing, from FIPS 180.
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), Digest::of(b""));
        assert_eq!(serde_json::from_str::<DiffId>(&format!("\"{text}\"")).unwrap(), DiffId(Digest::of(b"")));
    }

    #[test]
    fn what_could_be_a_path_or_another_spelling_is_no_digest() {
        let hex = "e".repeat(64);
        for text in [
            String::new(),
            hex.clone(),
            format!("sha512:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{hex}e"),
            "sha256:../../../etc/passwd".to_owned(),
            format!("sha256:{}é", "e".repeat(62)),
            format!("sha256: {}", "e".repeat(63)),
            format!("sha256:{hex}\n"),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
        let long = "x".repeat(1 << 20).parse::<Digest>().unwrap_err();
        assert!(long.to_string().len() < 300);
    }
}
