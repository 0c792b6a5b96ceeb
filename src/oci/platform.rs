//! `os/arch[/variant]`.
//!
//! A parsed [`Platform`] is in its normal form; one that came as JSON from an image is as it was written, and
//! [`Platform::preference`] normalises both sides before it compares.
//!
//! Source: containerd/platforms `platforms.go`, `database.go`, `compare.go` (its `Only`).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`, `arm64`: Go's names.
    pub architecture: String,
    /// `v7`; empty if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Windows.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "super::null::is_empty")]
    pub os_features: Vec<String>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform of the form os/arch[/variant]")]
pub struct BadPlatform {
    /// The text, cut to a readable length.
    pub text: String,
}

/// Operating systems that may stand alone, as Go knows them.
const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

/// Processors that may stand alone, as Go knows them.
const ARCHITECTURES: [&str; 24] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// The platform this program was built for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "x86" => ("386", None),
            "arm" => ("arm", Some("v7")),
            other => (other, None),
        };
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.map(str::to_owned),
            os_version: None,
            os_features: Vec::new(),
        }
    }

    /// The same under Go's names: `x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let os = match self.os.to_ascii_lowercase() {
            os if os == "macos" => "darwin".to_owned(),
            os => os,
        };
        let (architecture, variant) = normal_architecture(&self.architecture, self.variant.as_deref().unwrap_or(""));
        Self { os, architecture, variant: Some(variant).filter(|variant| !variant.is_empty()), ..self.clone() }
    }

    /// Can what was made for `offered` run where `self` is asked for? As containerd decides: `arm/v7` also takes
    /// `arm/v6` and `arm/v5`, `arm64` takes `arm`, `amd64/v3` takes `amd64/v2`, `amd64` takes `386`.
    pub fn matches(&self, offered: &Self) -> bool {
        self.preference(offered).is_some()
    }

    /// How good a match `offered` is: 0 is the platform itself, larger is worse, `None` does not match.
    pub fn preference(&self, offered: &Self) -> Option<usize> {
        let (wanted, offered) = (self.normalized(), offered.normalized());
        let version = |platform: &Self| platform.os_version.clone().filter(|version| !version.is_empty());
        if wanted.os != offered.os || version(&wanted).is_some_and(|wanted| version(&offered) != Some(wanted)) {
            return None;
        }
        let has = |architecture: &str, variant: &str| {
            let (architecture, variant) = normal_architecture(architecture, variant);
            offered.architecture == architecture && offered.variant.as_deref().unwrap_or("") == variant
        };
        let candidates = candidates(&wanted.architecture, wanted.variant.as_deref().unwrap_or(""));
        // A variant that nobody knows is still itself.
        let same = wanted.architecture == offered.architecture && wanted.variant == offered.variant;
        candidates.iter().position(|(architecture, variant)| has(architecture, variant)).or(same.then_some(0))
    }
}

/// What may stand in for a processor, best first.
fn candidates<'a>(architecture: &'a str, variant: &str) -> Vec<(&'a str, String)> {
    let number = |text: &str| text.strip_prefix('v').and_then(|digits| digits.parse::<u32>().ok()).filter(|number| *number < 100);
    let arms = |from: u32| (5..=from).rev().map(|version| ("arm", format!("v{version}")));
    match architecture {
        "amd64" => {
            let levels = (1..=number(variant).unwrap_or(1)).rev().map(|level| ("amd64", format!("v{level}")));
            levels.chain([("386", String::new())]).collect()
        }
        "arm" => arms(number(variant).unwrap_or(5)).collect(),
        "arm64" => {
            let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
            let (major, minor) = (number(major).unwrap_or(8), minor.parse::<u32>().unwrap_or(0).min(20));
            // ARMv9.x is ARMv8.(x+5) and more.
            let (nines, eights) = if major >= 9 { (Some(minor), minor + 5) } else { (None, minor) };
            let named = |major: u32, minor: u32| ("arm64", if minor == 0 { format!("v{major}") } else { format!("v{major}.{minor}") });
            let nines = nines.into_iter().flat_map(|minor| (0..=minor).rev()).map(|minor| named(9, minor));
            nines.chain((0..=eights).rev().map(|minor| named(8, minor))).chain(arms(8)).collect()
        }
        other => vec![(other, variant.to_owned())],
    }
}

fn normal_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", other) => ("arm64", other),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = BadPlatform;

    /// `os[(version)]/arch[/variant]`, an `os` alone (with this machine's processor), or an `arch` alone (Linux); normalised.
    fn from_str(text: &str) -> Result<Self, BadPlatform> {
        let bad = || BadPlatform { text: text.chars().take(100).collect() };
        let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        let (first, rest) = parts.split_first().ok_or_else(bad)?;
        let (system, version) = match first.split_once('(') {
            Some((system, version)) => (system, Some(version.strip_suffix(')').ok_or_else(bad)?)),
            None => (*first, None),
        };
        let dotted = |version: &str| version.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if !word(system) || !rest.iter().all(|part| word(part)) || version.is_some_and(|version| !dotted(version)) {
            return Err(bad());
        }
        let made = |os: &str, architecture: &str, variant: Option<&str>| Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            os_version: version.filter(|version| !version.is_empty()).map(str::to_owned),
            os_features: Vec::new(),
        };
        match rest {
            [] => {
                let (as_system, as_processor) = (made(system, "", None).normalized(), made("linux", system, None).normalized());
                if SYSTEMS.contains(&as_system.os.as_str()) {
                    let host = Self::host();
                    return Ok(Self { os: as_system.os, os_version: as_system.os_version, ..host });
                }
                let known = version.is_none() && ARCHITECTURES.contains(&as_processor.architecture.as_str());
                if known { Ok(as_processor) } else { Err(bad()) }
            }
            [architecture] => Ok(made(system, architecture, None).normalized()),
            [architecture, variant] => Ok(made(system, architecture, Some(variant)).normalized()),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[rstest]
    #[case("linux/amd64", "linux/amd64")]
    #[case("Linux/AMD64", "linux/amd64")]
    #[case("linux/x86_64", "linux/amd64")]
    #[case("linux/x86-64", "linux/amd64")]
    #[case("linux/amd64/v1", "linux/amd64")]
    #[case("linux/amd64/v3", "linux/amd64/v3")]
    #[case("linux/i386", "linux/386")]
    #[case("linux/aarch64", "linux/arm64")]
    #[case("linux/arm64/v8", "linux/arm64")]
    #[case("linux/arm64/8", "linux/arm64")]
    #[case("linux/arm", "linux/arm/v7")]
    #[case("linux/arm/7", "linux/arm/v7")]
    #[case("linux/arm/6", "linux/arm/v6")]
    #[case("linux/armhf", "linux/arm/v7")]
    #[case("linux/armel", "linux/arm/v6")]
    #[case("macos/arm64", "darwin/arm64")]
    #[case("arm64", "linux/arm64")]
    #[case("aarch64", "linux/arm64")]
    #[case("linux/madeup", "linux/madeup")]
    #[case("windows(10.0.17763)/amd64", "windows/amd64")]
    fn names_are_normalised(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(platform(text).to_string(), expected);
    }

    #[test]
    fn a_system_alone_has_the_processor_of_this_machine() {
        assert_eq!(platform("linux"), Platform::host());
    }

    #[rstest]
    #[case("")]
    #[case("/")]
    #[case("linux/")]
    #[case("/amd64")]
    #[case("linux/amd64/v1/x")]
    #[case("linux/*")]
    #[case("linux/amd 64")]
    #[case("linux(/amd64")]
    #[case("madeup")]
    #[case("linux/amd64,linux/arm64")]
    fn other_texts_are_refused(#[case] text: &str) {
        assert!(text.parse::<Platform>().is_err());
    }

    #[rstest]
    #[case("linux/amd64", "linux/amd64", Some(0))]
    #[case("linux/amd64", "linux/386", Some(1))]
    #[case("linux/amd64", "linux/amd64/v2", None)]
    #[case("linux/amd64/v3", "linux/amd64", Some(2))]
    #[case("linux/amd64", "linux/arm64", None)]
    #[case("linux/amd64", "windows/amd64", None)]
    #[case("linux/arm64", "linux/arm64/v8", Some(0))]
    #[case("linux/arm64", "linux/arm/v7", Some(2))]
    #[case("linux/arm64/v9", "linux/arm64", Some(6))]
    #[case("linux/arm/v7", "linux/arm/v6", Some(1))]
    #[case("linux/arm/v6", "linux/arm/v7", None)]
    #[case("linux/386", "linux/amd64", None)]
    #[case("linux/s390x", "linux/s390x", Some(0))]
    #[case("linux/madeup", "linux/madeup", Some(0))]
    fn what_can_run_is_ranked(#[case] wanted: &str, #[case] offered: &str, #[case] rank: Option<usize>) {
        assert_eq!(platform(wanted).preference(&platform(offered)), rank);
    }

    #[test]
    fn an_offer_as_an_image_wrote_it_is_normalised() {
        let offered = Platform { architecture: "x86_64".into(), variant: Some(String::new()), ..Platform::host() };
        assert!(platform("linux/amd64").matches(&offered));
        let attestation = Platform { os: "unknown".into(), architecture: "unknown".into(), ..Platform::host() };
        assert!(!platform("linux/amd64").matches(&attestation));
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_normal_and_matches_itself(text in "(linux|windows|Macos)/[a-z0-9_-]{1,8}(/v?[0-9](\\.[0-9])?)?") {
            if let Ok(parsed) = text.parse::<Platform>() {
                prop_assert_eq!(&parsed.normalized(), &parsed);
                prop_assert_eq!(&parsed.to_string().parse::<Platform>().unwrap(), &parsed);
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,40}") {
            drop(text.parse::<Platform>());
        }
    }

    #[test]
    fn a_variant_that_nobody_knows_is_itself_and_no_other() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert!(platform("linux/arm64/xv9").matches(&platform("linux/arm64/xv9")));
        assert!(platform("linux/amd64/v0").matches(&platform("linux/amd64/v0")));
        assert!(!platform("linux/arm64/xv9").matches(&platform("linux/arm64/xv8")));
    }
}
