//! Values as Go's libraries read them: durations, sizes, booleans, one line of CSV.
//!
//! Source: Go `time.ParseDuration`, `strconv`, docker/go-units `size.go`, tonistiigi/go-csvvalue.

use std::time::Duration;

/// A duration as `1h2m3.5s`; `Err` holds Go's words. Negative ones are errors here: no flag takes them.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |ch| ch.is_ascii_digit() || ch == '.');
        let (unit, after) = split_while(after, |ch| !ch.is_ascii_digit() && ch != '.');
        if !number.contains(|ch: char| ch.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        let scale = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        let part = nanoseconds(number, scale).ok_or_else(invalid)?;
        total = total.checked_add(part).filter(|sum| i64::try_from(*sum).is_ok()).ok_or_else(invalid)?;
        rest = after;
    }
    if text.starts_with('-') && total > 0 {
        return Err(format!("time: negative duration {text:?}"));
    }
    Ok(Duration::from_nanos(total))
}

fn split_while(text: &str, mut keep: impl FnMut(char) -> bool) -> (&str, &str) {
    let at = text.find(|ch| !keep(ch)).unwrap_or(text.len());
    text.split_at_checked(at).unwrap_or((text, ""))
}

/// `12.34` times `scale`; digits beyond what a nanosecond shows do not count.
fn nanoseconds(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut sum = u128::from(whole) * u128::from(scale);
    let mut divisor: u128 = 1;
    let mut digits: u128 = 0;
    for digit in fraction.chars().take(18) {
        digits = digits * 10 + u128::from(digit.to_digit(10)?);
        divisor *= 10;
    }
    sum += digits * u128::from(scale) / divisor;
    u64::try_from(sum).ok()
}

/// A size as `64m` or `1.5GiB`, in bytes, with binary units.
pub fn size(text: &str) -> Option<i64> {
    let last = text.rfind(|ch: char| ch.is_ascii_digit() || ch == '.' || ch == ' ')?;
    let (head, suffix) = text.split_at_checked(last + 1)?;
    let number = head.strip_suffix(' ').unwrap_or(head);
    let float: f64 = number.parse().ok()?;
    let suffix = suffix.to_ascii_lowercase();
    let mut unit = suffix.chars();
    let power = match unit.next() {
        None => 0,
        Some('b') if suffix.len() == 1 => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        Some(_) => return None,
    };
    if !matches!(unit.as_str(), "" | "b" | "ib") || float.is_sign_negative() {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "saturates at the largest size")]
    let bytes = (float * 1024_f64.powi(power)) as i64;
    Some(bytes)
}

/// A boolean as Go's `strconv.ParseBool` reads it.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A number as Go's `strconv.ParseUint(…, radix, 32)` reads it: digits alone.
pub(super) fn unsigned(text: &str, radix: u32) -> Option<u32> {
    if text.starts_with('+') {
        return None;
    }
    u32::from_str_radix(text, radix).ok()
}

/// The fields of one line of CSV.
pub(super) fn csv_fields(text: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') { quoted_field(quoted)? } else { plain_field(rest)? };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

fn plain_field(rest: &str) -> Result<(String, Option<&str>), &'static str> {
    let (field, after) = rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
    if field.contains('"') {
        return Err("bare \" in non-quoted-field");
    }
    Ok((field.to_owned(), after))
}

fn quoted_field(mut rest: &str) -> Result<(String, Option<&str>), &'static str> {
    let mut field = String::new();
    loop {
        let (part, after) = rest.split_once('"').ok_or("extraneous or missing \" in quoted-field")?;
        field.push_str(part);
        if after.is_empty() {
            return Ok((field, None));
        }
        if let Some(after) = after.strip_prefix(',') {
            return Ok((field, Some(after)));
        }
        rest = after.strip_prefix('"').ok_or("extraneous or missing \" in quoted-field")?;
        field.push('"');
    }
}
