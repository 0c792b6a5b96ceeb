//! Text to plan, with every image there: a plan refers to itself correctly, is no larger than allowed and the same each time.

#![no_main]

mod answer;

use lapstrake::{
    dockerfile,
    oci::{Config, Descriptor, Digest, ImageConfig, Platform, media_type},
    plan::{Action, Base, BaseError, BaseImage, Bases, CopySource, MountKind, Origin, Plan, Request, StageId, Start, resolve},
};
use libfuzzer_sys::fuzz_target;

/// Has everything; images whose name begins with `onbuild` have triggers.
struct Everything;

impl Bases for Everything {
    fn base(&self, name: &str, platform: &Platform) -> Result<Option<Base>, BaseError> {
        if name.starts_with("dir") {
            return Ok(Some(Base::Directory(name.to_owned())));
        }
        let triggers = ["RUN a", "COPY --from=b c d", "ENV A=$A$B", "ARG A", "WORKDIR $A"].map(str::to_owned);
        let onbuild = name.starts_with("onbuild").then(|| triggers.to_vec());
        let env = Some(vec!["PATH=/bin".to_owned(), "A=a".to_owned(), "odd".to_owned()]);
        let config = Config { env, on_build: onbuild, working_dir: "/w".to_owned(), ..Config::default() };
        let config = ImageConfig { architecture: platform.architecture.clone(), os: platform.os.clone(), config, ..ImageConfig::default() };
        let manifest = Descriptor::new(media_type::MANIFEST, Digest::of(name.as_bytes()), 1);
        Ok(Some(Base::Image(BaseImage { name: name.to_owned(), manifest, config, layers: Vec::new() })))
    }
}

fuzz_target!(|text: &str| {
    // The first line may be a request.
    let (head, body) = text.split_once('\0').unwrap_or(("", text));
    let parsed = dockerfile::parse(body);
    if !parsed.errors.is_empty() {
        return;
    }
    let mut request = Request { platform: "linux/amd64".parse().ok(), ..Request::default() };
    for field in head.split('\n') {
        match field.split_once('=') {
            Some(("target", name)) => request.target = Some(name.to_owned()),
            Some(("context", name)) => request.contexts.push(name.to_owned()),
            Some((name, value)) => drop(request.build_args.insert(name.to_owned(), value.to_owned())),
            None => {}
        }
    }
    let first = resolve(&parsed.dockerfile, &request, &Everything);
    match first {
        Ok(plan) => {
            answer::messages(body, plan.warnings.iter());
            sound(body, &plan);
            if body.len() < 4096 {
                assert_eq!(resolve(&parsed.dockerfile, &request, &Everything).ok().as_ref(), Some(&plan));
            }
        }
        Err(unresolved) => {
            assert!(!unresolved.places.is_empty());
            assert!(unresolved.places.is_sorted_by_key(|place| place.span().start));
            answer::messages(body, unresolved.places.iter());
        }
    }
});

fn sound(text: &str, plan: &Plan) {
    assert!(plan.target.0 < plan.stages.len());
    let mut bytes = 0;
    for (index, stage) in plan.stages.iter().enumerate() {
        let earlier = |StageId(id): &StageId| assert!(*id < index, "stage {index} needs stage {id}");
        let origin = |origin: &Origin| {
            if let Origin::Stage(id) = origin {
                earlier(id)
            }
        };
        if let Start::Stage(id) = &stage.start {
            earlier(id);
        }
        assert!(text.get(stage.span.start as usize..stage.span.end as usize).is_some());
        for step in &stage.steps {
            bytes += step.shown.len() + step.history.len();
            assert!(step.parts.values().chain([&step.span]).all(|span| text.get(span.start as usize..span.end as usize).is_some()));
            match &step.action {
                Action::Metadata => {}
                Action::Workdir { path, .. } => assert!(path.starts_with('/') && !path.contains('\0'), "{path:?}"),
                Action::Copy(copy) => {
                    origin(&copy.from);
                    assert!(!copy.sources.is_empty());
                    for source in &copy.sources {
                        if let CopySource::Inline(file) = source {
                            assert!(!file.name.contains(['/', '\0']) && !file.name.is_empty());
                        }
                    }
                }
                Action::Run(run) => {
                    assert!(!run.argv.iter().any(|word| word.contains('\0')));
                    assert!(run.cwd.starts_with('/'), "{:?}", run.cwd);
                    assert!(run.env.iter().any(|(name, _)| name == "PATH"));
                    let mut names: Vec<&String> = run.env.iter().map(|(name, _)| name).collect();
                    names.sort();
                    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name twice: {names:?}");
                    assert!(!run.env.iter().any(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')));
                    run.mounts.iter().filter_map(|mount| (mount.kind == MountKind::Bind).then_some(&mount.from)).for_each(origin);
                    bytes += run.env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
                }
            }
        }
    }
    assert!(bytes <= 300 << 20, "{} bytes of text make {bytes} bytes of plan", text.len());
}
