//! The merged tree as one tar: PAX, owners as numbers, whole seconds, no root entry. The same image gives the same bytes.

use std::io::{Read, Write};

use crate::{
    image::Image,
    layer,
    store::Store,
    tree::{Entry, Kind, Meta, TreePath, Xattrs},
};

use super::{
    Dest, Error,
    dated::Dated,
    flatten::{Receiver, flatten},
};

/// Writes an image's root file system as a tar; with an epoch, all in it has that time.
pub fn tar(store: &Store, image: &Image, epoch: Option<i64>, dest: Dest<'_>) -> Result<(), Error> {
    dest.fill(|stream| {
        let mut writer = Writer { to: stream };
        flatten(store, image, &mut Dated { to: &mut writer, epoch })?;
        writer.raw(&layer::END)
    })
}

struct Writer<'a> {
    to: &'a mut dyn Write,
}

impl Writer<'_> {
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.to.write_all(bytes).map_err(Error::Stream)
    }

    fn header(&mut self, path: &TreePath, header: &layer::Header<'_>) -> Result<(), Error> {
        let reason = "an attribute or a device number has no form in a tar";
        let blocks = layer::format_header(header).ok_or_else(|| layer::Error::BadName { path: path.to_string(), reason })?;
        self.raw(&blocks)
    }
}

impl Receiver for Writer<'_> {
    fn plain(&mut self, path: &TreePath, entry: &Entry) -> Result<(), Error> {
        let mut name = path.as_bytes().to_vec();
        let (type_flag, link, device): (u8, &[u8], (u32, u32)) = match &entry.kind {
            Kind::Dir => (b'5', b"", (0, 0)),
            Kind::Symlink { target } => (b'2', target, (0, 0)),
            Kind::Char { major, minor } => (b'3', b"", (*major, *minor)),
            Kind::Block { major, minor } => (b'4', b"", (*major, *minor)),
            Kind::Fifo => (b'6', b"", (0, 0)),
            Kind::File { .. } => (b'0', b"", (0, 0)),
        };
        if type_flag == b'5' {
            name.push(b'/');
        }
        self.header(path, &layer::Header { name: &name, meta: &entry.meta, type_flag, size: 0, link, device })
    }

    fn file(&mut self, path: &TreePath, entry: &Entry, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        let name = path.as_bytes();
        self.header(path, &layer::Header { name, meta: &entry.meta, type_flag: b'0', size, link: b"", device: (0, 0) })?;
        let mut buffer = vec![0; 128 * 1024];
        let mut left = size;
        while left > 0 {
            let some = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = content.read(buffer.get_mut(..some).unwrap_or_default()).map_err(Error::Stream)?;
            if count == 0 {
                return Err(Error::Stream(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.raw(buffer.get(..count).unwrap_or_default())?;
            left -= count as u64;
        }
        self.raw(layer::END.get(..layer::padding(size)).unwrap_or_default())
    }

    fn link(&mut self, path: &TreePath, entry: &Entry, first: &TreePath) -> Result<(), Error> {
        // Attributes are the inode's, which has them.
        let meta = Meta { xattrs: Xattrs::new(), ..entry.meta.clone() };
        let (name, link) = (path.as_bytes(), first.as_bytes());
        self.header(path, &layer::Header { name, meta: &meta, type_flag: b'1', size: 0, link, device: (0, 0) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::image::fixture;

    fn flat(layers: &[&[(&str, &str)]]) -> Result<Vec<u8>, Error> {
        let (_dir, store) = fixture::store();
        let image = fixture::image_of(&store, layers);
        let mut bytes = Vec::new();
        tar(&store, &image, None, Dest::Stream(&mut bytes))?;
        Ok(bytes)
    }

    /// Name → what it is, read by another reader than ours. A name that comes twice fails.
    fn listed(bytes: &[u8]) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for entry in ::tar::Archive::new(bytes).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let link = entry.link_name_bytes().map(|link| String::from_utf8(link.into_owned()).unwrap()).unwrap_or_default();
            let kind = entry.header().entry_type();
            let text = if kind.is_symlink() {
                format!("->{link}")
            } else if kind.is_hard_link() {
                format!("=>{link}")
            } else if kind.is_character_special() {
                "!".to_owned()
            } else {
                let mut text = String::new();
                let _count = entry.read_to_string(&mut text).unwrap();
                text
            };
            assert_eq!((entry.header().uid().unwrap(), entry.header().mtime().unwrap()), (1000, 7), "{name}");
            assert!(all.insert(name.clone(), text).is_none(), "{name} is there twice");
        }
        all
    }

    fn expect(layers: &[&[(&str, &str)]], expected: &[(&str, &str)]) {
        let expected: BTreeMap<String, String> = expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        assert_eq!(listed(&flat(layers).unwrap()), expected);
    }

    #[test]
    fn the_highest_layer_wins_and_whiteouts_hide() {
        expect(
            &[
                &[("d/", ""), ("d/a", "1"), ("d/b", "1"), ("d/c", "1"), ("gone/", ""), ("gone/x", "1"), ("l", "->d/a"), ("null", "!")],
                &[("d/", ""), ("d/a", "2"), ("d/.wh.b", ""), (".wh.gone", ""), ("empty", "")],
            ],
            &[("d/", ""), ("d/a", "2"), ("d/c", "1"), ("l", "->d/a"), ("null", "!"), ("empty", "")],
        );
    }

    #[test]
    fn an_opaque_directory_and_a_file_over_a_directory_hide_all_below() {
        expect(
            &[&[("d/", ""), ("d/a", "1"), ("e/", ""), ("e/b", "1")], &[("d/", ""), ("d/.wh..wh..opq", ""), ("d/n", "2"), ("e", "file")]],
            &[("d/", ""), ("d/n", "2"), ("e", "file")],
        );
    }

    #[test]
    fn a_file_whose_first_name_is_hidden_lives_on_under_the_next() {
        expect(
            &[&[("a", "text"), ("b", "=>a"), ("c", "=>a"), ("n", "=>c")], &[(".wh.a", ""), ("c", "other")]],
            &[("b", "text"), ("c", "other"), ("n", "=>b")],
        );
    }

    #[test]
    fn a_hard_link_to_a_file_of_a_lower_layer_has_its_bytes() {
        expect(
            &[&[("a", "text"), ("c", "text")], &[("x", "=>a"), ("y", "=>c"), (".wh.a", "")]],
            &[("c", "text"), ("x", "text"), ("y", "text")],
        );
        expect(&[&[("a", "text")], &[("b", "=>a"), (".wh.a", "")]], &[("b", "text")]);
    }

    #[test]
    fn a_file_that_was_written_through_a_link_is_found() {
        expect(
            &[&[("usr/", ""), ("usr/bin/", ""), ("bin", "->usr/bin")], &[("bin/sh", "x")]],
            &[("usr/", ""), ("usr/bin/", ""), ("bin", "->usr/bin"), ("usr/bin/sh", "x")],
        );
    }

    #[test]
    fn of_two_entries_of_a_name_the_last_counts() {
        expect(&[&[("a", "first"), ("a", "again")]], &[("a", "again")]);
    }

    #[test]
    fn entries_are_in_the_order_of_paths_whatever_the_layers_order() {
        let layers: &[&[(&str, &str)]] =
            &[&[("z/", ""), ("z/y/", ""), ("z/y/x", "1"), ("a", "=>z/y/x"), ("m", "2"), ("b", "3")], &[("z/a", "4"), ("c", "5")]];
        let bytes = flat(layers).unwrap();
        let mut seen: Vec<String> = Vec::new();
        for entry in ::tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            if let Some((parent, _)) = name.trim_end_matches('/').rsplit_once('/') {
                assert!(seen.contains(&format!("{parent}/")), "{name} before {parent}");
            }
            if entry.header().entry_type() == ::tar::EntryType::Link {
                assert!(seen.contains(&String::from_utf8(entry.link_name_bytes().unwrap().into_owned()).unwrap()));
            }
            seen.push(name);
        }
        assert_eq!(seen, ["a", "b", "c", "m", "z/", "z/a", "z/y/", "z/y/x"]);
    }

    #[test]
    fn large_files_are_streamed_whole() {
        let large = "0123456789abcdef".repeat(200_000);
        let found = listed(&flat(&[&[("big", large.as_str()), ("link", "=>big")]]).unwrap());
        assert_eq!((found["big"].len(), found["link"].as_str()), (large.len(), "=>big"));
    }

    #[test]
    fn a_layer_that_is_not_there_is_named() {
        let (_dir, store) = fixture::store();
        let image = fixture::image_of(&store, &[&[("a", "1")]]);
        std::fs::remove_file(store.root().join(super::super::archive::blob_name(&image.layers[0]))).unwrap();
        let error = tar(&store, &image, None, Dest::Stream(&mut Vec::new())).unwrap_err();
        assert!(matches!(&error, Error::Missing(blobs) if *blobs == image.layers), "{error}");
    }
}
