//! What a step costs.

use std::{process::ExitCode, time::Instant};

use lapstrake::sandbox::{Network, Status, enter};

use crate::{say, world};

/// Times `count` steps of `true`, with each network.
pub(crate) fn engine(count: usize) -> ExitCode {
    enter::become_engine().expect("the engine");
    let world = world::World::new();
    // As most bases have them.
    for name in ["dev", "proc", "sys"] {
        world.dir(&format!("base/{name}"));
    }
    for name in ["hosts", "resolv.conf"] {
        std::fs::write(world.path("base/etc").join(name), "").expect("a file");
    }
    for network in [Network::Host, Network::None] {
        let mut times: Vec<_> = (0..count)
            .map(|_| {
                let spec = lapstrake::sandbox::Spec { network, ..world.spec(&["true"]) };
                let begun = Instant::now();
                assert_eq!(world::run(spec).status(), Status::Exited(0));
                begun.elapsed()
            })
            .collect();
        times.sort();
        let least = times.first().expect("at least one step");
        say(&format!("{network:?}: {count} steps, least {least:?}, median {:?}", times.get(count / 2).expect("a median")));
    }
    ExitCode::SUCCESS
}
