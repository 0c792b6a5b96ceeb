//! Any text through the parser: what it answers is about that text, and no larger than it deserves.

#![no_main]

mod answer;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let parsed = lapstrake::dockerfile::parse(text);
    answer::check(text, &parsed);
    // The same text is read the same way, and a base in front of it moves nothing but places.
    assert_eq!(lapstrake::dockerfile::parse(text), parsed);
    let with_base = format!("FROM scratch\n{text}");
    answer::check(&with_base, &lapstrake::dockerfile::parse(&with_base));
});
