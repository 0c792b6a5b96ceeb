//! `--output`: `type=oci,dest=PATH,…` as buildx reads it.

use std::path::PathBuf;

use crate::{
    error::{Error, Kind},
    front::{Place, Sink, SinkKind},
    layer::Compression,
    oci::Reference,
};

/// What was written, before it means something.
#[derive(Debug, Default)]
struct Fields {
    /// All keys, as written.
    keys: Vec<String>,
    kind: Option<String>,
    dest: Option<String>,
    names: Vec<Reference>,
    tar: Option<bool>,
    push: Option<bool>,
    compression: Option<String>,
    level: Option<i32>,
    force: bool,
    oci_types: Option<bool>,
    rewrite: Option<bool>,
}

/// Reads one value of `--output`.
pub(super) fn parse(text: &str) -> Result<Vec<Sink>, Error> {
    if text == "-" {
        return Ok(vec![Sink::plain(SinkKind::Tar(Place::Stdout))]);
    }
    if !text.contains('=') {
        return Ok(vec![Sink::plain(SinkKind::Local(PathBuf::from(text)))]);
    }
    let fields = read(text)?;
    let kind = sink_kind(&fields)?;
    let docker_types = match (fields.oci_types, &kind) {
        (Some(oci), _) => !oci,
        (None, _) => false,
    };
    let sink = Sink {
        kind,
        names: fields.names.clone(),
        compression: compression(&fields)?,
        force_compression: fields.force,
        docker_types,
        rewrite_timestamp: fields.rewrite,
    };
    let mut sinks = vec![sink.clone()];
    if fields.push == Some(true) && sink.kind != SinkKind::Registry {
        sinks.push(Sink { kind: SinkKind::Registry, ..sink });
    }
    Ok(sinks)
}

fn usage(text: String) -> Error {
    Error::new(Kind::Usage, text).help("the form is `type=oci|docker|tar|local|registry|image|cacheonly[,dest=PATH][,name=REF]`")
}

fn read(text: &str) -> Result<Fields, Error> {
    let mut fields = Fields::default();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| usage(format!("`{field}` in --output is not of the form key=value")))?;
        let key = key.trim().to_ascii_lowercase();
        fields.keys.push(key.clone());
        match key.as_str() {
            "type" => fields.kind = Some(value.to_owned()),
            "dest" => fields.dest = Some(value.to_owned()),
            "name" => {
                fields.names.push(value.parse().map_err(|error: crate::oci::BadReference| Error::new(Kind::Usage, error.to_string()))?);
            }
            "tar" => fields.tar = Some(boolean(&key, value)?),
            "push" => fields.push = Some(boolean(&key, value)?),
            "compression" => fields.compression = Some(value.to_owned()),
            "compression-level" => {
                fields.level = Some(value.parse().map_err(|_not_a_number| usage(format!("`{value}` is not a compression level")))?);
            }
            "force-compression" => fields.force = boolean(&key, value)?,
            "rewrite-timestamp" => fields.rewrite = Some(boolean(&key, value)?),
            "oci-mediatypes" => fields.oci_types = Some(boolean(&key, value)?),
            other => return Err(usage(format!("lapstrake cannot honour `{other}` in --output"))),
        }
    }
    Ok(fields)
}

fn boolean(key: &str, value: &str) -> Result<bool, Error> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" => Ok(true),
        "false" | "0" | "f" => Ok(false),
        _ => Err(usage(format!("`{key}` in --output is true or false, not `{value}`"))),
    }
}

/// What may be said about the bytes of an image.
const BYTES: [&str; 5] = ["compression", "compression-level", "force-compression", "oci-mediatypes", "rewrite-timestamp"];

/// The keys that mean something for a type, besides [`BYTES`] and `type`; `None`: there is no such type.
fn keys_of(kind: &str) -> Option<(&'static [&'static str], bool)> {
    Some(match kind {
        "oci" | "docker" => (&["dest", "name", "tar", "push"], true),
        "image" | "registry" => (&["name", "push"], true),
        "tar" | "local" => (&["dest"], false),
        "cacheonly" => (&[], false),
        _ => return None,
    })
}

/// Every key that was written means something for the type.
fn check_keys(kind: &str, fields: &Fields) -> Result<(), Error> {
    let (own, bytes) = keys_of(kind).ok_or_else(|| usage(format!("`{kind}` is no type of --output")))?;
    let means_nothing = |key: &&String| *key != "type" && !own.contains(&key.as_str()) && !(bytes && BYTES.contains(&key.as_str()));
    if let Some(key) = fields.keys.iter().find(means_nothing) {
        return Err(usage(format!("`{key}=` means nothing for `type={kind}` in --output")));
    }
    if kind == "registry" && fields.push == Some(false) {
        return Err(usage("`type=registry` in --output is a push: `push=false` contradicts it".to_owned()));
    }
    Ok(())
}

fn sink_kind(fields: &Fields) -> Result<SinkKind, Error> {
    let place = |kind: &str| match fields.dest.as_deref() {
        Some("-") => Ok(Place::Stdout),
        Some(path) => Ok(Place::File(PathBuf::from(path))),
        None => Err(usage(format!("`type={kind}` in --output needs `dest=PATH`"))),
    };
    let directory = |kind: &str| match place(kind)? {
        Place::File(path) => Ok(path),
        Place::Stdout => Err(usage(format!("`type={kind}` in --output writes a directory: `dest=-` is none"))),
    };
    let kind = fields.kind.as_deref().ok_or_else(|| usage("--output needs `type=`".to_owned()))?;
    check_keys(kind, fields)?;
    match (kind, fields.tar) {
        ("oci", Some(false)) => directory(kind).map(SinkKind::OciDir),
        ("oci", _) => place(kind).map(SinkKind::OciTar),
        ("docker", Some(false)) => Err(usage("`type=docker` is an archive: `tar=false` has no meaning for it".to_owned())),
        ("docker", _) if fields.dest.is_none() => Ok(SinkKind::Store),
        ("docker", _) => place(kind).map(SinkKind::DockerArchive),
        ("tar", _) => place(kind).map(SinkKind::Tar),
        ("local", _) => directory(kind).map(SinkKind::Local),
        ("registry", _) => Ok(SinkKind::Registry),
        ("image", _) => Ok(SinkKind::Store),
        ("cacheonly", _) => Ok(SinkKind::CacheOnly),
        (other, _) => Err(usage(format!("`{other}` is no type of --output"))),
    }
}

fn compression(fields: &Fields) -> Result<Option<Compression>, Error> {
    let level = |kind: &str, usual: i32, highest: i32| match fields.level {
        Some(level) if !(0..=highest).contains(&level) => {
            Err(usage(format!("{kind} has the compression levels 0 to {highest}, and `compression-level={level}` is none of them")))
        }
        level => Ok(level.unwrap_or(usual)),
    };
    match fields.compression.as_deref() {
        None if fields.level.is_none() => Ok(None),
        None | Some("gzip") => {
            let level = level("gzip", 6, 9)?;
            Ok(Some(Compression::Gzip(u32::try_from(level).unwrap_or_default())))
        }
        // Zero is zstd's word for its usual level.
        Some("zstd") => Ok(Some(Compression::Zstd(match level("zstd", 3, 22)? {
            0 => 3,
            level => level,
        }))),
        Some("uncompressed") if fields.level.is_some() => {
            Err(usage("`compression-level` has no meaning for `compression=uncompressed` in --output".to_owned()))
        }
        Some("uncompressed") => Ok(Some(Compression::Uncompressed)),
        Some(other) => Err(usage(format!("`{other}` is no compression that lapstrake writes: gzip, zstd or uncompressed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_path_is_a_directory_and_a_dash_a_tar() {
        assert_eq!(parse("out").unwrap(), [Sink::plain(SinkKind::Local("out".into()))]);
        assert_eq!(parse("-").unwrap(), [Sink::plain(SinkKind::Tar(Place::Stdout))]);
    }

    #[test]
    fn each_compression_has_its_levels() {
        let of = |text: &str| parse(&format!("type=oci,dest=a,{text}")).map(|sinks| sinks.first().and_then(|sink| sink.compression));
        assert_eq!(of("compression=gzip").unwrap(), Some(Compression::Gzip(6)));
        assert_eq!(of("compression-level=9").unwrap(), Some(Compression::Gzip(9)));
        assert_eq!(of("compression=zstd,compression-level=0").unwrap(), of("compression=zstd").unwrap());
        assert_eq!(of("compression=zstd,compression-level=22").unwrap(), Some(Compression::Zstd(22)));
        for (text, words) in [
            ("compression=gzip,compression-level=10", "gzip has the compression levels 0 to 9"),
            ("compression-level=22", "gzip has the compression levels 0 to 9"),
            ("compression=zstd,compression-level=23", "zstd has the compression levels 0 to 22"),
            ("compression=zstd,compression-level=-1", "zstd has the compression levels 0 to 22"),
            ("compression=uncompressed,compression-level=1", "no meaning"),
            ("compression=estargz", "gzip, zstd or uncompressed"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.to_string().contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn an_oci_layout_is_a_tar_unless_it_is_said_otherwise() {
        assert_eq!(parse("type=oci,dest=a.tar").unwrap(), [Sink::plain(SinkKind::OciTar(Place::File("a.tar".into())))]);
        assert_eq!(parse("type=oci,tar=false,dest=a").unwrap(), [Sink::plain(SinkKind::OciDir("a".into()))]);
    }

    #[test]
    fn what_cannot_be_honoured_is_an_error_that_names_it() {
        for (text, word) in [
            ("type=oci", "dest=PATH"),
            ("type=oci,dest=a,rewrite-timestamp=soon", "rewrite-timestamp"),
            ("type=oci,dest=a,unpack=true", "unpack"),
            ("type=floppy,dest=a", "floppy"),
            ("dest=a", "type="),
            ("type=oci,dest=a,tar=maybe", "maybe"),
            ("type=registry,push=false", "push=false"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind, Kind::Usage);
            assert!(error.headline.contains(word), "{text}: {}", error.headline);
        }
    }

    #[test]
    fn a_key_that_means_nothing_for_a_type_is_refused_with_both() {
        for kind in ["local,dest=a", "tar,dest=a", "image", "registry", "cacheonly"] {
            let name = kind.split(',').next().unwrap();
            for extra in ["tar=true", "tar=false"] {
                let error = parse(&format!("type={kind},{extra}")).unwrap_err();
                assert_eq!(error.kind, Kind::Usage);
                assert!(error.headline.contains("`tar=`") && error.headline.contains(&format!("`type={name}`")), "{}", error.headline);
            }
        }
        for kind in ["image", "registry", "cacheonly"] {
            let error = parse(&format!("dest=a,type={kind}")).unwrap_err();
            assert!(error.headline.contains("`dest=`") && error.headline.contains(&format!("`type={kind}`")), "{}", error.headline);
        }
        for text in ["type=local,dest=a,name=n", "type=tar,dest=a,compression=zstd", "type=cacheonly,push=true"] {
            assert!(parse(text).unwrap_err().headline.contains("means nothing"), "{text}");
        }
    }

    #[test]
    fn a_key_that_means_something_is_taken() {
        for text in [
            "type=oci,dest=a,tar=true,name=n,push=true,compression=zstd,compression-level=3,force-compression=true,oci-mediatypes=true",
            "type=docker,dest=a,tar=true,name=n",
            "type=image,name=n,push=true,oci-mediatypes=false",
            "type=registry,name=n,push=true,compression=gzip,rewrite-timestamp=true",
            "type=tar,dest=-",
            "type=cacheonly",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }
}
