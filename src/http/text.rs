//! Text of requests and answers: what a server says, made harmless; credentials in the form of RFC 7617 and 4648.

/// A server's text, made harmless for a terminal and short.
pub fn harmless(text: &str) -> String {
    const LONGEST: usize = 300;
    // Marks of direction would let a server write over our own words.
    let directs = |char: char| matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let clean = text.chars().map(|char| if char.is_control() || directs(char) { ' ' } else { char });
    let mut words: String = clean.take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        words.push('…');
    }
    words.trim().to_owned()
}

/// `Basic …`, the value of an `Authorization`.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

/// RFC 4648 4.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place) & 63) as usize;
            text.push(if place <= three.len() { char::from(DIGITS[digit]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", "")]
    #[case("f", "Zg==")]
    #[case("fo", "Zm8=")]
    #[case("foo", "Zm9v")]
    #[case("foob", "Zm9vYg==")]
    #[case("\u{ff}\u{fe}>?", "w7/Dvj4/")]
    fn base64_is_that_of_the_rfc(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(base64(text.as_bytes()), expected);
    }
}
