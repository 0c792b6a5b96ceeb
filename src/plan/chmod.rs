//! `--chmod`: octal bits, or symbols as chmod(1) of the BSDs takes them.
//!
//! Source: BuildKit `dockerfile2llb/convert_copy.go`; setmode(3).

use super::Chmod;

/// Reads a value; `Err` says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Chmod, String> {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(bits) if bits <= 0o7777 => Ok(Chmod::Octal(bits)),
            _ => Err("an octal mode is between 0 and 07777".to_owned()),
        };
    }
    if text.split(',').all(is_clause) {
        Ok(Chmod::Symbolic(text.to_owned()))
    } else {
        Err("invalid syntax: a symbolic mode is like `u=rwX,go=rX` or `+x`".to_owned())
    }
}

/// Who, then at least once: an operator and what it gives, takes or sets.
fn is_clause(clause: &str) -> bool {
    let rest = clause.trim_start_matches(['a', 'u', 'g', 'o']);
    rest.starts_with(['+', '-', '=']) && rest.chars().all(|letter| "+-=rstwXxugo".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_symbolic_modes_are_read() {
        assert_eq!(parse("0755"), Ok(Chmod::Octal(0o755)));
        assert_eq!(parse("7777"), Ok(Chmod::Octal(0o7777)));
        for text in ["u=rwX,go=rX", "+x", "a+rx,o-w", "g=u", "u+s-w", "=", "go="] {
            assert_eq!(parse(text), Ok(Chmod::Symbolic(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["8", "64a", "10000", "0o7", "u", "u=rw,", ",u=r", "u=q", "x", "+a", "7777777777777"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
