//! Looks for bytes in everything that a project left behind: names, contents, attributes; in what is compressed and in
//! archives within archives as well; plain, in base64 and in hexadecimal.

use std::{io::Read as _, process::Command};

use super::{Project, am_root, output_of};

/// Bytes that must not be found.
pub(crate) struct Needle {
    forms: Vec<(String, Vec<u8>)>,
}

impl Needle {
    /// In every form.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let digit = |four: u8| char::from_digit(u32::from(four), 16).unwrap();
        let hex: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        let mut forms = vec![("plain".to_owned(), bytes.to_vec()), ("hexadecimal".to_owned(), hex.into_bytes())];
        // What base64 makes of it depends on how many bytes are before it.
        for before in 0..3 {
            forms.push((format!("base64 from byte {before}"), inner_base64(bytes, before).into_bytes()));
        }
        Self { forms }
    }

    /// The forms in which it is in there.
    fn within(&self, bytes: &[u8]) -> Vec<String> {
        // The standard library's search of text is fast in a test too.
        let text = String::from_utf8_lossy(bytes);
        let has = |needle: &Vec<u8>| match str::from_utf8(needle) {
            Ok(ascii) if ascii.is_ascii() => text.contains(ascii),
            _ => bytes.windows(needle.len()).any(|window| window == needle.as_slice()),
        };
        self.forms.iter().filter(|(_, needle)| has(needle)).map(|(name, _)| name.clone()).collect()
    }
}

/// The part of base64 that holds nothing but these bytes, when so many other bytes come before them.
fn inner_base64(bytes: &[u8], before: usize) -> String {
    let padded: Vec<u8> = std::iter::repeat_n(0, before).chain(bytes.iter().copied()).collect();
    let text = base64(&padded);
    let (first, last) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
    text.get(first..last).unwrap().to_owned()
}

/// Without padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().chain(&[0, 0]).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let letters = [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63]));
        text.extend(&letters[..=group.len()]);
    }
    text
}

/// Every place below these of a project's directories where it is.
pub(crate) fn found(project: &Project, dirs: &[&str], needle: &Needle) -> Vec<String> {
    let mut all = Vec::new();
    for dir in dirs {
        let archive = archive_of(&project.path(dir));
        look(dir, &archive, needle, &mut all);
    }
    all
}

/// Everything below a directory as a tar, whoever's it is.
fn archive_of(dir: &std::path::Path) -> Vec<u8> {
    let mut command = if am_root() {
        Command::new("tar")
    } else {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--map-auto", "--setuid", "0", "--setgid", "0", "tar"]);
        command
    };
    output_of(command.args(["--xattrs", "--xattrs-include=*", "-cf", "-", "."]).current_dir(dir)).good().stdout
}

/// Looks at the bytes, and at what is packed in them.
fn look(place: &str, bytes: &[u8], needle: &Needle, all: &mut Vec<String>) {
    all.extend(needle.within(bytes).into_iter().map(|form| format!("{place}: {form}")));
    unpack(place, bytes, needle, all);
}

/// Looks at what is packed in bytes that have been looked at.
fn unpack(place: &str, bytes: &[u8], needle: &Needle, all: &mut Vec<String>) {
    let mut plain = Vec::new();
    // What a kill has cut off is looked at as far as it goes.
    let _whole = match bytes {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).is_ok(),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut plain).is_ok(),
        _ if bytes.get(257..262) == Some(b"ustar") => {
            let mut archive = tar::Archive::new(bytes);
            for mut entry in archive.entries().unwrap().map_while(Result::ok) {
                let name = format!("{place}/{}", String::from_utf8_lossy(&entry.path_bytes()));
                let mut content = Vec::new();
                let _whole = entry.read_to_end(&mut content).is_ok();
                unpack(&name, &content, needle, all);
            }
            return;
        }
        _ => return,
    };
    look(&format!("{place} (unpacked)"), &plain, needle, all);
}
