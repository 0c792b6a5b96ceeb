//! A store that is damaged, killed or full: the next build succeeds, what was committed is what it was, and nothing wrong is used.
//!
//! `LAPSTRAKE_TEST_DAMAGE=all` damages every file in every way, else some of each kind are; `LAPSTRAKE_TEST_DAMAGES` is the number of
//! builds after several damages, `LAPSTRAKE_TEST_FULL` that on a full disk, for each file system.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    harness::{Image, Project, Ran, am_root, busybox_layout, differences, need, need_root, output_of},
    hostile::kept::rotate,
    killing::random,
};

/// Without a network a base that is damaged comes back only if the build brings it.
const DOCKERFILE: &str = "FROM base\nCOPY app /app\nRUN mkdir /made && echo one > /made/one && ln -s one /made/link\nRUN --mount=type=cache,target=/c echo two > /made/two && echo x >> /c/x\nCOPY --chmod=0640 late /late\nRUN cat /late /made/one > /all\n";

fn project() -> Project {
    let project = Project::new();
    let _base = busybox_layout(&project.path("layout"));
    fill(&project);
    project
}

fn fill(project: &Project) {
    project.dockerfile(DOCKERFILE);
    for at in 0..5 {
        let _app = project.file(&format!("app/{at}"), vec![at; 3000]);
    }
    let _late = project.file("late", "late");
}

/// The base that the project brings.
fn base(project: &Project) -> String {
    format!("base=oci-layout://{}:busybox", project.path("layout").display())
}

/// Builds with that base; the result is read with other eyes.
fn build(project: &Project) -> Image {
    project.image(&["--build-context", &base(project), "-t", "app"])
}

/// The store's files by kind, sorted.
fn files(store: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut all: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for kind in ["blobs/sha256", "index", "layers", "refs", "cache", "stat"] {
        let mut dirs = vec![store.join(kind)];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    let stat = kind == "cache" && entry.file_name().to_string_lossy().starts_with("57a7-");
                    all.entry(if stat { "stat" } else { kind }.to_owned()).or_default().push(path);
                }
            }
        }
    }
    for kind in ["ledger", "format", "salt"] {
        all.entry(kind.to_owned()).or_default().push(store.join(kind));
    }
    for paths in all.values_mut() {
        paths.sort();
    }
    all
}

const DAMAGES: [&str; 6] = ["truncated", "flipped", "emptied", "deleted", "made unreadable", "replaced by a directory"];

fn damage(path: &Path, how: &str) {
    // It may be unreadable from a round before, if nobody needed it since.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let bytes = fs::read(path).unwrap();
    match how {
        "truncated" => fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
        "flipped" => {
            let mut bytes = bytes;
            let middle = bytes.len() / 2;
            // It may be empty from a round before.
            bytes.get_mut(middle).into_iter().for_each(|byte| *byte ^= 0x10);
            fs::write(path, bytes).unwrap();
        }
        "emptied" => fs::write(path, "").unwrap(),
        "deleted" => fs::remove_file(path).unwrap(),
        // Root reads it all the same.
        "made unreadable" => fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap(),
        "replaced by a directory" => {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }
        _ => panic!("{how}"),
    }
}

fn everything() -> bool {
    std::env::var_os("LAPSTRAKE_TEST_DAMAGE").is_some_and(|all| all == "all")
}

#[test]
fn whatever_file_of_a_store_is_damaged_the_next_build_succeeds_with_the_same_files() {
    let project = project();
    let reference = build(&project);
    let mut rounds = 0;
    let kinds: Vec<String> = files(project.store()).into_keys().collect();
    for kind in kinds {
        for (number, how) in DAMAGES.iter().enumerate() {
            let all = files(project.store()).remove(&kind).unwrap_or_default();
            // One of each kind, another one for each way.
            let chosen: Vec<&PathBuf> = if everything() { all.iter().collect() } else { all.iter().cycle().skip(number).take(1).collect() };
            for path in chosen.into_iter().filter(|path| path.is_file()) {
                damage(path, how);
                let image = build(&project);
                let wrong = differences(&reference.tree(), &image.tree());
                assert!(wrong.is_empty(), "{kind} {} {how}: {wrong:?}", path.display());
                rounds += 1;
            }
        }
    }
    println!("{rounds} damaged files");
    // What was damaged and not needed may be there still; a check finds it, and a second one nothing.
    let _first = project.run(["fsck"]);
    let _second = project.run(["fsck"]).good();
}

/// So many damages in so many ways that one hides another, and two builds find them at once.
#[test]
fn whatever_files_of_a_store_are_damaged_together_the_next_build_succeeds_with_the_same_files() {
    let project = project();
    let stages = "FROM base AS other\nRUN mkdir /o && echo other > /o/other\nCOPY app/1 /o/\n";
    project.dockerfile(&format!(
        "{stages}{DOCKERFILE}COPY --from=other /o /o\nRUN --mount=from=other,target=/m cp /m/o/other /again && cat /late > /last\n"
    ));
    let references = ["late", "later"].map(|late| {
        fs::write(project.context().join("late"), late).unwrap();
        (late, build(&project).tree())
    });
    let rounds = std::env::var("LAPSTRAKE_TEST_DAMAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    for round in 0..rounds {
        // Of a hundred files.
        let share = [3, 10, 30, 100][round % 4];
        let mut done = Vec::new();
        for path in files(project.store()).into_values().flatten().filter(|path| path.is_file()) {
            if random(100) < share {
                let how = DAMAGES[usize::try_from(random(6)).unwrap()];
                damage(&path, how);
                done.push(format!("{} {how}", path.display()));
            }
        }
        for dir in ["index", "blobs/sha256", "cache", "refs"] {
            if random(4) == 0 {
                rotate(&project.store().join(dir));
                done.push(format!("{dir} under each other's names"));
            }
        }
        for dir in ["index", "trees", "layers", "cache"] {
            if random(4) == 0 {
                fs::remove_dir_all(project.store().join(dir)).unwrap();
                done.push(format!("no {dir}"));
            }
        }
        let (late, reference) = &references[usize::try_from(random(2)).unwrap()];
        fs::write(project.context().join("late"), late).unwrap();
        println!("{round}: {late}: {done:#?}");
        let beside = project.start_build(&["--build-context", &base(&project)]);
        let wrong = differences(reference, &build(&project).tree());
        assert!(wrong.is_empty(), "{wrong:?}");
        let _beside = Ran::of_child("the build beside it".to_owned(), beside).good();
    }
}

/// What several threads of a build find damaged at once, before the step that needs it asks for it.
#[test]
fn where_all_layers_are_damaged_and_nothing_else_is_left_of_them_the_next_build_succeeds() {
    for with_the_base in [false, true] {
        let project = project();
        let reference = build(&project);
        for path in files(project.store()).remove("blobs/sha256").unwrap() {
            // Neither manifests nor configs: those are read first.
            let is_json = fs::read(&path).unwrap().first() == Some(&b'{');
            let is_of_base = project.path("layout/blobs/sha256").join(path.file_name().unwrap()).exists();
            if !is_json && (with_the_base || !is_of_base) {
                damage(&path, "flipped");
            }
        }
        for dir in ["index", "trees"] {
            fs::remove_dir_all(project.store().join(dir)).unwrap();
        }
        // A step that needs what all others made.
        fs::write(project.context().join("late"), "later").unwrap();
        let image = build(&project);
        let different = differences(&reference.tree(), &image.tree());
        assert!(different.len() == 2 && different[0].starts_with("all: ") && different[1].starts_with("late: "), "{different:?}");
    }
}

#[test]
fn a_check_finds_each_damage_and_removes_it() {
    let project = project();
    let _built = build(&project);
    let _fine = project.run(["fsck"]).good();
    for kind in ["blobs/sha256", "index", "layers", "cache", "refs", "salt"] {
        let path = files(project.store()).remove(kind).unwrap().remove(0);
        damage(&path, "flipped");
        let ran = project.run(["fsck"]).ends_with(4);
        let name = path.strip_prefix(project.store()).unwrap().display().to_string();
        assert!(ran.out().contains(&format!("removed {name}")), "{kind}: {}", ran.all());
        let _mended = project.run(["fsck"]).good();
        let _again = build(&project);
    }
}

/// Some tree of the store that has a regular file, and that file.
fn file_in_a_tree(project: &Project) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for domain in fs::read_dir(project.store().join("trees")).unwrap().flatten() {
        for tree in fs::read_dir(domain.path()).unwrap().flatten().filter(|entry| entry.metadata().unwrap().is_dir()) {
            let listed = output_of(Command::new("find").arg(tree.path()).args(["-type", "f"])).good().out();
            found.extend(listed.lines().next().map(|file| (tree.path(), PathBuf::from(file))));
        }
    }
    found.sort();
    found
}

#[test]
fn a_tree_that_is_not_what_its_index_says_is_made_again_before_a_step_sees_it() {
    let project = project();
    let reference = build(&project);
    let trees = file_in_a_tree(&project);
    assert!(trees.len() >= 3, "{trees:?}");
    for (at, (tree, file)) in trees.iter().enumerate() {
        for how in ["removed", "rewritten", "rewritten to the same size", "added to", "unsynced"] {
            if !file.exists() {
                continue;
            }
            match how {
                "removed" => fs::remove_file(file).unwrap(),
                "rewritten" => fs::write(file, "not what it was").unwrap(),
                "rewritten to the same size" => fs::write(file, vec![b'!'; fs::read(file).unwrap().len()]).unwrap(),
                "added to" => fs::write(file.with_file_name("more"), "more").unwrap(),
                _ => symlink("another-boot", tree.with_extension("unsynced")).unwrap(),
            }
            // The last step sees all of the trees, and has something new to do.
            project.dockerfile(&format!("{DOCKERFILE}RUN : {how} {at}; cp /all /seen; find / -xdev -type f -name more\n"));
            let image = build(&project);
            let mut files = image.tree();
            assert_eq!(files.remove("seen").map(|node| node.kind), files.get("all").map(|node| node.kind.clone()));
            let wrong = differences(&reference.tree(), &files);
            assert!(wrong.is_empty(), "{how}: {wrong:?}");
        }
    }
}

#[test]
fn a_check_finds_rot_in_a_tree_that_no_lstat_shows() {
    let project = project();
    let _built = build(&project);
    let (_, file) = file_in_a_tree(&project).remove(0);
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[0] ^= 1;
    fs::write(&file, bytes).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    let ran = project.run(["fsck"]).ends_with(4);
    assert!(ran.out().contains("removed the tree of sha256:"), "{}", ran.all());
    let _mended = project.run(["fsck"]).good();
}

/// A file system of its own, as long as the value lives.
struct Small {
    at: PathBuf,
}

impl Small {
    fn tmpfs(project: &Project, size: &str) -> Self {
        let at = project.path("small-tmpfs");
        fs::create_dir(&at).unwrap();
        let _mounted = output_of(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&at)).good();
        Self { at }
    }

    /// `None`: loop devices cannot be had here.
    fn ext4(project: &Project, size: u64) -> Option<Self> {
        let mkfs = need("mkfs.ext4")?;
        let (at, image) = (project.path("small-ext4"), project.path("ext4.img"));
        fs::create_dir(&at).unwrap();
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        let _made = output_of(Command::new(mkfs).args(["-q", "-m", "0"]).arg(&image)).good();
        let mounted = output_of(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at));
        if mounted.code != Some(0) {
            crate::harness::skipped(&format!("no loop device: {}", mounted.stderr.trim()));
            return None;
        }
        Some(Self { at })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _gone = output_of(Command::new("umount").arg("-l").arg(&self.at));
    }
}

/// The names and bytes of step records.
fn records(store: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(store.join("cache")).into_iter().flatten().flatten();
    let all = entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap_or_default()));
    all.filter(|(name, _)| !name.contains('-')).collect()
}

/// Builds while a ballast leaves a random part of the space, then without it.
fn fill_up(small: &Small, kind: &str) {
    let rounds: u64 = std::env::var("LAPSTRAKE_TEST_FULL").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let (mut full, mut good) = (0, 0);
    for round in 0..rounds {
        if round % 2 == 1 {
            // What earlier rounds left would be pruned and make room; here there is nothing to prune.
            fs::remove_dir_all(small.at.join("store")).unwrap();
        }
        let project = Project::on_store(&small.at.join("store"));
        let _base = busybox_layout(&project.path("layout"));
        fill(&project);
        let noise: Vec<u8> = (0..1_500_000_u64).map(|at| (at.wrapping_mul(2_654_435_761 + round) >> 11).to_le_bytes()[0]).collect();
        let _noise = project.file("app/noise", &noise);
        let context = format!("base=oci-layout://{}:busybox", project.path("layout").display());
        let args = ["--build-context", &context, "-o", "type=oci,dest=image.tar"];
        let free = rustix::fs::statvfs(&small.at).map(|found| found.f_bavail * found.f_frsize).unwrap();
        let ballast = small.at.join("ballast");
        // From nothing left to more than a build takes.
        let size = free - ((8 << 20) * round / rounds.max(1)).min(free);
        drop(fs::write(&ballast, vec![7; usize::try_from(size).unwrap()]));
        let ran = project.build(&args);
        match ran.code {
            Some(0) => good += 1,
            Some(4) => {
                full += 1;
                assert!(ran.stderr.to_lowercase().contains("no space"), "{}", ran.stderr);
            }
            // The step's own program met the end of the disk.
            Some(3) => full += usize::from(ran.stderr.to_lowercase().contains("space")),
            _ => panic!("{:?}: {}", ran.code, ran.stderr),
        }
        drop(fs::remove_file(&ballast));
        let before = records(project.store());
        let _next = project.build(&args).good();
        let after = records(project.store());
        for (name, record) in before {
            assert!(after.get(&name).is_none_or(|now| *now == record), "{name} changed");
        }
        assert_eq!(fs::read_dir(project.store().join("tmp")).unwrap().count(), 0, "temporary files are left");
        let _sound = project.run(["fsck"]).good();
    }
    println!("{kind}: {rounds} rounds, {full} ended for want of space, {good} found enough");
    assert!(full > 0);
}

#[test]
fn a_tree_that_a_killed_build_left_without_its_index_is_no_damage_and_goes() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN echo 1 > /one\nRUN echo 2 > /two\n");
    let image = project.image(&[]);
    let trees =
        || fs::read_dir(project.store().join("trees")).unwrap().flatten().map(|domain| fs::read_dir(domain.path()).unwrap().count());
    let before: usize = trees().sum();
    fs::remove_file(project.store().join("index").join(image.diff_ids()[1].trim_start_matches("sha256:"))).unwrap();
    let checked = project.run(["fsck"]).good();
    assert!(checked.out().contains("wrong: 0"), "{}", checked.out());
    assert!(trees().sum::<usize>() < before);
    assert_eq!(project.image(&[]).diff_ids(), image.diff_ids());
}

#[test]
fn a_disk_that_is_full_at_any_moment_costs_that_build_and_nothing_else() {
    if !need_root() || !am_root() {
        return;
    }
    let project = Project::new();
    fill_up(&Small::tmpfs(&project, "24m"), "tmpfs");
    if let Some(small) = Small::ext4(&project, 32 << 20) {
        fill_up(&small, "ext4");
    }
}
