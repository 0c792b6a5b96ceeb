//! argv, environment, home directory, terminal.

use std::process::ExitCode;

/// The program.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
