//! The lines of the image's history, letter for letter as BuildKit writes them: people and tools search for them.
//!
//! Source: BuildKit `dockerfile2llb/convert.go: commitToHistory, runCommandString`; Go's `%q`, `%v` and `time.Duration`.

use std::fmt::Write as _;

use crate::oci::Health;

/// Go's `%q` of a list: `["a" "b"]`.
pub(super) fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(" "))
}

/// Go's `strconv.Quote`.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            _ if is_printable(letter) => quoted.push(letter),
            _ => escape(&mut quoted, letter),
        }
    }
    quoted.push('"');
    quoted
}

fn escape(quoted: &mut String, letter: char) {
    let code = u32::from(letter);
    // Writing to a String cannot fail.
    let _ignored = match code {
        0..=0x7f => write!(quoted, "\\x{code:02x}"),
        0x80..=0xffff => write!(quoted, "\\u{code:04x}"),
        _ => write!(quoted, "\\U{code:08x}"),
    };
}

/// As Go's `unicode.IsPrint`, from the tables of Rust's own escaping. That escapes a combining mark only where it stands first.
fn is_printable(letter: char) -> bool {
    if matches!(letter, '\'' | '"' | '\\') {
        return true;
    }
    let mut pair = String::from("a");
    pair.push(letter);
    pair.escape_debug().count() == 2
}

/// `RUN |1 A=b /bin/sh -c … # buildkit`: the arguments that are declared, with the values that hold, then the command.
pub(super) fn run(declared: &[(String, String)], argv: &[String]) -> String {
    let mut line = String::from("RUN ");
    if !declared.is_empty() {
        // Writing to a String cannot fail.
        let _ignored = write!(line, "|{} ", declared.len());
        for (name, value) in declared {
            line.extend([name, "=", value, " "]);
        }
    }
    line.push_str(&argv.join(" "));
    line.push_str(" # buildkit");
    line
}

/// Go's `%+v` of moby's `HealthcheckConfig`.
pub(super) fn healthcheck(health: &Health) -> String {
    format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        health.test.join(" "),
        duration(health.interval),
        duration(health.timeout),
        duration(health.start_period),
        duration(health.start_interval),
        health.retries
    )
}

/// Go's `time.Duration.String`, of nanoseconds.
fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    if total == 0 {
        return "0s".to_owned();
    }
    if total < 1_000_000_000 {
        let (unit, digits, name) = match total {
            0..1_000 => (1, 0, "ns"),
            1_000..1_000_000 => (1_000, 3, "µs"),
            _ => (1_000_000, 6, "ms"),
        };
        return format!("{sign}{}{name}", decimal(total / unit, total % unit, digits));
    }
    let (seconds, rest) = (total / 1_000_000_000, total % 1_000_000_000);
    let (minutes, hours) = (seconds / 60 % 60, seconds / 3600);
    let seconds = decimal(seconds % 60, rest, 9);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

fn decimal(whole: u64, fraction: u64, digits: usize) -> String {
    if fraction == 0 {
        return whole.to_string();
    }
    let fraction = format!("{fraction:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_go_does() {
        let words = ["a b", "\"\\\n\u{1b}\u{7f}", "é日", "\u{a0}\u{200b}", "e\u{301}", "\u{1f600}", "\u{e0001}", "'", ""];
        let words: Vec<String> = words.map(str::to_owned).to_vec();
        let expected = r#"["a b" "\"\\\n\x1b\x7f" "é日" "\u00a0\u200b" "MARK" "😀" "\U000e0001" "'" ""]"#;
        assert_eq!(quoted(&words), expected.replace("MARK", "e\u{301}"));
    }

    #[test]
    fn durations_are_written_as_go_does() {
        let second = 1_000_000_000;
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (second, "1s"),
            (90 * second, "1m30s"),
            (3600 * second, "1h0m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
            (-second, "-1s"),
        ] {
            assert_eq!(duration(nanoseconds), expected);
        }
    }
}
