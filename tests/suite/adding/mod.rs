//! ADD of what is far off: files over http, trees of git repositories, and what a hostile server or repository tries.

mod git;
mod git_attacks;
mod http;
