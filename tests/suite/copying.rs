//! COPY, ADD, WORKDIR and `.dockerignore` against the recorded build cases, as data: a case whose stages have no RUN is
//! planned, its files are selected and laid over chains, and what the chains then show is held against the answers.
//!
//! The corpus is not part of the project; where it or Python is absent this test says so and passes, except in CI.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use lapstrake::{
    context::{self, Context},
    dockerfile,
    layer::{Change, Changes, Node, archive, archive::MemberKind},
    oci::{Descriptor, ImageConfig, Platform},
    plan::{self, Action, Base, BaseError, BaseImage, Bases, Chmod, Copy, CopySource, Origin, Plan, Request, Start},
    rootfs::{self, CopySpec, Draft, ModeChange, Placement, Selection, Source, Spool, Tree, account::Accounts},
    sys::dir,
    tree::{Chain, ContentDigest, Entry, Index, IndexBuilder, Kind, Row, TreePath},
};
use serde_json::Value;

/// When steps begin, in seconds since 1970.
const NOW: i64 = 1_700_000_000;

/// The folder of the corpus, if it is there.
fn corpus() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance");
    let python = python(&["--version".as_ref()]).is_some();
    if path.is_dir() && python {
        return Some(path);
    }
    let ci = std::env::vars().any(|(name, value)| name == "CI" && value == "true");
    assert!(!ci, "the corpus or python3 is missing: {}", path.display());
    println!("skipped: no corpus at {} or no python3", path.display());
    None
}

#[expect(clippy::disallowed_methods, reason = "the corpus is laid out by its own tools")]
fn python(arguments: &[&std::ffi::OsStr]) -> Option<Vec<u8>> {
    let done = Command::new("python3").args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    done.status.success().then_some(done.stdout)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The base image of the corpus.
struct Busybox {
    config: ImageConfig,
    manifest: Descriptor,
    chain: Chain,
}

impl Busybox {
    fn make(corpus: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tool = corpus.join("tools/mkbase.py");
        python(&[tool.as_os_str(), "busybox".as_ref(), dir.path().as_os_str()]).unwrap();
        let blob = |digest: &Value| fs::read(dir.path().join("blobs").join(digest.as_str().unwrap().replace(':', "/"))).unwrap();
        let index = json(&dir.path().join("index.json"));
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0]["digest"])).unwrap();
        Self {
            config: serde_json::from_slice(&blob(&manifest["config"]["digest"])).unwrap(),
            manifest: serde_json::from_value(index["manifests"][0].clone()).unwrap(),
            chain: Chain::new(vec![index_of_tar(&blob(&manifest["layers"][0]["digest"]))]),
        }
    }
}

fn index_of_tar(packed: &[u8]) -> Arc<Index> {
    let mut entries = archive::Entries::new(lapstrake::layer::decompress(packed).unwrap());
    let mut builder = IndexBuilder::default();
    while let Some(member) = entries.next_member().unwrap() {
        let path = TreePath::parse(&member.name).unwrap();
        let mut link = None;
        let kind = match member.kind {
            MemberKind::File { size } => {
                let mut bytes = Vec::new();
                let _read = std::io::Read::read_to_end(&mut entries.body(), &mut bytes).unwrap();
                let content = ContentDigest::of(&bytes);
                if path.as_bytes().starts_with(b"etc/") {
                    builder.keep(path.clone(), bytes.into());
                }
                Kind::File { size, content }
            }
            MemberKind::Dir => Kind::Dir,
            MemberKind::Symlink(target) => Kind::Symlink { target },
            MemberKind::HardLink(target) => {
                let first = TreePath::parse(&target).unwrap();
                let Some(Row::Put { entry, .. }) = builder.row(&first) else { panic!("{first} comes first") };
                let kind = entry.kind.clone();
                link = Some(first);
                kind
            }
            MemberKind::Char { major, minor } => Kind::Char { major, minor },
            MemberKind::Block { major, minor } => Kind::Block { major, minor },
            MemberKind::Fifo => Kind::Fifo,
        };
        builder.put(path, Row::Put { entry: Entry { meta: member.meta, kind }, link, opaque: false });
    }
    Arc::new(builder.finish())
}

/// The index of the layer that these changes would be.
fn index_of(changes: &Changes) -> Arc<Index> {
    let mut builder = IndexBuilder::default();
    for (path, change) in &changes.all().unwrap() {
        let Change::Put(meta, node) = change else {
            builder.put(path.clone(), Row::Whiteout);
            continue;
        };
        let mut link = None;
        let kind = match node {
            Node::File { size, digest, .. } => Kind::File { size: *size, content: digest.unwrap() },
            Node::Dir => Kind::Dir,
            Node::Symlink(target) => Kind::Symlink { target: target.clone() },
            Node::HardLink(first) => {
                let Some(Row::Put { entry, .. }) = builder.row(first) else { panic!("{first} comes first") };
                link = Some(first.clone());
                entry.kind.clone()
            }
            Node::Char { major, minor } => Kind::Char { major: *major, minor: *minor },
            Node::Block { major, minor } => Kind::Block { major: *major, minor: *minor },
            Node::Fifo => Kind::Fifo,
        };
        builder.put(path.clone(), Row::Put { entry: Entry { meta: meta.clone(), kind }, link, opaque: false });
    }
    Arc::new(builder.finish())
}

struct Names<'a> {
    busybox: &'a Busybox,
    named: BTreeSet<String>,
}

impl Bases for Names<'_> {
    fn base(&self, name: &str, _platform: &Platform) -> Result<Option<Base>, BaseError> {
        if self.named.contains(name) {
            return Ok(Some(Base::Directory(name.to_owned())));
        }
        let image = BaseImage {
            name: name.to_owned(),
            manifest: self.busybox.manifest.clone(),
            config: self.busybox.config.clone(),
            layers: Vec::new(),
        };
        Ok(name.contains("busybox").then_some(Base::Image(image)))
    }
}

/// A case that is being built.
struct Building<'a> {
    busybox: &'a Busybox,
    dir: &'a Path,
    dockerfile: PathBuf,
    ends: Vec<Chain>,
    /// Stands for the trees that nobody reads from here.
    anywhere: Arc<OwnedFd>,
    spool: Arc<Spool>,
}

impl Building<'_> {
    fn run(&mut self, plan: &Plan) -> Result<(), String> {
        for stage in &plan.stages {
            let mut chain = match &stage.start {
                Start::Scratch => Chain::default(),
                Start::Stage(id) => self.ends[id.0].clone(),
                Start::Image(_) => self.busybox.chain.clone(),
            };
            for step in &stage.steps {
                let mut draft = Draft::new(chain.clone());
                match &step.action {
                    Action::Metadata | Action::Run(_) => continue,
                    Action::Workdir { path, user } => {
                        let account = Accounts::of(&chain).account(user).map_err(|error| error.to_string())?;
                        let path = TreePath::clean(path.as_bytes()).unwrap();
                        drop(draft.make_dir(&path, (account.uid, account.gid), NOW).map_err(|error| error.to_string())?);
                    }
                    Action::Copy(copy) => self.copy(copy, &mut draft, &chain).map_err(|error| error.to_string())?,
                }
                chain = chain.with(index_of(&draft.finish()));
            }
            self.ends.push(chain);
        }
        Ok(())
    }

    fn copy(&self, copy: &Copy, draft: &mut Draft, chain: &Chain) -> Result<(), rootfs::Error> {
        let source = self.source(&copy.from)?;
        let mut selection = Selection::default();
        for each in &copy.sources {
            selection = selection.then(match each {
                CopySource::Path(path) => {
                    let spec =
                        CopySpec { paths: vec![path.clone()], parents: copy.parents, exclude: copy.exclude.clone(), jobs: 2, store: None };
                    rootfs::select(source.as_ref(), &spec)?
                }
                CopySource::Inline(file) => Selection::inline(&file.name, file.data.as_bytes()),
                CopySource::Http { .. } | CopySource::Git { .. } => panic!("no case of this kind is taken"),
            });
        }
        let placement = Placement {
            dest: copy.dest.clone(),
            chown: copy.chown.as_deref().map(|text| Accounts::of(chain).owner(text)).transpose()?,
            chmod: copy.chmod.as_ref().map(|chmod| match chmod {
                Chmod::Octal(mode) => ModeChange::Octal(*mode),
                Chmod::Symbolic(text) => ModeChange::parse(text).unwrap(),
            }),
            link: copy.link,
            now: NOW,
            unpack: (copy.add && copy.unpack != Some(false)).then(|| Arc::clone(&self.spool)),
        };
        draft.apply(&selection, &placement)
    }

    fn source(&self, origin: &Origin) -> Result<Box<dyn Source>, rootfs::Error> {
        let tree = |chain: &Chain, name: &str| {
            let dirs = vec![Arc::clone(&self.anywhere); chain.layers().len()];
            Box::new(Tree::extracted(chain.clone(), dirs, name))
        };
        Ok(match origin {
            Origin::Context => {
                let dir = self.dir.join("context");
                let ignore = context::ignore_patterns(&dir, Some(&self.dockerfile))?.patterns;
                Box::new(Context::open(&dir, ignore)?)
            }
            Origin::Named(name) => Box::new(Context::open(&self.dir.join("named").join(name), lapstrake::pattern::PatternList::default())?),
            Origin::Stage(id) => tree(&self.ends[id.0], "a stage"),
            Origin::Image(_) => tree(&self.busybox.chain, "busybox"),
            Origin::Scratch => tree(&Chain::default(), "scratch"),
        })
    }
}

/// All that a chain shows, by absolute path.
type Shown = BTreeMap<String, Entry>;

fn show(chain: &Chain) -> Shown {
    let mut all = BTreeMap::new();
    let mut ahead = vec![TreePath::root()];
    while let Some(dir) = ahead.pop() {
        for name in chain.names(&dir) {
            let path = dir.join(&name).unwrap();
            let entry = chain.look_up(&path).unwrap().entry.clone();
            drop(all.insert(format!("/{}", String::from_utf8_lossy(path.as_bytes())), entry));
            ahead.push(path);
        }
    }
    all
}

fn check_path(check: &Value, entry: &Entry) -> Result<(), String> {
    let (kind, target) = match &entry.kind {
        Kind::File { .. } => ("file", None),
        Kind::Dir => ("dir", None),
        Kind::Symlink { target } => ("symlink", Some(String::from_utf8_lossy(target).into_owned())),
        Kind::Char { .. } => ("char", None),
        Kind::Block { .. } => ("block", None),
        Kind::Fifo => ("fifo", None),
    };
    let is = |key: &str, value: Value| {
        if check[key].is_null() || check[key] == value { Ok(()) } else { Err(format!("{key} is {value}, not {}", check[key])) }
    };
    is("type", kind.into())?;
    is("mode", format!("{:04o}", entry.meta.mode).into())?;
    is("uid", entry.meta.uid.into())?;
    is("gid", entry.meta.gid.into())?;
    is("target", target.into())?;
    if let Kind::File { size, content } = &entry.kind {
        is("size", (*size).into())?;
        if let Some(text) = check["text"].as_str().filter(|text| ContentDigest::of(text.as_bytes()) != *content) {
            return Err(format!("its bytes are not {text:?}"));
        }
    }
    Ok(())
}

/// What is wrong with a result; `None` for a check that looks at something else.
fn check(check: &Value, chain: &Chain, shown: &Shown, before: &Shown) -> Option<Result<(), String>> {
    let path = check["path"].as_str().unwrap_or_default();
    let listed = |key: &str| check[key].as_array().into_iter().flatten().map(|path| path.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    match check["check"].as_str().unwrap() {
        "path" => Some(
            shown.get(path).map_or(Err("is not there".to_owned()), |entry| check_path(check, entry)).map_err(|why| format!("{path} {why}")),
        ),
        "absent" => Some(if shown.contains_key(path) { Err(format!("{path} is there")) } else { Ok(()) }),
        "hardlink" => {
            let first = |path: &String| {
                let path = TreePath::parse(path.as_bytes()).unwrap();
                chain.look_up(&path).map(|found| (found.layer, found.link.unwrap_or_else(|| path.clone())))
            };
            let firsts: BTreeSet<_> = listed("paths").iter().map(first).collect();
            Some(if firsts.len() == 1 { Ok(()) } else { Err(format!("{check} are not one file")) })
        }
        "only" => {
            let same = |one: &Entry, other: &Entry| {
                one.kind == other.kind && (one.meta.mode, one.meta.uid, one.meta.gid) == (other.meta.mode, other.meta.uid, other.meta.gid)
            };
            let changed =
                shown.iter().filter(|(path, entry)| before.get(*path).is_none_or(|old| !same(old, entry))).map(|(path, _)| path.clone());
            let extra: Vec<String> = changed.filter(|path| !listed("paths").contains(path)).collect();
            let gone: Vec<&String> =
                before.keys().filter(|path| !shown.contains_key(*path) && !listed("removed").contains(*path)).collect();
            Some(if extra.is_empty() && gone.is_empty() { Ok(()) } else { Err(format!("unexpected: {extra:?}, gone: {gone:?}")) })
        }
        _ => None,
    }
}

/// Builds one case. `None`: it needs what this test has not.
fn build(case: &Path, corpus: &Path, busybox: &Busybox) -> Option<Result<usize, String>> {
    let expect = json(&case.join("expect.json"));
    let options = &expect["build"];
    let parsed = dockerfile::parse(&fs::read_to_string(case.join("Dockerfile")).ok()?);
    let named: BTreeSet<String> = options["named_contexts"].as_object().into_iter().flat_map(|all| all.keys().cloned()).collect();
    let arguments = options["build_args"].as_object().into_iter().flatten();
    let request = Request {
        target: options["target"].as_str().map(str::to_owned),
        build_args: arguments.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect(),
        contexts: named.iter().cloned().collect(),
        ..Request::default()
    };
    let must_fail = expect["expect"].as_array().unwrap().iter().any(|check| check["is"] == "fail");
    let failed = |why: String| if must_fail { Ok(1) } else { Err(why) };
    if !parsed.errors.is_empty() {
        return Some(failed(format!("{:?}", parsed.errors)));
    }
    let plan = match plan::resolve(&parsed.dockerfile, &request, &Names { busybox, named }) {
        Ok(plan) => plan,
        Err(error) => return expect["bases"].as_array().unwrap().iter().all(|base| base != "debian").then(|| failed(format!("{error:?}"))),
    };
    let needs_more = |action: &Action| match action {
        Action::Run(_) => true,
        Action::Copy(copy) => copy.sources.iter().any(|source| matches!(source, CopySource::Http { .. } | CopySource::Git { .. })),
        Action::Metadata | Action::Workdir { .. } => false,
    };
    if plan.stages.iter().flat_map(|stage| &stage.steps).any(|step| needs_more(&step.action)) {
        return None;
    }
    if plan.stages.iter().flat_map(|stage| &stage.steps).all(|step| step.action == Action::Metadata) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let tool = corpus.join("tools/prepare.py");
    python(&[tool.as_os_str(), case.as_os_str(), dir.path().as_os_str()]).unwrap();
    // Some cases close their ignore file: only root can go on.
    let closed =
        fs::read(dir.path().join("context/.dockerignore")).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    if closed {
        return None;
    }
    let name = options["dockerfile"].as_str().unwrap_or("Dockerfile");
    let scratch = tempfile::tempdir().unwrap();
    let anywhere = Arc::new(dir::open_root(scratch.path()).unwrap());
    let spool = Arc::new(Spool::new(Arc::clone(&anywhere)));
    let dockerfile = dir.path().join(name);
    let mut building = Building { busybox, dir: dir.path(), dockerfile, ends: Vec::new(), anywhere, spool };
    if let Err(why) = building.run(&plan) {
        return Some(failed(why));
    }
    if must_fail {
        return Some(Err("it must fail".to_owned()));
    }
    let end = &building.ends[plan.target.0];
    let base = if expect["final_base"] == "busybox" { show(&busybox.chain) } else { Shown::new() };
    let shown = show(end);
    let must = expect["expect"].as_array().unwrap().iter().filter(|check| check["level"] != "should");
    let results: Vec<_> = must.filter_map(|one| check(one, end, &shown, &base)).collect();
    let count = results.len();
    let wrong: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    Some(if wrong.is_empty() { Ok(count) } else { Err(wrong.join("; ")) })
}

#[test]
fn cases_without_a_run_come_out_as_recorded() {
    let Some(corpus) = corpus() else { return };
    let busybox = Busybox::make(&corpus);
    let mut cases: Vec<PathBuf> = fs::read_dir(corpus.join("build")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    let (mut held, mut wrong, mut left) = ((0, 0), Vec::new(), 0);
    for case in cases.iter().filter(|case| case.join("expect.json").exists()) {
        match build(case, &corpus, &busybox) {
            Some(Ok(checks)) => held = (held.0 + 1, held.1 + checks),
            Some(Err(why)) => wrong.push(format!("{}: {why}", case.file_name().unwrap().display())),
            None => left += 1,
        }
    }
    println!("{} cases with {} checks hold, {} do not, {left} need more", held.0, held.1, wrong.len());
    assert!(held.0 > 100, "too few were compared: {held:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
