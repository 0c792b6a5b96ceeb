//! `--cache-from` and `--cache-to`, as buildx reads them.

use std::path::PathBuf;

use crate::{
    error::{Error, Kind},
    front::{CacheFrom, CacheTo},
    oci::Reference,
};

const FROM: &str = "the form is `type=local,src=DIR[,tag=TAG|,digest=DIGEST]`, `type=registry,ref=IMAGE` or `IMAGE`";
const TO: &str = "the form is `type=local,dest=DIR[,mode=min|max][,tag=TAG]` or `type=inline`";

/// Reads a value of `--cache-from`.
pub(super) fn from(text: &str) -> Result<CacheFrom, Error> {
    let usage = |said: String| Error::new(Kind::Usage, said).help(FROM);
    let image = |name: &str| name.parse::<Reference>().map(CacheFrom::Image).map_err(|error| usage(error.to_string()));
    if !text.contains('=') {
        return image(text);
    }
    let (kind, fields) = fields("--cache-from", text, FROM)?;
    let (mut dir, mut selector, mut name) = (None, None, None);
    for (key, value) in fields {
        match (kind, key) {
            ("local", "src") => dir = Some(value),
            ("local", "tag" | "digest") => selector = Some(value),
            ("registry", "ref") => name = Some(value),
            ("local" | "registry", _) => return Err(usage(format!("lapstrake cannot honour `{key}` in --cache-from type={kind}"))),
            _ => break,
        }
    }
    match (kind, dir, name) {
        ("local", Some(dir), _) => Ok(CacheFrom::Layout { dir: PathBuf::from(dir), selector: selector.unwrap_or("latest").to_owned() }),
        ("registry", _, Some(name)) => image(name),
        ("local", None, _) => Err(usage("`type=local` in --cache-from needs `src=`".to_owned())),
        ("registry", _, None) => Err(usage("`type=registry` in --cache-from needs `ref=`".to_owned())),
        _ => Err(usage(format!("lapstrake cannot take a cache from `type={}`", kind.escape_debug()))),
    }
}

/// Reads a value of `--cache-to`.
pub(super) fn to(text: &str) -> Result<CacheTo, Error> {
    let usage = |said: String| Error::new(Kind::Usage, said).help(TO);
    let (kind, fields) = fields("--cache-to", text, TO)?;
    let (mut dir, mut tag, mut max) = (None, "latest", false);
    for (key, value) in fields {
        match (kind, key, value) {
            ("local", "dest", _) => dir = Some(value),
            ("local", "tag", _) => tag = value,
            ("local", "mode", "min" | "max") => max = value == "max",
            ("inline", "mode", "min") => {}
            ("local" | "inline", "mode", _) => return Err(usage(format!("`mode={value}` means nothing for `type={kind}` in --cache-to"))),
            ("local" | "inline", ..) => return Err(usage(format!("lapstrake cannot honour `{key}` in --cache-to type={kind}"))),
            _ => break,
        }
    }
    match (kind, dir) {
        ("local", Some(dir)) => Ok(CacheTo::Layout { dir: PathBuf::from(dir), tag: tag.to_owned(), max }),
        ("local", None) => Err(usage("`type=local` in --cache-to needs `dest=`".to_owned())),
        ("inline", _) => Ok(CacheTo::Inline),
        _ => Err(usage(format!("lapstrake cannot put a cache into `type={}`", kind.escape_debug()))),
    }
}

/// The type, and what else was written: keys and values.
type Spec<'a> = (&'a str, Vec<(&'a str, &'a str)>);

fn fields<'a>(flag: &str, text: &'a str, help: &str) -> Result<Spec<'a>, Error> {
    let mut kind = None;
    let mut others = Vec::new();
    for field in text.split(',') {
        let parts = field.split_once('=');
        let (key, value) =
            parts.ok_or_else(|| Error::new(Kind::Usage, format!("`{field}` in {flag} is not of the form key=value")).help(help))?;
        if key == "type" {
            kind = Some(value);
        } else {
            others.push((key, value));
        }
    }
    let kind = kind.ok_or_else(|| Error::new(Kind::Usage, format!("{flag} needs `type=`")).help(help))?;
    Ok((kind, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_buildx_takes_is_taken_and_the_rest_is_refused() {
        let layout = |selector: &str| CacheFrom::Layout { dir: "d".into(), selector: selector.into() };
        assert_eq!(from("type=local,src=d").unwrap(), layout("latest"));
        assert_eq!(from("type=local,src=d,tag=t").unwrap(), layout("t"));
        assert_eq!(from("busybox").unwrap(), from("type=registry,ref=busybox").unwrap());
        assert_eq!(to("type=local,dest=d,mode=max").unwrap(), CacheTo::Layout { dir: "d".into(), tag: "latest".into(), max: true });
        assert_eq!(to("type=inline").unwrap(), CacheTo::Inline);
        for bad in ["type=gha", "type=local", "type=local,dest=d", "type=registry", "src=d", "type=local,src", "BAD!"] {
            assert_eq!(from(bad).unwrap_err().kind, Kind::Usage, "{bad}");
        }
        for bad in ["inline", "type=registry,ref=x", "type=local", "type=local,dest=d,mode=all", "type=inline,mode=max", "type=s3,bucket=x"]
        {
            assert_eq!(to(bad).unwrap_err().kind, Kind::Usage, "{bad}");
        }
    }
}
