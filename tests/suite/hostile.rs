//! The attacks that builders have fallen to, and those that our own design invites: each is made here, through the
//! program, and must end in a reason or stay inside.
//!
//! `docs/attacks.md` is the table: 35 groups of the security history of builders, each with the number of the hole that
//! it was somewhere, and the test that holds it, here or elsewhere in the suite. A test reads it: every test that it
//! names exists, and every test here is named in it.
//!
//! Around every attack stand [`canary::Canaries`]: files that nobody may open, sockets that nobody may reach, a value
//! in the caller's environment that nothing may say.

mod archives;
mod canary;
mod forge;
pub(crate) mod kept;
mod links;
mod sizes;
mod steps;
mod table;
mod text;

use std::{
    cell::{Cell, RefCell},
    process::Command,
};

use crate::harness::{Project, Ran, output_of};
use canary::Canaries;

/// A project with canaries around it.
struct Ground {
    project: Project,
    canaries: Canaries,
    /// How many attacks were made.
    cases: Cell<usize>,
    /// What did not end as it must.
    wrong: RefCell<Vec<String>>,
}

/// What the program may not need more of, in KiB.
const MOST_MEMORY: usize = 512 << 10;

impl Ground {
    /// With `busybox` in the store.
    fn new() -> Self {
        let mut project = Project::with_busybox();
        let canaries = Canaries::stand(&mut project);
        Self { project, canaries, cases: Cell::new(0), wrong: RefCell::default() }
    }

    /// One more attack.
    fn case(&self) -> usize {
        self.cases.set(self.cases.get() + 1);
        self.cases.get()
    }

    /// Runs the program with bounded memory. However it ends, it ends as itself: no panic, no signal, nothing told of a
    /// canary.
    fn run(&self, args: &[&str]) -> Ran {
        let plain = self.project.command(args);
        let mut bounded = Command::new("sh");
        bounded.args(["-c", "ulimit -d \"$0\" && exec \"$@\"", &MOST_MEMORY.to_string()]).arg(plain.get_program()).args(plain.get_args());
        bounded.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        bounded.current_dir(self.project.path("")).stdin(std::process::Stdio::null());
        self.judged(output_of(&mut bounded))
    }

    /// `build` of the context with these flags.
    fn build(&self, flags: &[&str]) -> Ran {
        self.run(&[&["build", "--progress", "plain"], flags, &["ctx"]].concat())
    }

    /// `build` of this Dockerfile.
    fn builds(&self, dockerfile: &str, flags: &[&str]) -> Ran {
        self.project.dockerfile(dockerfile);
        self.build(flags)
    }

    /// What every run must be.
    fn judged(&self, ran: Ran) -> Ran {
        let said = ran.all();
        assert!(matches!(ran.code, Some(0..=6)), "{}: {:?}\n{said}", ran.line, ran.code);
        for word in ["panicked", "RUST_BACKTRACE", "memory allocation"] {
            assert!(!said.contains(word), "{}\n{said}", ran.line);
        }
        assert!(!self.canaries.in_text(&said), "a canary is told:\n{said}");
        ran
    }

    /// Unless `held`, the test fails at its end, with all that went wrong.
    fn check(&self, held: bool, what: &str, ran: &Ran) {
        if !held {
            self.wrong.borrow_mut().push(format!("{what}: {:?}\n{}", ran.code, ran.all()));
        }
    }

    /// It must end with a reason that has this text.
    fn refused(&self, what: &str, ran: &Ran, text: &str) {
        self.check(ran.code != Some(0) && ran.stderr.contains(text), &format!("{what}: not refused with `{text}`"), ran);
    }

    /// It must end well.
    fn inside(&self, what: &str, ran: &Ran) {
        self.check(ran.code == Some(0), what, ran);
    }

    /// The end of a test: the canaries are as they stood.
    fn holds(self, groups: &str) {
        let wrong = self.wrong.take();
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), self.cases.get(), wrong.join("\n---\n"));
        self.canaries.are_untouched(&self.project);
        let _seen = std::io::Write::write_fmt(
            &mut std::io::stdout(),
            format_args!("hostile: groups {groups}: {} attacks held, canaries untouched\n", self.cases.get()),
        );
    }
}
