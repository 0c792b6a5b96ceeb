//! Step records: `cache/<key>`, bytes of the cache's own in a file that checks itself; and the store's salt.

use std::{io, path::PathBuf};

use super::{Error, Store, census::entries, reserve::touch, sealed::Sealed, tape::Tape, temp::random};
use crate::sys::PathError;

/// The digests by path of a large COPY are the largest: some hundred bytes for each file.
const RECORD: Sealed = Sealed { kind: "record", limit: 1 << 30, durable: false };

const SALT: Sealed = Sealed { kind: "salt", limit: 32, durable: true };

impl Store {
    /// A step record's bytes, checked. `None`: missing or damaged (then it is deleted).
    pub fn record(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.record_onto(Tape::default(), key)?.map(Tape::into_bytes))
    }

    /// The same of a long one.
    pub fn record_tape(&self, key: &str) -> Result<Option<Tape>, Error> {
        self.record_onto(Tape::new(Some(self)), key)
    }

    fn record_onto(&self, tape: Tape, key: &str) -> Result<Option<Tape>, Error> {
        let path = self.record_path(key)?;
        let found = RECORD.read_onto(tape, &path, key)?;
        if found.is_some() && self.holding {
            let _there: bool = touch(&path);
        }
        Ok(found)
    }

    /// Writes a record (or what belongs to one); `key` is a file name of hex digits and `-`.
    pub fn put_record(&self, key: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.record_path(key)?;
        RECORD.put(self, &path, key, bytes, None)
    }

    /// The same of a long one.
    pub fn put_record_tape(&self, key: &str, bytes: &Tape) -> Result<(), Error> {
        let path = self.record_path(key)?;
        RECORD.put(self, &path, key, bytes, None)
    }

    /// 32 random bytes that are this store's own, made once.
    pub fn salt(&self) -> Result<[u8; 32], Error> {
        let path = self.root.join("salt");
        loop {
            if let Some(salt) = SALT.read(&path, "salt")?.and_then(|bytes| bytes.try_into().ok()) {
                return Ok(salt);
            }
            // Of several processes that make one at once the first wins, and all read that one.
            let _ours = SALT.write_new(&self.tmp(), &path, "salt", &random::<32>()?)?;
        }
    }

    /// Is there a salt that checks? One that does not is gone.
    pub(super) fn salt_is_sound(&self) -> Result<bool, Error> {
        Ok(SALT.read(&self.root.join("salt"), "salt")?.is_some())
    }

    /// The keys of all records, without their details.
    pub fn record_keys(&self) -> Vec<String> {
        let names = entries(&self.root.join("cache")).into_iter().filter_map(|(path, _)| Some(path.file_name()?.to_str()?.to_owned()));
        let mut keys: Vec<String> = names.filter(|name| !name.contains('-')).collect();
        keys.sort();
        keys
    }

    fn record_path(&self, key: &str) -> Result<PathBuf, Error> {
        let path = self.root.join("cache").join(key);
        let plain = key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
        if key.is_empty() || key.len() > 200 || !plain {
            return Err(PathError::new("name", path)(io::Error::from(io::ErrorKind::InvalidInput)).into());
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::tests::store;

    #[test]
    fn a_record_is_read_as_written_or_not_at_all() {
        let (_dir, store) = store();
        assert_eq!(store.record("ab-1").unwrap(), None);
        store.put_record("ab-1", b"one").unwrap();
        store.put_record("ab-1", b"two").unwrap();
        assert_eq!(store.record("ab-1").unwrap().unwrap(), b"two");
        let path = store.record_path("ab-1").unwrap();
        let good = fs::read(&path).unwrap();
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(store.record("ab-1").unwrap(), None);
        assert!(!path.exists());
    }

    #[test]
    fn a_key_that_is_a_path_is_refused() {
        let (_dir, store) = store();
        for key in ["", "../x", "a/b", ".", "A", "é"] {
            assert!(store.put_record(key, b"").is_err() && store.record(key).is_err(), "{key}");
        }
    }

    #[test]
    fn all_processes_have_one_salt_even_if_they_make_it_at_once() {
        let (dir, first) = store();
        let salts: Vec<[u8; 32]> = std::thread::scope(|scope| {
            let open = || Store::open(&dir.path().join("store")).unwrap().salt().unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(salts.iter().all(|salt| *salt == first.salt().unwrap()));
        assert_ne!(first.salt().unwrap(), [0; 32]);
    }

    #[test]
    fn a_damaged_salt_is_made_anew() {
        let (_dir, store) = store();
        let old = store.salt().unwrap();
        fs::write(store.root().join("salt"), "").unwrap();
        assert_ne!(store.salt().unwrap(), old);
    }
}
