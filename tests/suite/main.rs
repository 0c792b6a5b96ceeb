//! What a user sees: every test here runs the built program in a project of its own and looks at what it wrote with
//! other eyes than the program's.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "tests and their helpers start processes, read the environment, say what they found, and end by a panic"
)]

mod harness;

mod adding;
mod bad_input;
mod building;
mod caches;
mod caching;
mod chroot;
mod compression;
mod concurrency;
mod consumers;
mod contexts;
mod copying;
mod differences;
mod durability;
mod editing;
mod endurance;
mod environments;
mod examples;
mod graph;
mod hostile;
mod isolation;
mod keys;
mod killing;
mod language;
mod limits;
mod lint;
mod memory;
mod messages;
mod mounts;
mod parser;
mod progress;
mod reasons;
mod rebuild;
mod registry;
mod secrets;
mod shipping;
mod single_id;
mod snapshots;
mod ssh;
mod structure;
mod timings;
mod upkeep;
mod users;
