//! Our own rules, one file each.

use super::Rule;

/// All of them.
pub(super) const RULES: &[&Rule] = &[];
