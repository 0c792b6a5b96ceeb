//! How much memory a build takes: what grows with the number of files is their index, and little else.

use std::{fs, process::Command};

use crate::harness::{Project, Ran, need, output_of};

/// Says the most memory that a program, or one that it waited for, has had: in KiB, as getrusage(2) has it.
const PEAK: &str = "import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)";

/// The peak of a build with nothing in its cache, in KiB.
fn peak_of_a_copy(files: usize) -> u64 {
    let project = Project::new();
    project.dockerfile("FROM scratch\nCOPY files /app/\n");
    for number in 0..files {
        let dir = project.context().join(format!("files/component-{:03}/library-{:02}", number / 5000, number / 100 % 50));
        if number.is_multiple_of(100) {
            fs::create_dir_all(&dir).unwrap();
        }
        fs::write(dir.join(format!("source_{number:06}.js")), format!("module.exports = {number};\n")).unwrap();
    }
    let build = project.command(["build", "-q", "-o", "type=oci,tar=false,dest=image", "ctx"]);
    let mut measured = Command::new("python3");
    measured.args(["-c", PEAK]).arg(build.get_program()).args(build.get_args()).current_dir(build.get_current_dir().unwrap());
    measured.env_clear().envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran: Ran = output_of(&mut measured).good();
    ran.out().trim().parse().unwrap()
}

/// A file had 2.4 KB when each was a value in memory, from its selection to its row.
#[test]
fn a_copy_of_many_files_takes_little_memory_for_each() {
    if need("python3").is_none() {
        return;
    }
    let (few, many) = (peak_of_a_copy(3_000), peak_of_a_copy(30_000));
    let for_each = many.saturating_sub(few) * 1024 / 27_000;
    assert!(for_each < 1000, "{for_each} bytes for each file: {few} KiB for 3,000, {many} KiB for 30,000");
}
