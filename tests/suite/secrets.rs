//! What a secret must never be in: a layer, a config, a history, a record, a log, a temporary file.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher as _, Hasher as _},
    process::Stdio,
};

use crate::harness::{Needle, Project, copy_programs, found, need, need_root, need_user, output_of, processes_with, sha256, wait_until};

/// What a build may leave something in.
const LEFT: [&str; 4] = ["store", "tmp", "home", "outputs"];

/// A value that nothing else has.
fn value() -> String {
    let hash = || RandomState::new().build_hasher().finish();
    format!("S3cret_{:016x}{:016x}", hash(), hash())
}

/// A project with a secret in a file and two in variables, all of the same value, and a Dockerfile whose step uses them.
struct Secrets {
    project: Project,
    value: String,
}

const FLAGS: [&str; 6] = ["--secret", "id=file,src=secret", "--secret", "id=VARIABLE", "--secret", "id=other,env=OTHER"];

/// The step's own check that it has them, without their value.
fn uses(value: &str) -> String {
    let is = |what: &str| format!("test $(printf %s \"{what}\" | sha256sum | cut -c 1-64) = {}", sha256(value.as_bytes()));
    format!(
        "RUN --mount=type=secret,id=file --mount=type=secret,id=VARIABLE,env=VARIABLE --mount=type=secret,id=other,env=O,target=/o {} && {} && {} && {}",
        is("$(cat /run/secrets/file)"),
        is("$VARIABLE"),
        is("$O"),
        is("$(cat /o)"),
    )
}

impl Secrets {
    fn new(mut project: Project) -> Self {
        project.load_busybox();
        let value = value();
        fs::write(project.path("secret"), &value).unwrap();
        fs::create_dir(project.path("outputs")).unwrap();
        fs::set_permissions(project.path("outputs"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        project.variable("VARIABLE", &value);
        project.variable("OTHER", &value);
        Self { project, value }
    }

    fn nowhere(&self, said: &str) {
        let needle = Needle::of(self.value.as_bytes());
        let none: Vec<String> = Vec::new();
        assert_eq!(found(&self.project, &LEFT, &needle), none);
        assert!(!said.contains(&self.value), "{said}");
    }

    fn builds_and_leaves_nothing(&self) {
        let Self { project, value } = self;
        project.dockerfile(&format!("FROM busybox\n{} && echo done > /done\n", uses(value)));
        let outputs = ["type=oci,dest=outputs/oci.tar", "type=oci,tar=false,dest=outputs/oci", "type=docker,dest=outputs/docker.tar"];
        let mut args = FLAGS.to_vec();
        args.extend([
            "-t",
            "secret",
            "--metadata-file",
            "outputs/metadata",
            "--iidfile",
            "outputs/iid",
            "-o",
            "type=local,dest=outputs/local",
            "--log-level",
            "trace",
        ]);
        for output in outputs {
            args.extend(["-o", output]);
        }
        let built = project.build(&args).good();
        self.nowhere(&built.all());
        // Its content is in no key: another value is a hit, and so is none.
        fs::write(project.path("secret"), "another").unwrap();
        let again = project.build(&FLAGS).good();
        assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
        fs::write(project.path("secret"), value).unwrap();
    }
}

#[test]
fn a_secret_is_in_nothing_that_a_build_leaves() {
    Secrets::new(Project::new()).builds_and_leaves_nothing();
}

#[test]
fn nor_when_a_user_builds() {
    if !need_root() {
        return;
    }
    let Some(user) = need_user("lapstrake-test") else { return };
    Secrets::new(Project::as_user("lapstrake-test", user)).builds_and_leaves_nothing();
}

/// The search itself: what is put into a layer, a history line, a name and a variable is found, in every form.
#[test]
fn the_search_finds_what_is_there() {
    let secrets = Secrets::new(Project::new());
    let Secrets { project, value } = &secrets;
    let needle = Needle::of(value.as_bytes());
    project.dockerfile("FROM busybox\nARG VALUE\nRUN printf \"xx%s\" $VALUE | base64 > /base64 && echo $VALUE > /plain && touch /$VALUE\n");
    let arg = format!("VALUE={value}");
    let _built = project.build(&["--build-arg", &arg, "-o", "type=oci,dest=outputs/oci.tar", "--no-cache"]).good();
    let places = found(project, &LEFT, &needle);
    let seen = |parts: &[&str]| places.iter().any(|place| parts.iter().all(|part| place.contains(part)));
    for parts in [
        &["store: plain"][..],
        &["store/./blobs/sha256/", "(unpacked): plain"],
        &["store/./blobs/sha256/", "(unpacked): base64 from byte 2"],
        &["outputs/./oci.tar/blobs/sha256/", "(unpacked): plain"],
    ] {
        assert!(seen(parts), "{parts:?} is not in {places:#?}");
    }
}

#[test]
fn a_step_that_fails_with_a_secret_says_nothing_of_it() {
    let secrets = Secrets::new(Project::new());
    for end in ["false", "nosuchcommand", "kill -9 $$"] {
        secrets.project.dockerfile(&format!("FROM busybox\n{} && {end}\n", uses(&secrets.value)));
        let failed = secrets.project.build(&FLAGS).ends_with(3);
        secrets.nowhere(&failed.all());
    }
    // A program that is not there, with a secret among its variables.
    secrets.project.dockerfile("FROM busybox\nRUN --mount=type=secret,id=VARIABLE,env=VARIABLE [\"/no/such\"]\n");
    let failed = secrets.project.build(&FLAGS);
    assert_ne!(failed.code, Some(0));
    secrets.nowhere(&failed.all());
}

/// Killed in the middle of the step, with nothing that cleans up after it.
#[test]
fn a_kill_in_the_middle_leaves_nothing_of_it() {
    let secrets = Secrets::new(Project::new());
    secrets.project.dockerfile(&format!("FROM busybox\n{} && echo half > /half && sleep 967\n", uses(&secrets.value)));
    let mut args = vec!["build", "--progress", "plain"];
    args.extend(FLAGS);
    args.push("ctx");
    let log = fs::File::create(secrets.project.path("outputs/log")).unwrap();
    let mut build = secrets.project.command(args).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    wait_until("the step to run", || (!processes_with("sleep\u{0}967").is_empty()).then_some(()));
    // While it runs it is in memory alone.
    secrets.nowhere("");
    build.kill().unwrap();
    let _status = build.wait().unwrap();
    wait_until("the step to be dead", || processes_with("sleep\u{0}967").is_empty().then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    secrets.nowhere("");
    secrets.project.dockerfile("FROM busybox\nRUN test ! -e /half && test ! -e /run/secrets\n");
    let next = secrets.project.build(&[]).good();
    secrets.nowhere(&next.all());
}

#[test]
fn an_ssh_key_is_in_nothing_that_a_build_leaves() {
    let secrets = Secrets::new(Project::new());
    let project = &secrets.project;
    if copy_programs(&["ssh-add"], &project.context().join("programs")).is_none() {
        return;
    }
    let Some(keygen) = need("ssh-keygen") else { return };
    let key = project.path("key");
    let _made = output_of(std::process::Command::new(keygen).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).good();
    let read = ssh_key::PrivateKey::read_openssh_file(&key).unwrap();
    let needle = Needle::of(&read.key_data().ed25519().unwrap().private.to_bytes());
    let spec = format!("default={}", key.display());
    project.dockerfile("FROM busybox\nCOPY programs /\nRUN --mount=type=ssh ssh-add -T /dev/null; ssh-add -L > /public && echo done\n");
    let first = project.build(&["--ssh", &spec, "-o", "type=oci,dest=outputs/oci.tar"]).good();
    let none: Vec<String> = Vec::new();
    assert_eq!(found(project, &LEFT, &needle), none);
    assert!(!first.all().contains("PRIVATE KEY"));
    project.dockerfile("FROM busybox\nCOPY programs /\nRUN --mount=type=ssh ssh-add -l && sleep 966\n");
    let mut build = project.command(["build", "--ssh", &spec, "ctx"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the step to run", || (!processes_with("sleep\u{0}966").is_empty()).then_some(()));
    assert_eq!(found(project, &LEFT, &needle), none);
    build.kill().unwrap();
    let _status = build.wait().unwrap();
    wait_until("the step to be dead", || processes_with("sleep\u{0}966").is_empty().then_some(()));
    assert_eq!(found(project, &LEFT, &needle), none);
}

#[test]
fn a_secret_has_the_mode_and_owner_that_are_asked_for() {
    let secrets = Secrets::new(Project::new());
    secrets.project.dockerfile(
        "FROM busybox\nENV O=old\nRUN --mount=type=secret,id=file test $(stat -c %a:%u:%g /run/secrets/file) = 400:0:0\nRUN --mount=type=secret,id=file,mode=0440,uid=33,gid=50,target=/etc/s test $(stat -c %a:%u:%g /etc/s) = 440:33:50\nRUN --mount=type=secret,id=other,env=O test $O != old && test $(env | grep -c ^O=) = 1 && test ! -e /run/secrets\nRUN --mount=type=secret,id=absent --mount=type=secret,id=missing,env=M test ! -e /run/secrets && test -z \"${M+set}\"\nRUN --mount=type=secret,id=file grep -q '^Max core file size *1 ' /proc/self/limits\nRUN test ! -e /etc/s && test ! -e /run/secrets\n",
    );
    let built = secrets.project.build(&FLAGS).good();
    secrets.nowhere(&built.all());
}

#[test]
fn a_secret_that_cannot_be_given_is_an_error_at_its_mount() {
    let secrets = Secrets::new(Project::new());
    let project = &secrets.project;
    project.dockerfile("FROM busybox\nRUN --mount=type=secret,id=absent,required true\n");
    let _required = project.build(&FLAGS).ends_with(1).says(&[
        "the secret `absent` is required and was not given",
        "Dockerfile:2:",
        "--secret id=absent,src=FILE",
    ]);
    fs::write(project.path("nul"), b"a\0b").unwrap();
    project.dockerfile("FROM busybox\nRUN --mount=type=secret,id=nul,env=NUL true\n");
    let _nul = project.build(&["--secret", "id=nul,src=nul"]).ends_with(1).says(&["the secret `nul` holds a NUL byte", "Dockerfile:2:"]);
    let _gone =
        project.build(&["--secret", "id=nul,src=gone"]).ends_with(1).says(&["cannot read the secret `nul` from `gone`", "Dockerfile:2:"]);
    fs::write(project.path("large"), vec![b'x'; 500 * 1024 + 1]).unwrap();
    let _large = project.build(&["--secret", "id=nul,src=large"]).ends_with(1).says(&["larger than 512000 bytes", "Dockerfile:2:"]);
    project.dockerfile("FROM busybox\nRUN --mount=type=secret,id=nul,env=A=B true\n");
    let _name = project.build(&["--secret", "id=nul,src=nul"]).ends_with(1).says(&["`A=B` is not the name of a variable", "Dockerfile:2:"]);
}
