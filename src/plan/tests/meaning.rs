//! What instructions mean.

use super::{Shelf, amd64, plan, resolved};
use crate::{
    dockerfile::MountKind,
    oci::{Config, ImageConfig},
    plan::{
        Action, Chmod, Copy, CopySource, Device, InlineFile, Mount, NetworkMode, Origin, Plan, Request, Run, Security, Stage, StageId,
        Start, Step,
    },
    remote::{GitAddress, HttpAddress},
};

fn target(plan: &Plan) -> &Stage {
    &plan.stages[plan.target.0]
}

fn config(text: &str) -> Config {
    target(&plan(text)).config.config.clone()
}

fn history(text: &str) -> Vec<String> {
    target(&plan(text)).steps.iter().map(|step| step.history.clone()).collect()
}

fn runs(plan: &Plan) -> Vec<&Run> {
    target(plan).steps.iter().filter_map(|step| if let Action::Run(run) = &step.action { Some(run) } else { None }).collect()
}

fn copies(plan: &Plan) -> Vec<&Copy> {
    target(plan).steps.iter().filter_map(|step| if let Action::Copy(copy) = &step.action { Some(copy) } else { None }).collect()
}

fn with_args(pairs: &[(&str, &str)]) -> Request {
    let build_args = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Request { build_args, ..amd64() }
}

fn value<'a>(run: &'a Run, name: &str) -> Option<&'a str> {
    run.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[test]
fn scratch_has_a_path_and_a_working_directory() {
    let config = config("FROM scratch\nLABEL a=b\n");
    assert_eq!(config.env.unwrap(), ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    assert_eq!(config.working_dir, "/");
}

#[test]
fn a_stage_imports_global_arguments_by_name() {
    let plan = plan("ARG A=1\nARG B=${A}2\nFROM busybox\nARG B\nRUN x\n");
    let [run] = runs(&plan)[..] else { panic!() };
    assert_eq!((value(run, "A"), value(run, "B")), (None, Some("12")));
    assert_eq!(run.args, ["B"]);
    assert_eq!(target(&plan).steps.last().unwrap().history, "RUN |1 B=12 /bin/sh -c x # buildkit");
}

#[test]
fn of_arg_and_env_the_last_wins() {
    let request = with_args(&[("A", "arg")]);
    let plan = resolved("FROM busybox\nENV A=env\nARG A\nRUN x\nENV A=again\nRUN y\n", &request, &Shelf::new()).unwrap();
    let [first, second] = runs(&plan)[..] else { panic!() };
    assert_eq!((value(first, "A"), value(second, "A")), (Some("arg"), Some("again")));
    assert_eq!((first.args.as_slice(), second.args.len()), (["A".to_owned()].as_slice(), 0));
    assert!(target(&plan).steps.last().unwrap().history.starts_with("RUN |1 A=again "));
}

#[test]
fn an_inherited_stage_hands_on_its_arguments_but_env_wins() {
    let plan = plan("FROM busybox AS a\nENV X=env\nARG X=arg\nARG Y=y\nFROM a\nRUN x\n");
    let [run] = runs(&plan)[..] else { panic!() };
    assert_eq!((value(run, "X"), value(run, "Y")), (Some("env"), Some("y")));
    assert_eq!(target(&plan).steps[0].history, "RUN |2 X=env Y=y /bin/sh -c x # buildkit");
    assert_eq!(target(&plan).start, Start::Stage(StageId(0)));
}

#[test]
fn a_variable_that_is_set_again_moves_to_the_end_for_steps_and_stays_in_the_config() {
    let plan = plan("FROM busybox\nENV A=1 B=2\nENV A=3\nRUN x\n");
    let names: Vec<&str> = runs(&plan)[0].env.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["PATH", "B", "A"]);
    assert_eq!(target(&plan).config.config.env.as_ref().unwrap(), &["PATH=/bin", "A=3", "B=2"]);
}

#[test]
fn the_platform_and_the_target_stage_are_arguments() {
    let text = "FROM busybox AS one\nARG TARGETSTAGE TARGETPLATFORM TARGETVARIANT\nRUN x\nFROM one AS two\nRUN y\n";
    let request = Request { target: Some("ONE".into()), ..amd64() };
    let plan = resolved(text, &request, &Shelf::new()).unwrap();
    let run = runs(&plan)[0];
    assert_eq!((value(run, "TARGETSTAGE"), value(run, "TARGETPLATFORM")), (Some("ONE"), Some("linux/amd64")));
    assert_eq!(value(run, "TARGETVARIANT"), Some(""));
    assert_eq!(target(&plan).name, "one");
}

#[test]
fn proxies_reach_a_step_and_no_history_unless_declared() {
    let request = with_args(&[("http_proxy", "p"), ("NO_PROXY", "n")]);
    let plan = resolved("FROM busybox\nRUN x\nARG NO_PROXY\nRUN y\n", &request, &Shelf::new()).unwrap();
    let [first, second] = runs(&plan)[..] else { panic!() };
    let names = |run: &Run| run.proxy.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(first), ["HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"]);
    assert_eq!(names(second), ["HTTP_PROXY", "http_proxy", "no_proxy"]);
    assert_eq!(target(&plan).steps[0].history, "RUN /bin/sh -c x # buildkit");
    assert!(plan.warnings.is_empty());
}

#[test]
fn a_base_that_nothing_needs_is_never_looked_up() {
    let shelf = Shelf::new();
    resolved("FROM nowhere AS a\nRUN x\nFROM busybox\nRUN y\n", &amd64(), &shelf).unwrap();
    assert_eq!(*shelf.asked.borrow(), ["busybox"]);
}

#[test]
fn a_stage_is_found_by_name_by_number_and_whatever_its_capitals() {
    let text = "FROM busybox AS one\nFROM scratch\nCOPY --from=One /a /b\nCOPY --from=0 /c /d\n";
    let plan = plan(text);
    assert!(copies(&plan).iter().all(|copy| copy.from == Origin::Stage(StageId(0))));
    let number = Request { target: Some("0".into()), ..amd64() };
    assert_eq!(target(&resolved(text, &number, &Shelf::new()).unwrap()).name, "one");
    assert!(resolved("FROM busybox AS UP\nFROM UP\nRUN x\n", &amd64(), &Shelf::new()).is_ok());
}

#[test]
fn an_image_can_be_copied_and_mounted_from() {
    let plan = plan("FROM scratch\nCOPY --from=busybox /a /b\nRUN --mount=from=busybox,target=/m x\nCOPY --from=scratch / /e\n");
    assert!(matches!(&copies(&plan)[0].from, Origin::Image(image) if image.name == "busybox"));
    assert!(matches!(&runs(&plan)[0].mounts[0].from, Origin::Image(image) if image.name == "busybox"));
    assert_eq!(copies(&plan)[1].from, Origin::Scratch);
}

#[test]
fn a_named_context_stands_in_for_a_stage_and_for_an_image() {
    let shelf = Shelf::new().directory("build").with("alpine", Config { user: "ctx".into(), ..Config::default() });
    let request = Request { contexts: vec!["build".into(), "alpine".into()], ..amd64() };
    let text =
        "FROM nowhere AS build\nRUN x\nFROM docker.io/library/alpine:latest\nCOPY --from=build /a /b\nRUN --mount=from=build,target=/m y\n";
    let plan = resolved(text, &request, &shelf).unwrap();
    assert_eq!(plan.stages.len(), 1);
    assert_eq!(copies(&plan)[0].from, Origin::Named("build".into()));
    assert_eq!(runs(&plan)[0].mounts[0].from, Origin::Named("build".into()));
    assert_eq!(target(&plan).config.config.user, "ctx");
}

#[test]
fn from_a_directory_is_a_copy_of_it() {
    let shelf = Shelf::new().directory("files");
    let request = Request { contexts: vec!["files".into()], ..amd64() };
    let plan = resolved("FROM files\nENV A=b\n", &request, &shelf).unwrap();
    assert_eq!(target(&plan).start, Start::Scratch);
    assert_eq!(copies(&plan)[0].from, Origin::Named("files".into()));
    assert_eq!(copies(&plan)[0].dest, "/");
}

fn with_triggers(triggers: &[&str]) -> Shelf {
    let on_build = Some(triggers.iter().map(|trigger| (*trigger).to_owned()).collect());
    Shelf::new().with("trigger", Config { on_build, ..Config::default() })
}

#[test]
fn triggers_run_after_from_and_are_gone() {
    let shelf = with_triggers(&["ENV A=b", "COPY --from=src /x /y", "RUN <<EOF\necho $A\nEOF"]);
    let plan = resolved("FROM busybox AS src\nFROM trigger AS mid\nRUN own\nFROM mid\n", &amd64(), &shelf).unwrap();
    let mid = &plan.stages[1];
    let lines: Vec<&str> = mid.steps.iter().map(|step| step.history.as_str()).collect();
    assert_eq!(lines, ["ENV A=b", "COPY /x /y # buildkit", "RUN /bin/sh -c echo $A\n # buildkit", "RUN /bin/sh -c own # buildkit"]);
    assert!(mid.steps[..3].iter().all(|step| step.span == mid.span && step.shown.starts_with("ONBUILD ")));
    assert_eq!(mid.config.config.on_build, None);
    assert!(target(&plan).steps.is_empty());
}

#[test]
fn a_stages_own_triggers_run_in_its_children_only() {
    let plan = plan("FROM busybox AS a\nONBUILD ENV T=1\nFROM a AS b\nFROM b\nRUN x\n");
    let lines = |index: usize| plan.stages[index].steps.iter().map(|step| step.history.clone()).collect::<Vec<_>>();
    assert_eq!((lines(0).len(), lines(1), lines(2)), (0, vec!["ENV T=1".to_owned()], vec!["RUN /bin/sh -c x # buildkit".to_owned()]));
    assert_eq!(plan.stages[0].config.config.on_build.as_deref(), Some(["ENV T=1".to_owned()].as_slice()));
    assert_eq!(target(&plan).config.config.on_build, None);
}

#[test]
fn entrypoint_clears_a_command_that_was_inherited() {
    let base = Config { cmd: Some(vec!["old".into()]), ..Config::default() };
    let shelf = Shelf::new().with("base", base);
    let cmd = |text: &str| target(&resolved(text, &amd64(), &shelf).unwrap()).config.config.cmd.clone();
    assert_eq!(cmd("FROM base\nENTRYPOINT [\"e\"]\n"), None);
    assert_eq!(cmd("FROM base\nCMD [\"new\"]\nENTRYPOINT [\"e\"]\n"), Some(vec!["new".into()]));
    assert_eq!(cmd("FROM base\nUSER u\n"), Some(vec!["old".into()]));
}

#[test]
fn the_shell_holds_for_run_cmd_and_entrypoint() {
    let text = "FROM busybox\nSHELL [\"/bin/bash\", \"-c\"]\nRUN a  b\nCMD c\nENTRYPOINT d\n";
    let plan = plan(text);
    assert_eq!(runs(&plan)[0].argv, ["/bin/bash", "-c", "a  b"]);
    let config = &target(&plan).config.config;
    assert_eq!(config.cmd.as_deref().unwrap(), ["/bin/bash", "-c", "c"]);
    assert_eq!(config.entrypoint.as_deref().unwrap(), ["/bin/bash", "-c", "d"]);
    assert!(config.args_escaped);
}

#[test]
fn what_the_base_has_and_nobody_knows_is_kept() {
    let mut shelf = Shelf::new();
    let text = r#"{"architecture":"arm64","os":"linux","x.unknown":1,"created":"then","rootfs":{"type":"layers","diff_ids":[]},
        "config":{"Labels":{"a":"1"},"Unknown":[2],"Volumes":{"/v":{}},"WorkingDir":"app"}}"#;
    shelf.images.insert("base".into(), serde_json::from_str::<ImageConfig>(text).unwrap());
    let request = Request { labels: [("a".to_owned(), "2".to_owned())].into(), platform: None, ..Request::default() };
    let plan = resolved("FROM base\nLABEL a=x b=y\nVOLUME /w\n", &request, &shelf).unwrap();
    let image = &target(&plan).config;
    assert_eq!((image.created.as_ref(), image.architecture.as_str()), (None, "arm64"));
    assert_eq!(image.other["x.unknown"], 1);
    assert_eq!(image.config.other["Unknown"], serde_json::json!([2]));
    assert_eq!(image.config.labels.as_ref().unwrap()["a"], "2");
    assert_eq!(image.config.volumes.as_ref().unwrap().keys().collect::<Vec<_>>(), ["/v", "/w"]);
    assert_eq!(image.config.working_dir, "/app");
}

#[test]
fn a_working_directory_is_made_but_for_the_root() {
    let plan = plan("FROM busybox\nUSER u\nWORKDIR /a/\nWORKDIR b/../c\nWORKDIR /\n");
    let steps: Vec<&Step> = target(&plan).steps.iter().skip(1).collect();
    let lines: Vec<&str> = steps.iter().map(|step| step.history.as_str()).collect();
    assert_eq!(lines, ["WORKDIR /a/", "WORKDIR /a/c", "WORKDIR /"]);
    assert_eq!(steps[0].action, Action::Workdir { path: "/a".into(), user: "u".into() });
    assert_eq!(steps[2].action, Action::Metadata);
}

#[test]
fn metadata_writes_history_as_buildkit_does() {
    let text = "FROM busybox\nEXPOSE 80 443-444/UDP\nSTOPSIGNAL SIGTERM\nHEALTHCHECK --interval=1m30s CMD x\nMAINTAINER me\nCMD [\"a\", \"b\\\"c\"]\nVOLUME /a /b\n";
    assert_eq!(
        history(text),
        [
            "EXPOSE [443/udp 444/udp 80/tcp]",
            "STOPSIGNAL SIGTERM",
            "HEALTHCHECK {Test:[CMD-SHELL x] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
            "MAINTAINER me",
            "CMD [\"a\" \"b\\\"c\"]",
            "VOLUME [/a /b]",
        ]
    );
    assert_eq!(config(text).exposed_ports.unwrap().keys().collect::<Vec<_>>(), ["443/udp", "444/udp", "80/tcp"]);
}

#[test]
fn a_copy_is_resolved_against_the_working_directory() {
    let plan = plan("FROM busybox\nENV D=dir U=u\nWORKDIR /w\nCOPY --chown=$U:g --chmod=0640 --exclude=*.o a ../b $D/\nCOPY --link x .\n");
    let [first, second] = copies(&plan)[..] else { panic!() };
    assert_eq!(first.sources, [CopySource::Path("/a".into()), CopySource::Path("/b".into())]);
    assert_eq!((first.dest.as_str(), first.chown.as_deref()), ("/w/dir/", Some("u:g")));
    assert_eq!((first.chmod.as_ref(), first.exclude.as_slice()), (Some(&Chmod::Octal(0o640)), ["*.o".to_owned()].as_slice()));
    assert_eq!((second.dest.as_str(), second.link), ("/w/", true));
    let lines: Vec<&str> = target(&plan).steps.iter().map(|step| step.history.as_str()).collect();
    assert_eq!(lines[2..], ["COPY --chown=u:g --chmod=0640 a ../b dir/ # buildkit", "COPY x . # buildkit"]);
}

#[test]
fn heredocs_of_copy_are_files() {
    let plan = plan("FROM busybox\nENV A=v\nCOPY <<one <<-'two' f /d/\n\"$A\"\none\n\t$A\ntwo\n");
    let [copy] = copies(&plan)[..] else { panic!() };
    let file = |name: &str, data: &str| CopySource::Inline(InlineFile { name: name.into(), data: data.into() });
    assert_eq!(copy.sources, [CopySource::Path("/f".into()), file("one", "\"v\"\n"), file("two", "$A\n")]);
    assert_eq!(target(&plan).steps[1].history, "COPY f <<one <<two /d/ # buildkit");
}

#[test]
fn heredocs_of_run_are_scripts_or_files() {
    let plan = plan("FROM busybox\nRUN <<EOF\na $A\nEOF\nRUN <<-X\n\t#!/bin/y\n\tz\nX\nRUN cat <<A <<B\n1\nA\n2\nB\n");
    let [script, file, several] = runs(&plan)[..] else { panic!() };
    assert_eq!(script.argv[2], "a $A\n");
    assert_eq!(file.argv[2], "/dev/pipes/X");
    assert_eq!(file.files, [InlineFile { name: "/dev/pipes/X".into(), data: "#!/bin/y\nz\n".into() }]);
    assert_eq!(several.argv[2], "cat <<A <<B\n1\nA\n2\nB");
    assert_eq!(target(&plan).steps[0].shown, "RUN <<EOF (a $A)");
}

fn mount(text: &str) -> Mount {
    let plan = plan(&format!("FROM busybox AS s\nFROM busybox\nENV M=/m\nWORKDIR /w\nRUN --mount={text} x\n"));
    let [run] = runs(&plan)[..] else { panic!() };
    run.mounts[0].clone()
}

#[test]
fn mounts_have_their_defaults() {
    let bind = mount("from=s,source=a/../b,target=$M");
    assert_eq!((bind.source.as_str(), bind.target.as_str(), bind.readonly), ("/b", "/m", true));
    assert_eq!(bind.from, Origin::Stage(StageId(0)));
    let context = mount("type=bind,target=rel");
    assert_eq!((context.from, context.target.as_str()), (Origin::Context, "/w/rel"));
    let cache = mount("type=cache,target=$M/x/");
    assert_eq!((cache.id.as_str(), cache.target.as_str(), cache.from, cache.readonly), ("/m/x", "/m/x", Origin::Scratch, false));
    let secret = mount("type=secret,id=a/k");
    assert_eq!((secret.id.as_str(), secret.target.as_str()), ("a/k", "/run/secrets/k"));
    let variable = mount("type=secret,id=k,env=K");
    assert_eq!((variable.env.as_deref(), variable.target.as_str()), (Some("K"), ""));
    let both = mount("type=secret,target=/f/k,env=K,required=true");
    assert_eq!((both.id.as_str(), both.target.as_str(), both.required), ("k", "/f/k", true));
    let tmpfs = mount("type=tmpfs,target=/t,size=1m");
    assert_eq!((tmpfs.kind, tmpfs.size), (MountKind::Tmpfs, Some(1 << 20)));
}

#[test]
fn an_ssh_mount_is_told_of_in_the_environment() {
    let plan = plan("FROM busybox\nRUN --mount=type=ssh --mount=type=ssh,id=two x\n");
    let [run] = runs(&plan)[..] else { panic!() };
    let sockets: Vec<(&str, &str)> = run.mounts.iter().map(|mount| (mount.id.as_str(), mount.target.as_str())).collect();
    assert_eq!(sockets, [("default", "/run/buildkit/ssh_agent.0"), ("two", "/run/buildkit/ssh_agent.1")]);
    assert_eq!(value(run, "SSH_AUTH_SOCK"), Some("/run/buildkit/ssh_agent.0"));
}

#[test]
fn network_security_and_devices_are_values() {
    let request = Request { network: NetworkMode::None, ..amd64() };
    let text = "FROM busybox\nRUN a\nRUN --network=host --security=insecure --device=vendor.com/x=0,required b\n";
    let plan = resolved(text, &request, &Shelf::new()).unwrap();
    let [first, second] = runs(&plan)[..] else { panic!() };
    assert_eq!((first.network, first.security, first.devices.len()), (NetworkMode::None, Security::Sandbox, 0));
    assert_eq!((second.network, second.security), (NetworkMode::Host, Security::Insecure));
    assert_eq!(second.devices, [Device { name: "vendor.com/x=0".into(), required: true }]);
}

#[test]
fn add_tells_what_is_fetched_and_how() {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let text = format!(
        "FROM busybox\nADD --checksum={digest} https://h/f /d\nADD --keep-git-dir https://h/r.git#v1 /e\nADD --unpack=false a.tar /f\n"
    );
    let plan = plan(&text);
    let [http, git, local] = copies(&plan)[..] else { panic!() };
    assert_eq!(http.sources, [CopySource::Http { url: HttpAddress::new("https://h/f"), checksum: Some(digest.parse().unwrap()) }]);
    let address = GitAddress::parse("https://h/r.git?keep-git-dir=1#v1").unwrap().unwrap();
    assert_eq!(git.sources, [CopySource::Git(address)]);
    assert_eq!((local.add, local.unpack), (true, Some(false)));
}

#[test]
fn the_label_and_platform_of_the_request_are_the_results() {
    let request = Request {
        platform: Some("linux/arm/v7".parse().unwrap()),
        labels: [("l".to_owned(), "v".to_owned())].into(),
        ..Request::default()
    };
    let plan = resolved("FROM busybox AS a\nFROM a\n", &request, &Shelf::new()).unwrap();
    let image = &target(&plan).config;
    assert_eq!((image.architecture.as_str(), image.variant.as_deref()), ("arm", Some("v7")));
    assert_eq!(image.config.labels.as_ref().unwrap()["l"], "v");
    assert_eq!(plan.stages[0].config.config.labels, None);
}
