//! Small grammars: mounts, mode changes, names of images, platforms, paths. The first byte says which.

#![no_main]

use lapstrake::{
    dockerfile::{MountKind, expand_mount, parse_mount},
    oci::{Digest, Platform, Reference},
    rootfs::ModeChange,
    tree::TreePath,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((which, rest)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return path(rest) };
    match which % 6 {
        0 => mount(text),
        1 => mode(text),
        2 => reference(text),
        3 => platform(text),
        4 => path(rest),
        _ => {
            if let Ok(digest) = text.parse::<Digest>() {
                assert_eq!(digest.to_string().parse::<Digest>().ok(), Some(digest));
            }
        }
    }
});

fn mount(text: &str) {
    let written = parse_mount(text);
    if let Ok(mount) = &written {
        let plain = matches!(mount.kind, MountKind::Bind | MountKind::Tmpfs);
        assert!(!(plain && (mount.mode.is_some() || mount.uid.is_some() || mount.gid.is_some())));
        assert!(mount.size.is_none_or(|size| size >= 0));
        for value in [&mount.target, &mount.source, &mount.from, &mount.id].into_iter().flatten() {
            assert!(!value.is_empty() && value.len() <= text.len());
        }
        // Empty, it is the secret's own name.
        assert!(mount.env.as_ref().is_none_or(|env| env.len() <= text.len()));
    }
    // Nothing to expand: both ways of reading give the same.
    if !text.contains(['$', '\\', '\'', '"']) {
        assert_eq!(expand_mount(text, '\\', &|_| None), written);
    }
}

fn mode(text: &str) {
    let Ok(change) = ModeChange::parse(text) else { return };
    for now in [0, 0o644, 0o755, 0o7777, 0o4711] {
        for is_dir in [false, true] {
            let then = change.apply(now, is_dir);
            assert!(then <= 0o7777);
            // Changes that set bits outright do so once and for all.
            if !text.contains(['X', 'u', 'g', 'o', '-']) {
                assert_eq!(change.apply(then, is_dir), then, "{text:?}");
            }
        }
    }
    assert!(change.of_parents() <= 0o7777);
}

fn reference(text: &str) {
    let Ok(reference) = text.parse::<Reference>() else { return };
    let shown = reference.to_string();
    let again = shown.parse::<Reference>().expect("what is shown can be read");
    assert_eq!(again, reference, "{shown}");
    let familiar = reference.familiar();
    assert_eq!(familiar.parse::<Reference>().expect("the short form can be read"), reference, "{familiar}");
}

fn platform(text: &str) {
    let Ok(platform) = text.parse::<Platform>() else { return };
    let normal = platform.normalized();
    assert_eq!(normal.normalized(), normal);
    assert!(normal.matches(&normal));
    let shown = normal.to_string();
    // The version of the system is not shown, as in containerd.
    let normal = Platform { os_version: None, os_features: Vec::new(), ..normal };
    assert_eq!(shown.parse::<Platform>().expect("what is shown can be read").normalized(), normal, "{shown}");
}

fn path(text: &[u8]) {
    if let Ok(path) = TreePath::clean(text) {
        assert_eq!(TreePath::parse(path.as_bytes()).as_ref(), Ok(&path));
        assert!(path.components().all(|part| !matches!(part, b"" | b"." | b"..")) && !path.as_bytes().contains(&0));
        let parents = path.ancestors();
        assert!(parents.iter().all(|parent| path.is_within(parent)));
    }
}
