//! Records that leave the store: what `--cache-to` writes and `--cache-from` reads.
//!
//! A key is the same on every machine, so that a record is found by it wherever it was made. Everything else that was a
//! value (arguments, variables, texts) is a digest under a salt that travels with the records: enough to say what changed.
//! Who has the records can confirm a guess of all that a key is made of, and of each value for itself; he cannot read one.
//! What a record promises of its key, that this layer is its result, nobody can check: it is as true as who wrote it.

use serde::{Deserialize, Serialize};

use super::{
    fields::{Fields, StepKey, VERSION, salted},
    reason::changed_fields,
    record::{Instruction, Outcome},
    why::Why,
};
use crate::{oci::DiffId, tree::Moments};

/// More records are of no build.
const MOST: usize = 100_000;

/// Records with their salt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shared {
    /// Of the keys: records of another one are of no use.
    version: u32,
    /// 64 hex digits.
    salt: String,
    /// In the order in which their steps ended.
    pub records: Vec<SharedRecord>,
}

/// A record of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRecord {
    key: String,
    /// Its layer.
    pub layer: DiffId,
    created: String,
    #[serde(default)]
    moments: Moments,
    place: String,
    text: String,
    fields: Vec<(String, String)>,
}

impl SharedRecord {
    /// Of a step that has this outcome.
    pub fn of(fields: &Fields, instruction: &Instruction, outcome: &Outcome, salt: &[u8; 32]) -> Self {
        let Outcome { diff_id, created, moments } = outcome.clone();
        let [place, text] = names(instruction, salt);
        Self { key: fields.key().hex(), layer: diff_id, created, moments, place, text, fields: fields.salted(salt) }
    }

    /// What its step made.
    pub fn outcome(&self) -> Outcome {
        Outcome { diff_id: self.layer, created: self.created.clone(), moments: self.moments.clone() }
    }
}

/// Where it stands and what it is, under a salt; whose project it is does not travel.
fn names(instruction: &Instruction, salt: &[u8; 32]) -> [String; 2] {
    [salted(salt, "shared place", instruction.place.as_bytes()), salted(salt, "shared text", instruction.text.as_bytes())]
}

impl Shared {
    /// Records that were made with this salt.
    pub fn new(salt: &[u8; 32], records: Vec<SharedRecord>) -> Self {
        Self { version: VERSION, salt: blake3::Hash::from_bytes(*salt).to_hex().to_string(), records }
    }

    /// Are these of keys that this program makes, and of a form that it can believe?
    pub fn is_sound(&self) -> bool {
        let hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let sound = |record: &SharedRecord| hex(&record.key) && record.created.parse::<jiff::Timestamp>().is_ok();
        self.version == VERSION && hex(&self.salt) && self.records.len() <= MOST && self.records.iter().all(sound)
    }

    /// The record of a key.
    pub fn find(&self, key: &StepKey) -> Option<&SharedRecord> {
        let key = key.hex();
        self.records.iter().find(|record| record.key == key)
    }

    /// What changed since the nearest of these records of that instruction; `None`: there is none.
    pub fn explain(&self, fields: &Fields, instruction: &Instruction) -> Option<Why> {
        let salt = *blake3::Hash::from_hex(&self.salt).ok()?.as_bytes();
        let ([place, text], now) = (names(instruction, &salt), fields.salted(&salt));
        let near = self.records.iter().filter(|record| record.text == text || record.place == place);
        let changes = near.map(|record| (changed_fields(&record.fields, &now), record));
        let (mut changes, record) = changes.min_by_key(|(changes, record)| (changes.len(), record.text != text))?;
        changes.dedup();
        Some(Why::Changed { changes, more: 0, since: record.created.clone() })
    }
}

/// The salt of a build's records: that of an equal build is equal, so that its records are too.
pub fn shared_salt(of: &[u8]) -> [u8; 32] {
    blake3::derive_key("lapstrake: the salt of records that leave the store", of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn fields(sha: &str) -> Fields {
        Fields::new().field("ARG SHA", sha).field("command", "make")
    }

    fn shared(sha: &str) -> Shared {
        let (salt, instruction) = (shared_salt(b"plan"), Instruction { text: "RUN make".into(), ..Instruction::default() });
        let outcome = Outcome { diff_id: DiffId(Digest::of(b"x")), created: "2024-01-01T00:00:00Z".into(), moments: Moments::default() };
        Shared::new(&salt, vec![SharedRecord::of(&fields(sha), &instruction, &outcome, &salt)])
    }

    #[test]
    fn a_record_is_found_by_its_key_and_compared_by_its_text() {
        let shared = shared("hunter2");
        assert!(shared.is_sound());
        assert_eq!(shared.find(&fields("hunter2").key()).unwrap().outcome().diff_id, DiffId(Digest::of(b"x")));
        assert_eq!(shared.find(&fields("other").key()), None);
        let moved = Instruction { place: "elsewhere".into(), text: "RUN make".into(), project: "other".into() };
        assert_eq!(shared.explain(&fields("other"), &moved).unwrap().lines(), ["ARG SHA: changed"]);
        let another = Instruction { place: "elsewhere".into(), ..Instruction::default() };
        assert_eq!(shared.explain(&fields("other"), &another), None);
    }

    #[test]
    fn no_value_travels() {
        let text = serde_json::to_string(&shared("hunter2")).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("make") && text.contains("ARG SHA"), "{text}");
        assert!(!text.contains(blake3::hash(b"hunter2").to_hex().as_str()));
    }

    #[test]
    fn what_has_another_form_is_not_sound() {
        let good = shared("1");
        assert!(!Shared { version: VERSION + 1, ..good.clone() }.is_sound());
        assert!(!Shared { salt: "../x".into(), ..good.clone() }.is_sound());
        let mut bad = good;
        bad.records[0].key = "ABC".into();
        assert!(!bad.is_sound());
        let mut bad = shared("1");
        bad.records[0].created = "\u{1b}[2J".into();
        assert!(!bad.is_sound());
    }
}
