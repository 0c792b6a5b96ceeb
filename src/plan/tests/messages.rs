//! What is said when a Dockerfile means nothing: the words are part of the product.

use super::{Shelf, amd64, message, messages, resolved};
use crate::{
    error::Kind,
    oci::Config,
    plan::{Action, Request},
};

fn said(text: &str) -> Vec<String> {
    messages(text, &amd64(), &Shelf::new())
}

#[test]
fn a_stage_that_is_misspelt_is_suggested() {
    insta::assert_debug_snapshot!(said(
        "FROM busybox AS build\nFROM busyboxx AS b\nFROM scratch\nCOPY --from=biuld /a /b\nRUN --mount=from=bild,target=/m x\nCOPY --from=b /a /b\n"
    ));
}

#[test]
fn a_registry_that_cannot_be_asked_hides_no_misspelling() {
    let shelf = Shelf { offline: true, ..Shelf::new() };
    let text = "FROM busybox AS build\nFROM nowhere\nCOPY --from=biuld /a /b\nCOPY --from=elsewhere /a /b\n";
    insta::assert_debug_snapshot!(messages(text, &amd64(), &shelf));
    assert_eq!(resolved(text, &amd64(), &shelf).unwrap_err().kind, Kind::Remote);
    let typo = "FROM scratch AS build\nFROM scratch\nCOPY --from=biuld /a /b\n";
    assert_eq!(resolved(typo, &amd64(), &shelf).unwrap_err().kind, Kind::Request);
}

#[test]
fn the_target_is_looked_for_among_the_stages() {
    let text = "FROM busybox AS build\nFROM busybox AS test\n";
    let target = |name: &str| messages(text, &Request { target: Some(name.into()), ..amd64() }, &Shelf::new());
    insta::assert_debug_snapshot!([target("biuld"), target("zzz"), target("2")]);
}

#[test]
fn a_file_without_a_stage_has_no_target_either() {
    let text = "ARG A=1\n";
    let none = said(text);
    assert!(none.iter().any(|said| said.contains("no stage to build")), "{none:?}");
    assert_eq!(messages(text, &Request { target: Some("b".into()), ..amd64() }, &Shelf::new()), none);
}

#[test]
fn a_blank_base_says_what_is_not_set() {
    insta::assert_debug_snapshot!([
        said("FROM $BASE\n"),
        said("ARG BASE\nFROM ${BASE}\n"),
        said("ARG VERSION=1\nFROM $VERSIN\n"),
        said("FROM --platform=$TARGETPLATFROM busybox\n"),
        said("FROM --platform=a/b/c/d busybox\n"),
    ]);
}

#[test]
fn references_to_stages_are_checked_in_all_stages() {
    insta::assert_debug_snapshot!([
        said("FROM busybox AS a\nCOPY --from=a /x /y\n"),
        said("FROM busybox AS a\nCOPY --from=b /x /y\nFROM busybox AS b\nFROM a\n"),
        said("FROM busybox AS a\nCOPY --from=b /x /y\nFROM busybox AS b\nCOPY --from=a /x /y\nFROM busybox\n"),
        said("FROM busybox\nCOPY --from=7 /x /y\nCOPY --from=-1 /x /y\n"),
        said("ARG S=a\nFROM busybox AS a\nFROM busybox\nCOPY --from=$S /x /y\n"),
        said("FROM busybox AS a\nFROM busybox\nRUN --mount=from=0,target=/m x\n"),
        said("FROM BAD AS build\nCOPY --from=Biuld /x /y\nFROM busybox\n"),
    ]);
}

#[test]
fn a_later_stage_that_is_not_needed_may_be_named() {
    let text = "FROM busybox AS a\nCOPY --from=b /x /y\nFROM busybox AS b\nFROM busybox\n";
    assert!(resolved(text, &amd64(), &Shelf::new()).is_ok());
}

#[test]
fn all_errors_are_told_in_order() {
    insta::assert_debug_snapshot!(said(
        "FROM busybox\nVOLUME [\"/w\",\"$B\"]\nSTOPSIGNAL SIGTREM\nEXPOSE 80/http 99999\nENV A=\"${X:?no x}\"\nCOPY --chmod=888 --chown=${Y?} a b\nRUN --mount=type=cache,target=/ x\nUSER ${Z:?}\n"
    ));
}

#[test]
fn flags_of_copy_and_add_are_checked() {
    insta::assert_debug_snapshot!(said(
        "FROM busybox\nCOPY --chmod=u=q a b\nCOPY --chmod=10000 a b\nCOPY https://h/f /x\nADD --checksum=sha256:12 https://h/f /x\nADD --checksum=abc a /x\nADD https://h/r.git?ref=a&ref=b /x\nADD --keep-git-dir https://h/r.git?keep-git-dir=false /x\nCOPY <<a/b /x\ny\na/b\n"
    ));
}

#[test]
fn mounts_are_checked() {
    insta::assert_debug_snapshot!(said(
        "FROM busybox\nWORKDIR /\nRUN --mount=target=. x\nRUN --mount=type=ssh,source=a x\nRUN --mount=type=tmpfs,target=/t,size=-1 x\n"
    ));
}

#[test]
fn a_trigger_that_cannot_run_names_its_image() {
    let triggers = ["FROM x", "COPY --from=nope /a /b", "NOPE", "VOLUME $EMPTY", ""];
    let on_build = Some(triggers.map(str::to_owned).to_vec());
    let shelf = Shelf::new().with("trigger", Config { on_build, ..Config::default() });
    insta::assert_debug_snapshot!(messages("FROM busybox AS src\nFROM trigger\nRUN x\n", &amd64(), &shelf));
}

#[test]
fn another_front_end_is_refused_by_name() {
    let override_it = Request { build_args: [("BUILDKIT_SYNTAX".to_owned(), "x/y".to_owned())].into(), ..amd64() };
    insta::assert_debug_snapshot!([
        said("# syntax=ghcr.io/x/y:1\nFROM busybox\n"),
        messages("# syntax=docker/dockerfile:1\nFROM busybox\n", &override_it, &Shelf::new()),
    ]);
}

#[test]
fn unused_arguments_and_a_newer_front_end_are_warnings() {
    let build_args = [("VERSOIN", "1"), ("http_proxy", "p"), ("BUILDKIT_INLINE_CACHE", "1"), ("USED", "1")];
    let build_args = build_args.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let text = "# syntax=docker/dockerfile:1.99\nFROM busybox AS a\nARG USED\nFROM busybox\nARG VERSION\n";
    let plan = resolved(text, &Request { build_args, ..amd64() }, &Shelf::new()).unwrap();
    insta::assert_debug_snapshot!(plan.warnings.iter().map(|warning| message(text, warning)).collect::<Vec<_>>());
}

#[test]
fn a_nul_byte_reaches_no_process() {
    let request = Request { build_args: [("A".to_owned(), "a\0b".to_owned())].into(), ..amd64() };
    insta::assert_debug_snapshot!(messages("FROM busybox\nARG A\nRUN x\n", &request, &Shelf::new()));
}

#[test]
fn no_variable_has_a_nul_byte_in_its_name() {
    let told = messages("FROM busybox\nENV A\0B c\nRUN x\n", &amd64(), &Shelf::new());
    assert!(told.len() == 1 && told[0].starts_with("no process can be given a NUL byte"), "{told:?}");
}

#[test]
fn no_directory_has_a_nul_byte_in_its_name() {
    let told = messages("FROM busybox\nWORKDIR a\0b\n", &amd64(), &Shelf::new());
    assert_eq!(
        told,
        [
            "a directory's name cannot hold a NUL byte | \"a\\0b\" its value holds one | help: look for it in the values of `--build-arg` and ENV"
        ]
    );
}

#[test]
fn an_epoch_is_a_number_or_a_name() {
    let given = |epoch: &str| Request { build_args: [("SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned())].into(), ..amd64() };
    insta::assert_debug_snapshot!([
        said("ARG SOURCE_DATE_EPOCH=soon\nFROM busybox\n"),
        messages("FROM busybox\n", &given("soon"), &Shelf::new()),
    ]);
    let epoch = |text: &str, request: &Request| resolved(text, request, &Shelf::new()).unwrap().epoch;
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=5\nFROM busybox\n", &amd64()), Some(5));
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=5\nFROM busybox\n", &given("")), None);
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=5\nFROM busybox\n", &given("-7")), Some(-7));
    assert_eq!(epoch("FROM busybox\n", &given("context")), None, "a directory has no time");
}

#[test]
fn an_epoch_by_name_is_the_time_of_what_has_the_name() {
    let given = |epoch: &str| Request {
        build_args: [("SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned()), ("HOST".to_owned(), "h".to_owned())].into(),
        contexts: vec!["far".to_owned()],
        ..amd64()
    };
    let shelf = || Shelf::new().dated("context", 1).dated("far", 2).dated("https://h/f", 3).dated("https://h/r.git", 4);
    let text = "ARG HOST\nFROM scratch AS Web\nADD https://$HOST/f /\nFROM scratch AS git\nARG P=r.git\nADD https://h/$P /\nFROM busybox AS far\nFROM busybox\nARG SOURCE_DATE_EPOCH\nRUN x\n";
    for (name, time) in [("context", 1), ("far", 2), ("web", 3), ("GIT", 4)] {
        let plan = resolved(text, &given(name), &shelf()).unwrap();
        assert_eq!(plan.epoch, Some(time), "{name}");
        let Some(Action::Run(run)) = plan.stages.last().and_then(|stage| stage.steps.last()).map(|step| &step.action) else { panic!() };
        let seen = run.env.iter().find(|(key, _)| key == "SOURCE_DATE_EPOCH").map(|(_, value)| value.as_str());
        assert_eq!(seen, Some(time.to_string().as_str()), "an ARG sees the number");
    }
    let global = format!("ARG SOURCE_DATE_EPOCH=web\n{text}");
    let request = Request { build_args: [("HOST".to_owned(), "h".to_owned())].into(), ..amd64() };
    assert_eq!(resolved(&global, &request, &shelf()).unwrap().epoch, Some(3));
    let stages = [
        "FROM busybox AS s\n",
        "FROM scratch AS s\nADD f /\n",
        "FROM scratch AS s\nADD https://h/f https://h/g /\n",
        "FROM scratch AS s\nRUN x\n",
        "FROM scratch AS s\n",
    ];
    let wrong: Vec<String> = stages.iter().flat_map(|text| messages(&format!("{text}FROM busybox\n"), &given("s"), &shelf())).collect();
    insta::assert_debug_snapshot!(wrong);
}

#[test]
fn values_that_double_are_stopped() {
    let doubling = "ENV A=$A$A$A$A$A$A$A$A\n".repeat(20);
    let many = format!("ENV B={}\n{}", "x".repeat(60_000), "RUN x\n".repeat(10_000));
    let names = format!("ARG A={}\n{}", "x".repeat(60_000), "FROM $A\n".repeat(300));
    assert_eq!(messages(&names, &amd64(), &Shelf::new()).len(), 100);
    for text in [format!("FROM scratch\nENV A=xxxxxxxxxxxxxxxx\n{doubling}"), format!("FROM scratch\n{many}")] {
        let said = messages(&text, &amd64(), &Shelf::new());
        assert!((1..=100).contains(&said.len()) && said[0].len() < 200, "{}", said[0]);
    }
    let ports = format!("FROM scratch\n{}", "EXPOSE 0-65535\n".repeat(100));
    assert!(messages(&ports, &amd64(), &Shelf::new())[0].contains("more ports than there are"));
}
