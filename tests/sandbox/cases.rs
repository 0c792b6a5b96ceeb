//! The cases.

use lapstrake::sandbox::Status;

use crate::world::World;

/// In the environment of front and engine.
pub(crate) const CANARY: &str = "LAPSTRAKE_CANARY";

/// A name, and what it does in an engine.
pub(crate) type Case = (&'static str, fn(&World));

pub(crate) const ALL: &[Case] = &[("a_program_runs_as_root", a_program_runs_as_root)];

fn a_program_runs_as_root(world: &World) {
    let ran = world.shell("id; echo oops >&2; exit 7");
    assert_eq!(ran.out, "uid=0(root) gid=0(root)\n", "{ran:?}");
    assert_eq!(ran.err, "oops\n");
    assert_eq!(ran.status(), Status::Exited(7));
    // Copied up for the mountpoints in it, otherwise as it was.
    assert_eq!(ran.written(), ["etc"]);
}
