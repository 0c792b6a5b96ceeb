//! Our own rules, one file each. They say what is surely wrong: one that shouts wrongly is worse than none.

mod apt_get_install_without_update;
mod broken_json_array;
mod comment_after_continuation;
mod comment_after_instruction;
mod exec_form_variable;
mod not_executable;
mod typographic_quotes;

use super::Rule;

/// All of them.
pub(super) const RULES: &[&Rule] = &[
    &typographic_quotes::RULE,
    &comment_after_instruction::RULE,
    &comment_after_continuation::RULE,
    &broken_json_array::RULE,
    &exec_form_variable::RULE,
    &apt_get_install_without_update::RULE,
    &not_executable::RULE,
];
