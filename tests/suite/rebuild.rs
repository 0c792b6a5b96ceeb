//! The same bytes for everybody, under a `SOURCE_DATE_EPOCH`: whoever builds, wherever, whenever, and however steps are run.
//!
//! One wide Dockerfile is built in some surroundings; in [`whole`] all conformance cases and examples are, when that is asked for.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use crate::harness::{Image, Layer, Project, Ran, Way, am_root, need, need_root, need_user, output_of, sha256};

mod whole;

/// Whom steps and outputs are made by, and what is around them.
#[derive(Clone, Copy)]
struct Surroundings {
    name: &'static str,
    /// Another user than we are.
    user: Option<&'static str>,
    umask: &'static str,
    zone: &'static str,
    flags: &'static [&'static str],
    /// When the context was checked out, in seconds since 1970.
    checkout: u64,
}

/// What all others are compared with.
const PLAIN: Surroundings = Surroundings { name: "plain", user: None, umask: "022", zone: "UTC", flags: &[], checkout: 1_400_000_000 };

/// Later than the first checkouts and earlier than the last ones and all that is built.
const EPOCH: &str = "1600000000";
/// Later than all of them: what is older than the epoch has no other reason to become it than the rule.
const LATER: &str = "4000000000";

const ALL: &[Surroundings] = &[
    PLAIN,
    Surroundings {
        name: "copies, umask 077",
        umask: "077",
        flags: &["--snapshots", "copy", "--jobs", "1"],
        checkout: 1_700_000_000,
        ..PLAIN
    },
    Surroundings { name: "another zone", zone: "Asia/Kathmandu", flags: &["--jobs", "8"], checkout: 1_500_000_001, ..PLAIN },
    Surroundings { name: "a user", user: Some("lapstrake-test"), checkout: 1_234_567_890, ..PLAIN },
    Surroundings { name: "a user with copies", user: Some("lapstrake-test"), flags: &["--snapshots", "copy"], umask: "077", ..PLAIN },
    Surroundings { name: "one id", user: Some("lapstrake-nosub"), zone: "America/St_Johns", checkout: 1_750_000_000, ..PLAIN },
];

impl Surroundings {
    /// A project that belongs to the right user. `None`: there is no such user, or we cannot become it.
    fn project(&self) -> Option<Project> {
        match self.user {
            None => Some(Project::new()),
            Some(_) if !am_root() => None,
            Some(name) => need_user(name).map(|id| Project::as_user(name, id)),
        }
    }

    /// The program with its arguments, here.
    fn command(&self, project: &Project, args: &[&str]) -> Command {
        let plain = project.command(args);
        let mut command = Command::new("sh");
        command.args(["-c", "umask \"$1\"; shift; exec \"$@\"", "sh", self.umask]).arg(plain.get_program()).args(plain.get_args());
        command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TZ", self.zone);
        command.current_dir(project.path("")).stdin(std::process::Stdio::null());
        command
    }

    /// Builds `ctx` into a layout directory.
    fn build(&self, project: &Project, dest: &str, args: &[&str]) -> Ran {
        let output = format!("type=oci,tar=false,dest={dest}");
        let line = [&["build", "--progress", "plain", "-o", &output], self.flags, args, &["ctx"]].concat();
        output_of(&mut self.command(project, &line)).good()
    }
}

/// Sets the times of everything in a directory: a checkout's are those of its day.
fn check_out_at(dir: &Path, second: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            check_out_at(&entry.path(), second);
        }
        if !entry.file_type().unwrap().is_symlink() {
            fs::File::open(entry.path()).unwrap().set_modified(time).unwrap();
        }
    }
}

/// Each file below a directory by its digest.
fn digests(dir: &Path) -> BTreeMap<String, String> {
    fn walk(top: &Path, dir: &Path, all: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                walk(top, &entry.path(), all);
            } else {
                let name = entry.path().strip_prefix(top).unwrap().display().to_string();
                drop(all.insert(name, sha256(&fs::read(entry.path()).unwrap())));
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(dir, dir, &mut all);
    all
}

/// Times of all kinds: of a checkout, of steps, of a package, of an archive, of the base; moved, copied and linked.
const WIDE: &str = r"FROM busybox AS tools
COPY src /src
RUN cp -a /src /kept && cp -r /src /copied && mkdir /made && echo x > /made/x && touch -d @1300000000 /made/package

FROM busybox
WORKDIR /srv/app
COPY --chmod=0644 src/a.txt src/sub ./
ADD files.tar /unpacked/
RUN chmod 0600 a.txt && mv b.txt moved && cp -p moved again && ln moved linked && ln -s moved link && mkfifo pipe
RUN touch -d @1000000000 /srv/package && touch /etc/hostname && echo 1 > /srv/app/one
RUN --mount=type=bind,source=src,target=/mnt cp -a /mnt/sub /srv/sub && cp -a /mnt/a.txt /srv/
RUN touch /same
RUN touch /same
RUN rm -r /srv/sub && rm /etc/group && mkdir -p /srv/new/deep
COPY --from=tools --link /made /kept /copied /from/
COPY --from=tools /bin/busybox /from/base
COPY <<END /text
words
END
";

fn wide(project: &Project, at: u64) {
    project.dockerfile(WIDE);
    let _a = project.file("src/a.txt", "a");
    let _b = project.file("src/sub/b.txt", "b");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_mtime(1_200_000_000);
    header.set_size(4);
    tar.append_data(&mut header, "of the archive", &b"text"[..]).unwrap();
    let _tar = project.file("files.tar", tar.into_inner().unwrap());
    check_out_at(&project.context(), at);
}

#[test]
fn the_same_input_makes_the_same_bytes_wherever_and_by_whomever() {
    let mut first: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for surroundings in ALL {
        let Some(project) = surroundings.project() else { continue };
        project.load_busybox();
        wide(&project, surroundings.checkout);
        for (epoch, dest) in [(EPOCH, "past"), (LATER, "future")] {
            let warm: &[&[&str]] = if epoch == EPOCH { &[&[], &[], &["--no-cache"]] } else { &[&[]] };
            for (number, more) in warm.iter().enumerate() {
                let dest = format!("{dest}-{number}");
                let _ran = surroundings.build(&project, &dest, &[&["--source-date-epoch", epoch], *more].concat());
                let made = digests(&project.path(&dest));
                let want = first.entry(epoch).or_insert_with(|| made.clone());
                assert_eq!(*want, made, "{}, epoch {epoch}, build {number}", surroundings.name);
            }
        }
    }
    assert_ne!(first[EPOCH], first[LATER]);
}

/// Path → time, of the layers that are not the base's.
fn times(image: &Image) -> BTreeMap<String, u64> {
    image
        .layers
        .iter()
        .skip(1)
        .flat_map(|layer| &layer.rows)
        .filter_map(|(path, node)| Some((path.clone(), node.as_ref()?.mtime)))
        .collect()
}

#[test]
fn files_that_a_build_made_have_the_epoch_and_those_of_packages_and_bases_their_own() {
    let project = Project::with_busybox();
    wide(&project, 1_400_000_000);
    let _built = project.build(&["-o", "type=oci,tar=false,dest=out", "--source-date-epoch", EPOCH]).good();
    let image = Image::of_layout(&project.path("out"));
    let found = times(&image);
    for (path, time) in [("srv/package", 1_000_000_000), ("unpacked/of the archive", 1_200_000_000), ("from/package", 1_300_000_000)] {
        assert_eq!(found[path], time, "{path}");
    }
    let old = ["srv/package", "unpacked/of the archive", "from/package", "from/base"];
    let others: Vec<_> = found.iter().filter(|(path, time)| !old.contains(&path.as_str()) && **time != 1_600_000_000).collect();
    // Directories of the base that are only on the way keep theirs.
    let made = |path: &str| path.starts_with("srv/") || path.starts_with("from/") || path.starts_with("same") || path == "text";
    assert!(others.iter().all(|(path, time)| !made(path) && **time < 1_600_000_000), "{others:?}");
    let base = Image::of_layout(&project.path("busybox-layout"));
    assert_eq!(image.layers[0].digest, base.layers[0].digest);
    assert_eq!(image.config["created"], "2020-09-13T12:26:40Z");
}

#[test]
fn layers_keep_their_times_where_it_is_asked_for_and_without_an_epoch() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN echo x > /x\n");
    let epoch = ["--source-date-epoch", EPOCH];
    let kept = project.build(&[&epoch[..], &["-o", "type=oci,tar=false,dest=kept,rewrite-timestamp=false"]].concat()).good();
    assert!(!kept.stderr.contains("rewrite-timestamp"), "{}", kept.stderr);
    let outputs = ["-o", "type=oci,tar=false,dest=set,rewrite-timestamp=true", "-o", "type=oci,tar=false,dest=too,rewrite-timestamp=false"];
    let _both = project.build(&[&epoch[..], &outputs, &["-t", "named"]].concat()).good();
    let plain = project.build(&["-o", "type=oci,tar=false,dest=plain,rewrite-timestamp=true"]).good();
    assert!(plain.stderr.contains("`rewrite-timestamp=true` in --output changes nothing"), "{}", plain.stderr);
    let image = |name: &str| Image::of_layout(&project.path(name));
    assert_eq!(times(&image("set"))["x"], 1_600_000_000);
    assert_eq!(image("kept").diff_ids(), image("plain").diff_ids());
    assert_eq!(image("too").digest, image("kept").digest);
    assert!(times(&image("kept"))["x"] > 1_700_000_000);
    // The name in the store is of what the outputs have by default; what is built on it has its layers as they are.
    project.dockerfile("FROM named\nRUN echo y > /y\n");
    assert_eq!(project.image(&epoch).diff_ids()[..2], image("set").diff_ids()[..]);
}

#[test]
fn a_layer_is_dated_once() {
    let project = Project::with_busybox();
    wide(&project, 1_400_000_000);
    let build = |dest: &str| project.build(&["--source-date-epoch", EPOCH, "-o", &format!("type=oci,tar=false,dest={dest}")]).good();
    let _first = build("one");
    let image = Image::of_layout(&project.path("one"));
    let blobs = || {
        let path = |layer: &Layer| project.store().join("blobs/sha256").join(layer.digest.trim_start_matches("sha256:"));
        image.layers.iter().map(|layer| fs::metadata(path(layer)).unwrap().ino()).collect::<Vec<_>>()
    };
    let before = blobs();
    let _second = build("two");
    assert_eq!(before, blobs());
    assert_eq!(digests(&project.path("one")), digests(&project.path("two")));
}

#[test]
fn everything_in_an_output_of_files_has_the_epoch() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN echo x > /x\n");
    let _built = project.build(&["--source-date-epoch", EPOCH, "-o", "out", "-o", "type=tar,dest=out.tar"]).good();
    let modified = |path: &str| fs::metadata(project.path("out").join(path)).unwrap().modified().unwrap();
    assert_eq!([modified("x"), modified("bin"), modified("etc/passwd")], [SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000); 3]);
    let bytes = fs::read(project.path("out.tar")).unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let times: Vec<u64> = archive.entries().unwrap().map(|entry| entry.unwrap().header().mtime().unwrap()).collect();
    assert!(times.len() > 10 && times.iter().all(|time| *time == 1_600_000_000), "{times:?}");
}

/// Root of a container without namespaces, a store on overlayfs and ids in several extents make the same bytes too.
#[test]
fn the_same_bytes_where_the_machine_allows_less() {
    if !need_root() || need("python3").is_none() || need("unshare").is_none() {
        return;
    }
    let mut first = None;
    for way in [Way::Overlay, Way::Memory, Way::Chroot, Way::Nested] {
        let project = way.project();
        // Without mounts there is none to copy from.
        wide(&project, 1_400_000_000);
        let mount = "RUN --mount=type=bind,source=src,target=/mnt cp -a /mnt/sub /srv/sub && cp -a /mnt/a.txt /srv/";
        project.dockerfile(&WIDE.replace(mount, "RUN mkdir /srv/sub"));
        check_out_at(&project.context(), 1_400_000_000);
        let _built = way.build(&project, &["--source-date-epoch", EPOCH, "-o", "type=oci,tar=false,dest=out"]).good();
        // A store on overlayfs writes its outputs outside of it.
        let made = digests(&project.path("out"));
        assert_eq!(*first.get_or_insert_with(|| made.clone()), made, "{way:?}");
    }
}
