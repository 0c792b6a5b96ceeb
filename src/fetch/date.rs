//! The dates of HTTP: `Sun, 06 Nov 1994 08:49:37 GMT` and its two obsolete forms.
//!
//! Source: RFC 9110 5.6.7.

use jiff::{civil::DateTime, fmt::rfc2822, tz::TimeZone};

/// Seconds since 1970.
pub(super) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    let usual = || rfc2822::parse(text).ok().map(|time| time.timestamp().as_second());
    let obsolete = |form: &str| {
        let civil = DateTime::strptime(form, text).ok()?;
        Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
    };
    usual().or_else(|| obsolete("%A, %d-%b-%y %H:%M:%S GMT")).or_else(|| obsolete("%a %b %e %H:%M:%S %Y"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777))]
    #[case("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777))]
    #[case("Sun Nov  6 08:49:37 1994", Some(784_111_777))]
    #[case("yesterday", None)]
    #[case("", None)]
    fn all_three_forms_are_read(#[case] text: &str, #[case] seconds: Option<i64>) {
        assert_eq!(super::parse(text), seconds);
    }
}
