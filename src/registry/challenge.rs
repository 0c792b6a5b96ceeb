//! `WWW-Authenticate`: what a registry wants to see before it answers.
//!
//! Source: RFC 9110 11.6.1; Docker's token authentication. Several challenges may stand in one header, parted by the
//! same comma as their parameters.

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user and password, sent to the registry itself.
    Basic,
    /// A token of that service.
    Bearer {
        /// Its URL.
        realm: String,
        /// Its name for the registry.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
    },
}

/// The longest header that is read, in bytes.
const LONGEST: usize = 8 * 1024;

/// All challenges in one header that we know the scheme of; a broken rest is left out.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = if header.len() > LONGEST { "" } else { header };
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = split_token(rest);
        if word.is_empty() {
            break;
        }
        let after = after.trim_start();
        match (after.strip_prefix('='), found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let Some((value, tail)) = split_value(value.trim_start()) else { break };
                parameters.push((word.to_ascii_lowercase(), value));
                rest = tail;
            }
            (Some(_), None) => break,
            (None, _) => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
    found.iter().filter_map(|(scheme, parameters)| challenge(scheme, parameters)).collect()
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let parameter = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: parameter("realm")?, service: parameter("service"), scope: parameter("scope") }),
        _ => None,
    }
}

fn split_token(text: &str) -> (&str, &str) {
    let end = text.find(|char: char| !(char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char))).unwrap_or(text.len());
    text.split_at(end)
}

/// A token or a quoted string, and what follows.
fn split_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            char => value.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned), scope: scope.map(str::to_owned) }
    }

    #[rstest]
    #[case("Basic realm=\"x, y\"", vec![Challenge::Basic])]
    #[case("bearer realm=\"https://a/t\",service=\"r\",scope=\"repository:a:pull,push\"", vec![bearer("https://a/t", Some("r"), Some("repository:a:pull,push"))])]
    #[case("Bearer realm=https://a/t , service = r", vec![bearer("https://a/t", Some("r"), None)])]
    #[case("Bearer realm=\"https://a/\\\"t\"", vec![bearer("https://a/\"t", None, None)])]
    #[case("Negotiate, Basic realm=\"x\", Bearer realm=\"https://a/t\"", vec![Challenge::Basic, bearer("https://a/t", None, None)])]
    #[case("Bearer service=\"r\"", vec![])]
    #[case("Bearer realm=\"unclosed", vec![])]
    #[case("", vec![])]
    #[case("=", vec![])]
    fn challenges_are_read(#[case] header: &str, #[case] expected: Vec<Challenge>) {
        assert_eq!(parse(header), expected);
    }

    proptest! {
        #[test]
        fn any_header_is_read(header in "\\PC{0,80}") {
            drop(parse(&header));
        }

        #[test]
        fn quoted_values_come_back(realm in "[ -~]{0,20}") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(parse(&format!("Bearer realm=\"{quoted}\"")), vec![bearer(&realm, None, None)]);
        }
    }
}
