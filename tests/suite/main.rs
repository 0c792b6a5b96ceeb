//! Tests that look from outside, one binary: they share what a test needs.

mod language;
mod registry;
