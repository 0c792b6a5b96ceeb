//! A private key of a file, in memory, and what it signs.
//!
//! Source: RFC 8332 (RSA with SHA-2), RFC 8709 (ed25519), RFC 5656 (ECDSA), OpenSSH PROTOCOL.key.

use std::{fmt, io::Read as _, path::Path};

use rsa::{
    BigUint, RsaPrivateKey, pkcs1v15,
    rand_core::OsRng,
    sha2::{Sha256, Sha512},
    signature::{RandomizedSigner as _, SignatureEncoding as _, Signer as _},
};
use ssh_key::{PrivateKey, private::RsaKeypair};

use crate::error::{Error, Kind};

/// The most bytes a key's file may have.
const LIMIT: u64 = 100 * 1024;

/// The flags of a request for a signature, which say the hash of an RSA signature.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// A key that can sign.
pub(super) struct Key {
    /// As the protocol has it.
    pub(super) public: Vec<u8>,
    /// What its owner calls it.
    pub(super) comment: String,
    secret: Secret,
}

enum Secret {
    Rsa(Box<RsaPrivateKey>),
    Other(Box<PrivateKey>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("comment", &self.comment).finish_non_exhaustive()
    }
}

impl Key {
    /// Reads a private key. `id` is for messages.
    pub(super) fn read(id: &str, path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let unreadable =
            |error: std::io::Error| Error::new(Kind::Request, format!("cannot read the key `{shown}` of `--ssh {id}`")).because(&error);
        let mut text = Vec::new();
        let length = std::fs::File::open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut text)).map_err(unreadable)?;
        if length as u64 > LIMIT {
            return Err(Error::new(Kind::Request, format!("`{shown}` of `--ssh {id}` is too large for a key: more than {LIMIT} bytes")));
        }
        Self::parse(&text).map_err(|(reason, help)| {
            Error::new(Kind::Request, format!("the key `{shown}` of `--ssh {id}` cannot be used: {reason}"))
                .help(help.replace("FILE", &shown.to_string()).replace("ID", id))
        })
    }

    /// `Err`: why not, and what to do; the help's FILE is the key's file, and its ID the agent's.
    fn parse(text: &[u8]) -> Result<Self, (String, &'static str)> {
        const AGENT: &str = "give it to an agent with `ssh-add FILE`, and write `--ssh ID`";
        let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
        let key = match PrivateKey::from_openssh(text) {
            Ok(key) => key,
            Err(_) if text.starts_with(b"ssh-") || text.starts_with(b"ecdsa-") || text.starts_with(b"sk-") => {
                return Err(("it is the public key".to_owned(), "name the private key, the file without `.pub`"));
            }
            Err(_) if has(b"PRIVATE KEY-----") && !has(b"-----BEGIN OPENSSH") => {
                return Err(("it is not in OpenSSH's own form".to_owned(), "convert it in place with `ssh-keygen -p -f FILE`"));
            }
            Err(_) if !has(b"-----BEGIN") => {
                return Err(("it is no private key".to_owned(), "name a private key that `ssh-keygen` made, or the socket of an agent"));
            }
            // The words are the crate's own and hold nothing of the file.
            Err(error) => return Err((error.to_string(), "name a private key that `ssh-keygen` made, or the socket of an agent")),
        };
        if key.is_encrypted() {
            return Err(("it is encrypted with a passphrase".to_owned(), AGENT));
        }
        let broken = |what: String| (what, "name a private key that `ssh-keygen` made, or the socket of an agent");
        let public = key.public_key().to_bytes().map_err(|error| broken(error.to_string()))?;
        let comment = key.comment().to_owned();
        let secret = if let Some(pair) = key.key_data().rsa() {
            Secret::Rsa(Box::new(rsa_key(pair).ok_or_else(|| broken("its numbers make no RSA key".to_owned()))?))
        } else {
            Secret::Other(Box::new(key))
        };
        let key = Self { public, comment, secret };
        // What cannot sign is said before the build, and not by an `ssh` in a step.
        match key.sign(b"", RSA_SHA2_512) {
            Some(_) => Ok(key),
            None => Err(("lapstrake cannot sign with a key of its kind".to_owned(), AGENT)),
        }
    }

    /// The signature's algorithm and its bytes. `None`: this key makes no such signature.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<(String, Vec<u8>)> {
        match &self.secret {
            Secret::Other(key) => {
                let signature: ssh_key::Signature = key.key_data().try_sign(data).ok()?;
                Some((signature.algorithm().to_string(), signature.as_bytes().to_vec()))
            }
            // Blinded: its time says nothing about the key.
            Secret::Rsa(key) if flags & RSA_SHA2_512 != 0 => {
                let signature = pkcs1v15::SigningKey::<Sha512>::new(RsaPrivateKey::clone(key)).try_sign_with_rng(&mut OsRng, data).ok()?;
                Some(("rsa-sha2-512".to_owned(), signature.to_vec()))
            }
            Secret::Rsa(key) if flags & RSA_SHA2_256 != 0 => {
                let signature = pkcs1v15::SigningKey::<Sha256>::new(RsaPrivateKey::clone(key)).try_sign_with_rng(&mut OsRng, data).ok()?;
                Some(("rsa-sha2-256".to_owned(), signature.to_vec()))
            }
            // SHA-1.
            Secret::Rsa(_) => None,
        }
    }
}

fn rsa_key(pair: &RsaKeypair) -> Option<RsaPrivateKey> {
    let number = |number: &ssh_key::Mpint| number.as_positive_bytes().map(BigUint::from_bytes_be);
    let primes = vec![number(&pair.private.p)?, number(&pair.private.q)?];
    RsaPrivateKey::from_components(number(&pair.public.n)?, number(&pair.public.e)?, number(&pair.private.d)?, primes).ok()
}
