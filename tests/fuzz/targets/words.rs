//! The expander in all modes. Input: a byte of switches, the word, and after each NUL a `NAME=value`.

#![no_main]

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use lapstrake::dockerfile::{Mode, expand, expand_mount, expand_words, parse_mount};
use libfuzzer_sys::fuzz_target;

/// A value may be as long as 1 MiB, and the last piece of one may be another.
const LARGEST: usize = 4 << 20;

fuzz_target!(|input: &str| {
    let mut chars = input.chars();
    let switches = chars.next().map_or(0, u32::from);
    let on = |bit: u32| switches & bit != 0;
    let mode = Mode { skip_unset: on(1), raw_quotes: on(2), raw_escapes: on(4), skip_quotes: on(8) };
    let escape = if on(16) { '`' } else { '\\' };
    let mut fields = chars.as_str().split('\0');
    let word = fields.next().unwrap_or_default();
    let env: BTreeMap<&str, &str> = fields.filter_map(|field| field.split_once('=')).collect();
    let asked = RefCell::new(BTreeSet::new());
    let look_up = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        env.get(name).map(|value| (*value).to_owned())
    };

    let one = expand(word, escape, mode, &look_up);
    let many = expand_words(word, escape, mode, &look_up);
    assert_eq!(one.is_ok(), many.is_ok());
    assert_eq!(one, expand(word, escape, mode, &look_up), "not a function");
    let _no_panic = parse_mount(word);
    let _no_panic = expand_mount(word, escape, &look_up);

    let (one, many) = match (one, many) {
        (Ok(one), Ok(many)) => (one, many),
        (Err(error), _) | (_, Err(error)) => {
            assert!(!error.message.is_empty() && error.message.len() < LARGEST);
            return;
        }
    };
    assert!(one.text.len() <= LARGEST && many.iter().map(String::len).sum::<usize>() <= LARGEST);
    assert!(many.iter().all(|word| !word.is_empty()));
    let asked = asked.into_inner();
    assert!(one.used.iter().all(|name| env.contains_key(name.as_str())));
    assert!(one.unset.iter().all(|name| !env.contains_key(name.as_str())));
    assert!(one.used.iter().chain(&one.unset).all(|name| asked.contains(name)));

    let plain = |text: &str| !text.contains(['$', '\'', '"', escape]);
    if plain(word) {
        assert_eq!(one.text, word, "nothing in it means anything");
    }
    // Without `${` the words are the text without its blanks.
    if !word.contains("${") {
        let bare = |text: &str| text.chars().filter(|ch| !ch.is_whitespace()).collect::<String>();
        assert_eq!(bare(&many.concat()), bare(&one.text));
    }
    // What means nothing any more stays as it is, in every mode.
    if plain(&one.text) {
        let again = expand(&one.text, escape, mode, &|_| None).expect("nothing to fail at");
        assert_eq!(again.text, one.text);
        assert!(again.used.is_empty() && again.unset.is_empty());
    }
    // Without variables `skip_unset` leaves all of them, and a second time changes nothing.
    if mode.skip_unset && mode.skip_quotes && env.is_empty() && !word.contains(escape) && !word.contains("${") {
        assert_eq!(one.text, word);
    }
});
