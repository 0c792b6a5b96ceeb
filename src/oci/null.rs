//! `null` where a list or an object should be: Go writes a nil slice or map that way, and a manifest without
//! layers or a config without history comes like that from many tools.

use serde::{Deserialize, Deserializer};

/// For `deserialize_with`: `null` is the empty value.
pub(super) fn is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
