//! The same layers, byte for byte, however what a step changes is kept.

use std::fs;

use crate::harness::{Image, Project, Way, need, need_root};

/// What steps do to files: everything that an overlay has a form for, and what a comparison by time and size would miss. All
/// times are set, so that the bytes of the layers can be equal.
const WIDE: &str = r#"FROM busybox
RUN mkdir -p /w/a/b /w/keep /w/swap /w/gone/deep /w/modes && cd /w && echo one > a/one && echo two > a/two && echo deep > a/b/deep \
 && ln a/one a/uno && ln -s a link && echo k > keep/k && echo s > swap/s && echo g > gone/deep/g && mkfifo pipe && echo 1111 > written \
 && for n in 1 2 3 4; do echo $n > modes/$n; done && ln a/one /w/third \
 && find /w -exec touch -h -d @1000000000 {} +
COPY one.txt /w/copied
RUN set -e; cd /w; test -p pipe; test "$(cat copied)" = context; \
    rm a/two; rm -r a/b; mkdir a/b; echo new > a/b/new; \
    rm -r gone; mkdir -p gone/deep; \
    mv keep kept; rm -r swap; ln -s kept swap; rm link; mkdir link; echo in > link/in; \
    rm pipe; echo file > pipe; mkfifo other; \
    printf 2222 | dd of=written conv=notrunc 2> /dev/null; \
    echo ONE > a/one; \
    chmod 600 modes/1; chown 12:13 modes/2; chmod 4755 modes/3; touch -d @1000000007 modes/4; \
    chmod 700 modes; chmod 755 modes; echo 4 > modes/4.new; mv modes/4.new modes/4; \
    ln kept/k kept/k2; ln -s nowhere dangling; ln other other2; \
    touch "$(printf 'new\nline')" "$(printf '\376\377')" -- -dash 'with space' .hidden; \
    echo x > transient; rm transient; \
    find /w -exec touch -h -d @1000000000 {} +
RUN set -e; cd /w; test "$(cat a/one a/uno third kept/k2 written)" = "$(printf 'ONE\none\none\nk\n2222\n')"; test ! -e gone/deep/g; \
    echo more >> kept/k; rm -r a; echo 'no directory any more' > a; rm swap; \
    find /w -exec touch -h -d @1000000000 {} +
FROM busybox AS unused
RUN false
"#;

fn context(project: &Project) {
    let file = fs::File::options().write(true).open(project.file("one.txt", "context\n")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
}

fn ids(image: &Image) -> Vec<String> {
    image.diff_ids().into_iter().map(str::to_owned).collect()
}

fn wide(way: Way) -> Vec<String> {
    let project = way.project();
    context(&project);
    project.dockerfile(&WIDE.replace("FROM busybox AS unused\nRUN false\n", ""));
    let image = way.image(&project);
    // A warm build of the last step alone sees the tree that the one before left.
    let cold = ids(&image);
    let again = way.build(&project, &[]).good();
    assert_eq!(again.stderr.matches(" CACHED").count(), 4, "{}", again.stderr);
    assert_eq!(fs::read_dir(project.store().join("tmp")).map_or(0, Iterator::count), 0, "{way:?} leaves something behind");
    cold
}

#[test]
fn a_copy_and_memory_give_the_layers_that_an_overlay_gives() {
    if !need_root() || need("python3").is_none() || need("unshare").is_none() {
        return;
    }
    let overlay = wide(Way::Overlay);
    assert_eq!(overlay.len(), 5);
    for way in Way::ALL {
        assert_eq!(wide(way), overlay, "{way:?}");
    }
}

#[test]
fn a_user_may_copy_too() {
    let overlay = Project::with_busybox();
    context(&overlay);
    overlay.dockerfile(&WIDE.replace("FROM busybox AS unused\nRUN false\n", ""));
    let copy = ids(&overlay.image(&["--snapshots", "copy"]));
    assert_eq!(ids(&overlay.image(&["--no-cache", "--snapshots", "overlay"])), copy);
}

/// A second image of a store, a stage that two others begin with, a step that fails: the tree that is kept is never the wrong one.
#[test]
fn a_kept_tree_is_never_another_stages() {
    if !need_root() {
        return;
    }
    let dockerfile = "FROM busybox AS base\nRUN echo base > /base && touch -d @1 /base\nFROM base AS one\nRUN test ! -e /two && rm /base && echo 1 > /one && touch -d @1 /one\nFROM base AS two\nRUN test -e /base && test ! -e /one && echo 2 > /two && touch -d @1 /two\nFROM busybox\nRUN test ! -e /base && echo 3 > /three && touch -d @1 /three\nCOPY --from=one /one /tmp/one\nCOPY --from=two /two /base /\nRUN --mount=from=one,target=/m test -e /m/one && test ! -e /m/base && test -e /tmp/one && rm /tmp/one && ls / > /list && touch -d @1 /list\n";
    let images = [Way::Overlay, Way::Copy].map(|way| {
        let project = way.project();
        project.dockerfile(dockerfile);
        ids(&way.image(&project))
    });
    assert_eq!(images[0], images[1]);
    let project = Way::Copy.project();
    project.dockerfile("FROM busybox\nRUN echo x > /x\nRUN echo y > /y && rm /x && false\n");
    let _failed = Way::Copy.build(&project, &[]).ends_with(3);
    project.dockerfile("FROM busybox\nRUN echo x > /x\nRUN test -e /x && test ! -e /y\n");
    let _built = Way::Copy.build(&project, &[]).good();
}

#[test]
fn memory_that_is_full_is_an_error_that_names_the_root() {
    if !need_root() || need("unshare").is_none() {
        return;
    }
    let total: u64 = fs::read_to_string("/proc/meminfo")
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    let project = Way::Memory.project();
    // Sparse files take no memory: what is asked for of the file system is.
    project.dockerfile(&format!("FROM busybox\nRUN fallocate -l {} /big || {{ fallocate -l $(($(df -k / | tail -n 1 | awk '{{print $4}}') * 1024 - 4096)) /rest; exit 1; }}\n", total * 1024 / 2 + 4096));
    let _failed = Way::Memory.build(&project, &[]).ends_with(3).says(&["--root", "kept in memory"]);
    project.dockerfile("FROM busybox\nRUN echo little > /little\n");
    let _built = Way::Memory.build(&project, &[]).good();
}

/// More layers than an overlay takes; whiteouts in those that are merged, and above them.
#[test]
fn a_stage_of_seven_hundred_layers_runs_and_is_copied_from() {
    let project = Project::with_busybox();
    let files = |numbers: std::ops::Range<usize>| numbers.map(|number| format!("COPY one /n/{number}\n")).collect::<Vec<_>>().concat();
    let dockerfile = format!(
        "FROM busybox AS deep\nRUN mkdir -m 700 /d && cd /d && touch gone later kept && ln kept linked && chown 7:8 kept && chmod 640 kept && ln -s kept link && mkdir old && touch old/in\n\
         RUN rm /d/gone && rm -r /d/old && mkdir /d/old && touch /d/old/new\n{}RUN rm /d/later && echo more >> /d/linked\n{}\
         RUN cd /d && test \"$(ls -A . old)\" = \"$(printf '.:\\nkept\\nlink\\nlinked\\nold\\n\\nold:\\nnew')\" && test \"$(stat -c %a:%u:%g kept linked .)\" = \"$(printf '640:7:8\\n640:7:8\\n700:0:0')\" && test ! -s kept && test \"$(cat linked link)\" = more && test $(ls /n | wc -l) = 697 && rm /n/0 && echo end > /end\n\
         FROM busybox\nCOPY --from=deep /n/1 /d/linked /end /\nRUN --mount=type=bind,from=deep,target=/m test $(ls /m/n | wc -l) = 696 && test ! -e /m/d/later && cmp /m/d/linked /linked\n",
        files(0..457),
        files(457..697),
    );
    project.dockerfile(&dockerfile);
    let _path = project.file("one", "1");
    let image = project.image(&[]);
    assert_eq!(image.paths(1), ["1", "end", "linked"]);
    // From the store, where each layer has its own tree.
    project.dockerfile(&dockerfile.replace("echo end", "echo another end").replace("COPY one /n/696", "COPY Dockerfile /n/696"));
    let _again = project.build(&[]).good();
}
