//! Percent-decoding, as Go's `net/url` does it.

/// `None`: it is malformed, or not UTF-8.
pub(super) fn decode(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' if plus_is_blank => b' ',
            _ => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The pairs of a query; malformed ones are left out, as Go leaves them out.
pub(super) fn pairs(query: &str) -> Vec<(String, String)> {
    let parts = query.split('&').filter(|part| !part.is_empty() && !part.contains(';'));
    let pairs = parts.filter_map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        Some((decode(key, true)?, decode(value, true)?))
    });
    pairs.collect()
}
