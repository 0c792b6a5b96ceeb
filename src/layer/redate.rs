//! A layer as it would be had it been made at another time: `(layer, epoch) → layer'`.
//!
//! A file has a time because of what it was made of (a package's, an archive's) or because of when it was made or
//! checked out ([`Moments`]). The latter get the epoch, the former are kept unless they are later than it. What then says nothing
//! that the layers below do not say goes: whether a file that is written again with the same bytes is a change at all depends on
//! whether that took longer than a second.
//!
//! The tar is read and written as a stream; what is in it stays in its order and its canonical form.

use std::io::{Read, Write};

use super::{
    Compression, Error, Layer,
    archive::{Entries, Member, MemberKind},
    blob, canonical,
    header::{self, Header},
    read::{bad, unreadable},
    verified,
};
use crate::{
    oci::{Descriptor, DiffId},
    store::Store,
    sys::PathError,
    tree::{Chain, Entry, Index, IndexBuilder, Kind, Meta, Moments, Row, TreePath},
};

/// What a layer's times are to be.
#[derive(Debug, Clone)]
pub struct Dating {
    /// Nothing is later, in seconds since 1970.
    pub epoch: i64,
    /// The times in the layer that say when it was made.
    pub moments: Moments,
}

impl Dating {
    fn time(&self, was: i64) -> i64 {
        if self.moments.contains(was) { self.epoch } else { was.min(self.epoch) }
    }
}

/// The layer with other times, its blob and index in the store. `below` has the layers under it that were made with it, dated
/// already: what they say too is left out.
pub fn redate(
    store: &Store,
    layer: (&DiffId, &Descriptor),
    below: &Chain,
    dating: &Dating,
    compression: Compression,
) -> Result<Layer, Error> {
    let (diff_id, blob) = layer;
    let index = match store.index(diff_id)? {
        Some(index) => index,
        None => verified::with_tar(store, blob, diff_id, |tar| {
            super::read::read(tar, super::read::Form::Layer, super::read::Below::Chain(below), &mut super::read::Nowhere)
        })?,
    };
    let dated = dated(&index, below, dating);
    let (_done, diff_id, blob) =
        blob::pack(store, (compression, blob::Lasting::Now), |out| verified::with_tar(store, blob, diff_id, |tar| copy(tar, out, &dated)))?;
    store.put_index(&diff_id, &dated)?;
    store.put_layer_blob(&diff_id, &compression.id(), &blob)?;
    Ok(Layer { diff_id, blob, index: std::sync::Arc::new(dated) })
}

/// The index of the new layer: what it has, and with which times.
fn dated(index: &Index, below: &Chain, dating: &Dating) -> Index {
    let with_time = |entry: Entry| Entry { meta: Meta { mtime: dating.time(entry.meta.mtime), ..entry.meta }, ..entry };
    let linked: std::collections::BTreeSet<TreePath> = index.rows().filter_map(|(_, row)| row.into_link()).collect();
    let mut builder = IndexBuilder::default();
    // The deepest first: a directory stays for what is in it.
    let mut needed: Option<TreePath> = None;
    for (path, row) in index.rows_back() {
        let row = match row {
            Row::Whiteout => Row::Whiteout,
            Row::Put { entry, link, opaque } => Row::Put { entry: with_time(entry), link, opaque },
        };
        let holds = needed.as_ref().is_some_and(|needed| needed.is_within(&path));
        if !holds && !linked.contains(&path) && says_nothing(&path, &row, below) {
            continue;
        }
        needed = Some(path.clone());
        builder.put(path, row);
    }
    for (path, bytes) in index.all_kept() {
        if builder.row(path).is_some() {
            builder.keep(path.clone(), bytes.clone());
        }
    }
    builder.finish()
}

/// Is it as below? A directory's own time does not count.
fn says_nothing(path: &TreePath, row: &Row, below: &Chain) -> bool {
    let Row::Put { entry, link: None, opaque: false } = row else { return false };
    let Some(found) = below.look_up(path) else { return false };
    let same_dir = || {
        let plain = |entry: &Entry| Meta { mtime: 0, ..entry.meta.clone() };
        entry.kind == Kind::Dir && found.entry.kind == Kind::Dir && plain(entry) == plain(&found.entry)
    };
    *entry == found.entry && found.link.is_none() || same_dir()
}

/// Writes the entries that are in the index, with its times.
fn copy(tar: &mut dyn Read, out: &mut dyn Write, index: &Index) -> Result<(), Error> {
    let mut entries = Entries::new(tar);
    let mut written = 0;
    let mut buffer = vec![0; 128 * 1024];
    while let Some(member) = entries.next_member().map_err(|error| bad(error.to_string()))? {
        let path = TreePath::parse(member.name.strip_suffix(b"/").unwrap_or(&member.name)).map_err(|error| bad(error.to_string()))?;
        let Some(time) = time_of(&path, index) else { continue };
        written += 1;
        let member = Member { meta: Meta { mtime: time, ..member.meta }, ..member };
        raw(out, &format(&member).ok_or_else(|| bad(format!("`{path}` has no form in a tar")))?)?;
        let MemberKind::File { size } = member.kind else { continue };
        let mut body = entries.body();
        loop {
            let read = body.read(&mut buffer).map_err(|error| unreadable(&error))?;
            if read == 0 {
                break;
            }
            raw(out, buffer.get(..read).unwrap_or_default())?;
        }
        raw(out, header::END.get(..header::padding(size)).unwrap_or_default())?;
    }
    // A layer that others wrote may name a path twice, or by way of a link.
    if written != index.rows().filter(|(path, _)| !path.is_root()).count() {
        return Err(bad("its entries are not those of its index"));
    }
    raw(out, &header::END)
}

/// `None`: it is not to be there. A whiteout has none but 0.
fn time_of(path: &TreePath, index: &Index) -> Option<i64> {
    if let Some(name) = path.name().strip_prefix(canonical::WHITEOUT) {
        let gone = path.parent().unwrap_or_default().join(name).ok()?;
        return matches!(index.row(&gone), Some(Row::Whiteout)).then_some(0);
    }
    match index.row(path) {
        Some(Row::Put { entry, .. }) => Some(entry.meta.mtime),
        Some(Row::Whiteout) | None => None,
    }
}

fn format(member: &Member) -> Option<Vec<u8>> {
    let (type_flag, size, link, device): (u8, u64, &[u8], (u32, u32)) = match &member.kind {
        MemberKind::File { size } => (b'0', *size, b"", (0, 0)),
        MemberKind::HardLink(link) => (b'1', 0, link, (0, 0)),
        MemberKind::Symlink(link) => (b'2', 0, link, (0, 0)),
        MemberKind::Char { major, minor } => (b'3', 0, b"", (*major, *minor)),
        MemberKind::Block { major, minor } => (b'4', 0, b"", (*major, *minor)),
        MemberKind::Dir => (b'5', 0, b"", (0, 0)),
        MemberKind::Fifo => (b'6', 0, b"", (0, 0)),
    };
    header::format(&Header { name: &member.name, meta: &member.meta, type_flag, size, link, device })
}

fn raw(out: &mut dyn Write, bytes: &[u8]) -> Result<(), Error> {
    Ok(out.write_all(bytes).map_err(PathError::new("write", "layer"))?)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _, sync::Arc};

    use super::{super::tests::*, *};
    use crate::layer::{self, Change, Changes, Node};

    const NOW: i64 = 1_800_000_000;
    const EPOCH: i64 = 1_600_000_000;

    fn at(mtime: i64, change: Change) -> Change {
        match change {
            Change::Put(meta, node) => Change::Put(Meta { mtime, ..meta }, node),
            Change::Whiteout => Change::Whiteout,
        }
    }

    fn made(bench: &Bench, all: Vec<(&str, Change)>, chain: &Chain) -> Layer {
        layer::write(&bench.store, &changes(all), chain, Compression::Gzip(1)).unwrap()
    }

    fn redated(bench: &Bench, layer: &Layer, below: &Chain, moments: &Moments, epoch: i64) -> Layer {
        let dating = Dating { epoch, moments: moments.clone() };
        redate(&bench.store, (&layer.diff_id, &layer.blob), below, &dating, Compression::Gzip(1)).unwrap()
    }

    /// Name → time, read by another reader than ours.
    fn times(bench: &Bench, layer: &Layer) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for entry in ::tar::Archive::new(bench.tar_of(layer).as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let (name, time) = (String::from_utf8_lossy(&entry.path_bytes()).into_owned(), entry.header().mtime().unwrap());
            assert!(all.insert(name, time).is_none());
            let _read = entry.read_to_end(&mut Vec::new()).unwrap();
        }
        all
    }

    fn wide(now: i64, checkout: i64) -> Vec<(&'static str, Change)> {
        let long = "a path with more than a hundred letters ".repeat(4);
        let long: &'static str = Box::leak(format!("d/{long}").into_boxed_str());
        vec![
            ("d", at(now, put(Node::Dir))),
            ("d/checked out", at(checkout, file("text"))),
            ("d/old", at(1_000_000_000, file("a package's"))),
            ("d/made", at(now, file("by the step"))),
            (long, at(now + 1, file("long"))),
            ("d/other name", at(now, put(Node::HardLink(path("d/made"))))),
            ("d/link", at(now, put(Node::Symlink(b"old".to_vec())))),
            ("d/pipe", at(now, put(Node::Fifo))),
            ("d/null", at(now, put(Node::Char { major: 1, minor: 3 }))),
        ]
    }

    #[test]
    fn what_was_made_or_checked_out_gets_the_epoch_and_the_rest_is_at_most_that_old() {
        let bench = Bench::new();
        let layer = made(&bench, wide(NOW, 1_500_000_000), &Chain::default());
        let moments = Moments::from(vec![(NOW, NOW + 5), (1_500_000_000, 1_500_000_000)]);
        let dated = redated(&bench, &layer, &Chain::default(), &moments, EPOCH);
        let found = times(&bench, &dated);
        assert_eq!(found["d/old"], 1_000_000_000);
        assert!(found.iter().all(|(name, time)| name == "d/old" || *time == 1_600_000_000), "{found:?}");
        // The index that is written is the one that reading gives.
        let read = layer::index(&bench.store, &dated.blob, &dated.diff_id, &Chain::default()).unwrap();
        assert_eq!(*read, *dated.index);
    }

    #[test]
    fn two_that_were_made_at_different_times_become_the_same() {
        let bench = Bench::new();
        let one = made(&bench, wide(NOW, 1_500_000_000), &Chain::default());
        let other = made(&bench, wide(NOW - 200_000_000, NOW - 100), &Chain::default());
        let of = |now: i64, checkout: i64| Moments::from(vec![(now, now + 5), (checkout, checkout)]);
        let dated = [(one, of(NOW, 1_500_000_000)), (other, of(NOW - 200_000_000, NOW - 100))]
            .map(|(layer, moments)| redated(&bench, &layer, &Chain::default(), &moments, NOW + 1000));
        assert_eq!(dated[0].diff_id, dated[1].diff_id);
        assert_eq!(dated[0].blob, dated[1].blob);
    }

    #[test]
    fn a_layer_without_such_times_stays_byte_for_byte() {
        let bench = Bench::new();
        let layer = made(&bench, wide(NOW, 5), &Chain::default());
        assert_eq!(redated(&bench, &layer, &Chain::default(), &Moments::default(), i64::MAX).blob, layer.blob);
    }

    #[test]
    fn what_differed_in_nothing_but_such_a_time_goes() {
        let bench = Bench::new();
        let moments = Moments::between(NOW, NOW + 9);
        let first = made(
            &bench,
            vec![("d", at(NOW, put(Node::Dir))), ("d/f", at(NOW, file("x"))), ("gone", at(NOW, file("x")))],
            &Chain::default(),
        );
        let below = Chain::new(vec![Arc::clone(&first.index)]);
        // The same bytes once more, in the same second: no change. In another: one.
        let none = layer::write(&bench.store, &Changes::default(), &below, Compression::Gzip(1)).unwrap();
        let again = made(&bench, vec![("d/f", at(NOW + 1, file("x")))], &below);
        assert_ne!(none.diff_id, again.diff_id);
        let dated_below = Chain::new(vec![redated(&bench, &first, &Chain::default(), &moments, EPOCH).index]);
        let dated = |layer: &Layer| redated(&bench, layer, &dated_below, &moments, EPOCH);
        assert_eq!(dated(&again).diff_id, dated(&none).diff_id);
        // A change beside it keeps the directory; whiteouts and other bytes stay.
        let more = vec![("d/f", at(NOW + 1, file("x"))), ("d/g", at(NOW + 1, file("y"))), ("gone", Change::Whiteout)];
        let found = times(&bench, &dated(&made(&bench, more, &below)));
        assert_eq!(found.into_keys().collect::<Vec<_>>(), [".wh.gone", "d/", "d/g"]);
        let other = times(&bench, &dated(&made(&bench, vec![("d/f", at(NOW + 1, file("z")))], &below)));
        assert_eq!(other.into_keys().collect::<Vec<_>>(), ["d/", "d/f"]);
    }

    #[test]
    fn a_layer_of_others_that_names_a_path_twice_is_refused() {
        let bench = Bench::new();
        let layer = made(&bench, vec![("a", file("x"))], &Chain::default());
        let tar = bench.tar_of(&layer);
        let twice = [&tar[..1024], &tar].concat();
        let (blob, diff_id) = (bench.blob(&twice), DiffId(crate::oci::Digest::of(&twice)));
        let dating = Dating { epoch: 0, moments: Moments::default() };
        let error = redate(&bench.store, (&diff_id, &blob), &Chain::default(), &dating, Compression::Gzip(1)).unwrap_err();
        assert!(matches!(error, Error::BadLayer { .. }), "{error}");
    }
}
