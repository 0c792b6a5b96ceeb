//! The signals that STOPSIGNAL may name.
//!
//! Source: moby/sys `signal/signal.go`, `signal_linux.go`.

const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT",
    "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH",
    "XCPU", "XFSZ",
];

/// Is it a signal: a number but 0, or a name, with SIG or without, in any case?
pub(super) fn is_valid(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, largest: u8| {
        let offset = name.strip_prefix(prefix).and_then(|offset| offset.parse::<u8>().ok().filter(|number| offset == number.to_string()));
        offset.is_some_and(|offset| (1..=largest).contains(&offset))
    };
    NAMES.contains(&name) || offset("RTMIN+", 15) || offset("RTMAX-", 14)
}

/// All names, for suggestions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_signals() {
        for text in ["SIGTERM", "term", "9", "-5", "SIGRTMIN+3", "rtmax-14", "RTMAX"] {
            assert!(is_valid(text), "{text}");
        }
        for text in ["", "0", "SIGFOO", "RTMIN+16", "RTMIN+03", "RTMAX-15", "SIG", "EMT"] {
            assert!(!is_valid(text), "{text}");
        }
    }
}
