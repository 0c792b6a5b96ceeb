//! The fields of a key, and the key.

/// The version of the schema; it is in every key.
pub const VERSION: u32 = 2;

/// The name of a step's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepKey([u8; 32]);

impl StepKey {
    /// 64 hex digits.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

/// The fields of a key, in order.
#[derive(Clone, Default)]
pub struct Fields(Vec<Field>);

/// A field: its label in the key, what users call it, and its value.
#[derive(Clone)]
struct Field {
    label: String,
    shown: String,
    value: Vec<u8>,
}

impl Fields {
    /// No field yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field. The label is shown to users when the field is the reason of a miss: `ARG GIT_SHA`, `base`.
    /// [`super::FILES`] is the label of what the paths of a record tell better.
    #[must_use]
    pub fn field(self, label: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        let label = label.into();
        self.shown_as(label.clone(), label, value)
    }

    /// The same where users know the field by another name than the key: an ARG and an ENV of one value are one to a step.
    #[must_use]
    pub fn shown_as(mut self, label: impl Into<String>, shown: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.0.push(Field { label: label.into(), shown: shown.into(), value: value.as_ref().to_vec() });
        self
    }

    /// The key: BLAKE3 of the version and each label and value behind its length, in order. No two lists of fields
    /// have the same bytes.
    pub fn key(&self) -> StepKey {
        let mut hasher = blake3::Hasher::new_derive_key("lapstrake: the key of a step");
        let _chain = hasher.update(&VERSION.to_le_bytes());
        for field in &self.0 {
            frame(&mut hasher, field.label.as_bytes());
            frame(&mut hasher, &field.value);
        }
        StepKey(*hasher.finalize().as_bytes())
    }

    /// What users call the fields, with the values as digests that only who has the salt can compare.
    pub(super) fn salted(&self, salt: &[u8; 32]) -> Vec<(String, String)> {
        self.0.iter().map(|field| (field.shown.clone(), salted(salt, &field.shown, &field.value))).collect()
    }
}

/// Only the labels: a value may be a secret.
impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|field| &field.shown)).finish()
    }
}

/// A value's digest; bound to its label, so that equal values of two fields do not look equal.
pub(super) fn salted(salt: &[u8; 32], label: &str, value: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new_keyed(salt);
    frame(&mut hasher, label.as_bytes());
    frame(&mut hasher, value);
    hasher.finalize().to_hex().to_string()
}

fn frame(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    let _chain = hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(all: &[(String, Vec<u8>)]) -> Fields {
        all.iter().fold(Fields::new(), |fields, (label, value)| fields.field(label.clone(), value))
    }

    #[test]
    fn order_frames_and_labels_matter() {
        let of = |all: &[(&str, &str)]| all.iter().fold(Fields::new(), |fields, (label, value)| fields.field(*label, value)).key();
        let lists: [&[(&str, &str)]; 9] = [
            &[],
            &[("", "")],
            &[("", ""), ("", "")],
            &[("a", "b"), ("c", "d")],
            &[("c", "d"), ("a", "b")],
            &[("ab", ""), ("c", "d")],
            &[("a", "bc"), ("", "d")],
            &[("a", "b")],
            &[("a", "b\u{1}\0\0\0\0\0\0\0c\u{1}\0\0\0\0\0\0\0d")],
        ];
        for (at, one) in lists.iter().enumerate() {
            for (other_at, other) in lists.iter().enumerate() {
                assert_eq!(of(one) == of(other), at == other_at, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_key_stays_what_it_was() {
        // A change of this value throws away every user's cache: it goes with a new VERSION.
        let key = Fields::new().field("base", "sha256:00").field("ARG A", [0, 255]).key();
        assert_eq!(key.hex(), "99329a0fabd1433fb9babd4cb7463df1f5bd60fa38c7f64bcfd9fcd9d1549b45");
    }

    #[test]
    fn what_users_call_a_field_is_not_in_the_key() {
        let of = |shown| Fields::new().shown_as("variable A", shown, "1");
        assert_eq!(of("ARG A").key(), of("ENV A").key());
        assert_ne!(of("ARG A").salted(&[0; 32]), of("ENV A").salted(&[0; 32]));
    }

    #[test]
    fn a_value_is_not_shown() {
        let shown = format!("{:?}", Fields::new().field("ARG TOKEN", "hunter2"));
        assert!(shown.contains("ARG TOKEN") && !shown.contains("hunter2"));
    }

    proptest! {
        #[test]
        fn different_fields_have_different_keys(
            one in prop::collection::vec(("[ab]{0,3}", prop::collection::vec(0..3_u8, 0..4)), 0..4),
            other in prop::collection::vec(("[ab]{0,3}", prop::collection::vec(0..3_u8, 0..4)), 0..4),
        ) {
            prop_assert_eq!(fields(&one).key() == fields(&other).key(), one == other);
        }
    }
}
