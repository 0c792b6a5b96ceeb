//! The image config.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DiffId, null};

/// An image's config blob.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// MAINTAINER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Go's name of the processor.
    pub architecture: String,
    /// `linux`
    pub os: String,
    /// `v7`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What a runtime uses.
    #[serde(default, deserialize_with = "null::is_empty")]
    pub config: Config,
    /// The layers.
    #[serde(default, deserialize_with = "null::is_empty")]
    pub rootfs: RootFs,
    /// One item for each instruction.
    #[serde(default, deserialize_with = "null::is_empty")]
    pub history: Vec<History>,
    /// Fields that we do not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Base first.
    #[serde(default, deserialize_with = "null::is_empty")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".into(), diff_ids: Vec::new() }
    }
}

/// One line of `docker history`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction, as users grep for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// MAINTAINER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// `buildkit.dockerfile.v0`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// No layer belongs to it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub empty_layer: bool,
    /// Fields that we do not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// What a runtime uses.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// USER
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null::is_empty")]
    pub user: String,
    /// EXPOSE, a set: `80/tcp` → `{}`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Value>>,
    /// ENV, `K=V` in order
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// ENTRYPOINT
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// CMD
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// HEALTHCHECK
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Health>,
    /// CMD was in the shell form (Docker writes it for every CMD)
    #[serde(default, skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// VOLUME, a set
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Value>>,
    /// WORKDIR
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null::is_empty")]
    pub working_dir: String,
    /// ONBUILD
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// LABEL
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// STOPSIGNAL
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null::is_empty")]
    pub stop_signal: String,
    /// SHELL
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Fields that we do not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// HEALTHCHECK; durations in nanoseconds, 0 is the default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", text]`
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Of one check.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Before failures count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks in the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Docker and others write it: fields of Docker's own, empty ones, null, and some that nobody knows.
    const DOCKER: &str = r#"{
        "architecture": "amd64", "os": "linux", "created": "2023-11-14T22:13:20.123456789Z", "author": "me",
        "container": "abc", "docker_version": "20.10.24", "os.version": "10", "moby.buildkit.buildinfo.v1": {"a": [1, 2.5, null]},
        "config": {
            "Hostname": "", "AttachStdin": false, "User": "1000:33", "ExposedPorts": {"80/tcp": {}}, "Env": ["A=1", "B=2", "A=3"],
            "Cmd": null, "Entrypoint": ["/bin/x"], "ArgsEscaped": true, "Volumes": {"/v": {}}, "WorkingDir": "/w", "OnBuild": ["RUN x"],
            "Labels": {"b": "2", "a": "1"}, "StopSignal": "SIGKILL", "Shell": ["/bin/bash", "-c"],
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 30000000000, "StartInterval": 5000000000, "Retries": 3}
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:0000000000000000000000000000000000000000000000000000000000000000"]},
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "x", "extra": 1}, {"empty_layer": true}]
    }"#;

    fn read(text: &str) -> ImageConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_config_of_docker_loses_nothing_but_empty_fields() {
        let config = read(DOCKER);
        let mut written = serde_json::to_value(&config).unwrap();
        let mut expected: Value = serde_json::from_str(DOCKER).unwrap();
        let _null = expected["config"].as_object_mut().unwrap().remove("Cmd");
        assert_eq!(written, expected);
        assert_eq!(config.config.healthcheck.as_ref().map(|health| (health.interval, health.retries)), Some((30_000_000_000, 3)));
        assert_eq!(config.config.other["Hostname"], "");
        written["config"]["Cmd"] = Value::Null;
        assert_eq!(read(&written.to_string()), config);
    }

    #[test]
    fn equal_configs_have_equal_bytes() {
        let text = |config: &ImageConfig| serde_json::to_string(config).unwrap();
        let first = text(&read(DOCKER));
        assert!((0..20).all(|_| text(&read(DOCKER)) == first));
        // Sorted, whatever order they came in.
        assert!(first.contains(r#""Labels":{"a":"1","b":"2"}"#));
        assert!(first.contains(r#""Env":["A=1","B=2","A=3"]"#));
    }

    #[test]
    fn an_empty_config_is_what_runtimes_expect() {
        let text = serde_json::to_string(&ImageConfig::default()).unwrap();
        assert_eq!(text, r#"{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#);
    }

    #[test]
    fn null_is_empty_wherever_go_may_write_it() {
        let config = read(
            r#"{"architecture":"amd64","os":"linux","config":{"User":null,"WorkingDir":null,"StopSignal":null,
                "Healthcheck":{"Test":null}},"rootfs":null,"history":null}"#,
        );
        assert_eq!(config.rootfs, RootFs::default());
        assert_eq!(config.config, Config { healthcheck: Some(Health::default()), ..Config::default() });
    }

    #[test]
    fn types_that_are_wrong_are_errors() {
        for text in [
            "{}",
            r#"{"architecture":1,"os":"linux"}"#,
            r#"{"architecture":"a","os":"l","config":{"Env":"A=1"}}"#,
            r#"{"architecture":"a","os":"l","rootfs":{"type":"layers","diff_ids":["sha256:0"]}}"#,
            r#"{"architecture":"a","architecture":"b","os":"l"}"#,
        ] {
            assert!(serde_json::from_str::<ImageConfig>(text).is_err(), "{text}");
        }
    }
}
