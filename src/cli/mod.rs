//! argv, environment, home directory, terminal.

use std::process::ExitCode;

use crate::sandbox;

/// The program.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match (args.next(), args.next()) {
        (Some(hidden), None) if hidden == sandbox::STEP_INIT => sandbox::init_main(),
        _ => ExitCode::SUCCESS,
    }
}
