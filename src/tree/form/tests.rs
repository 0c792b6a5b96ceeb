//! The form: round trips, what is refused, searches.

use proptest::prelude::*;

use super::super::{Index, IndexBuilder, IndexWriter, Unfit};
use super::*;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn entry(kind: Kind) -> Entry {
    let xattrs = Xattrs::from([(b"user.a".to_vec(), vec![0, 1]), (b"security.capability".to_vec(), vec![])]);
    Entry { meta: Meta { mode: 0o4755, uid: 7, gid: u32::MAX, mtime: -5, xattrs }, kind }
}

fn put(kind: Kind) -> Row {
    Row::Put { entry: entry(kind), link: None, opaque: false }
}

fn sample() -> Index {
    let mut builder = IndexBuilder::default();
    let passwd = Kind::File { size: 4, content: ContentDigest::of(b"root") };
    builder.put(path("etc"), Row::Put { entry: entry(Kind::Dir), link: None, opaque: true });
    builder.put(path("etc/passwd"), put(passwd.clone()));
    builder.put(path("etc/passwd-"), Row::Put { entry: entry(passwd), link: Some(path("etc/passwd")), opaque: false });
    builder.put(path("gone"), Row::Whiteout);
    builder.put(path("link"), put(Kind::Symlink { target: b"\xff/..".to_vec() }));
    builder.put(path("null"), put(Kind::Char { major: 1, minor: 3 }));
    builder.put(path("sda"), put(Kind::Block { major: 8, minor: 0 }));
    builder.put(path("pipe"), put(Kind::Fifo));
    builder.keep(path("etc/passwd"), Arc::from(&b"root"[..]));
    builder.finish()
}

/// The same rows with a digest that fits, as somebody hostile would write them.
fn signed(rows: &[(TreePath, Row)]) -> Vec<u8> {
    let mut bytes = [MAGIC, &(rows.len() as u64).to_le_bytes()].concat();
    let mut last: &[u8] = b"";
    for (number, (path, row)) in rows.iter().enumerate() {
        let mut out = Writer(Vec::new());
        out.step(number, last, path);
        out.row(row);
        bytes.extend(out.0);
        last = path.as_bytes();
    }
    bytes.extend(0_u64.to_le_bytes());
    with_digest(bytes)
}

fn with_digest(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

#[test]
fn an_index_reads_back_as_it_was_written() {
    let index = sample();
    assert_eq!(Index::decode(index.encode().to_vec()), Ok(index));
    assert_eq!(Index::decode(Index::default().encode().to_vec()), Ok(Index::default()));
}

#[test]
fn a_flipped_bit_or_a_cut_is_noticed() {
    let bytes = sample().encode().to_vec();
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 4;
        assert!(Index::decode(other).is_err(), "byte {at}");
        assert!(Index::decode(bytes[..at].to_vec()).is_err(), "cut at {at}");
    }
}

#[test]
fn rows_that_cannot_be_are_refused_even_with_a_digest_that_fits() {
    let file = || put(Kind::File { size: 1, content: ContentDigest::of(b"x") });
    let link = |to: &str| Row::Put { entry: entry(Kind::Fifo), link: Some(path(to)), opaque: false };
    let cases: Vec<(&str, Vec<(TreePath, Row)>)> = vec![
        ("out of order", vec![(path("b"), file()), (path("a"), file())]),
        ("twice", vec![(path("a"), file()), (path("a"), file())]),
        ("the root is a file", vec![(TreePath::root(), file())]),
        ("the root is gone", vec![(TreePath::root(), Row::Whiteout)]),
        ("an opaque file", vec![(path("a"), Row::Put { entry: entry(Kind::Fifo), link: None, opaque: true })]),
        ("a link to nothing", vec![(path("a"), link("b"))]),
        ("a link to another entry", vec![(path("a"), file()), (path("b"), link("a"))]),
        ("an empty target", vec![(path("a"), put(Kind::Symlink { target: Vec::new() }))]),
    ];
    for (what, rows) in cases {
        assert!(Index::decode(signed(&rows)).is_err(), "{what}");
    }
    assert!(Index::decode(signed(&[(path("a"), put(Kind::Fifo)), (path("b"), link("a"))])).is_ok());
}

#[test]
fn a_count_that_no_memory_holds_is_refused_before_it_is_reserved() {
    let mut bytes = [MAGIC, &u64::MAX.to_le_bytes()].concat();
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    assert!(Index::decode(bytes.clone()).is_err());
}

/// What somebody hostile wrote is refused, or it is the one form of what is read from it, and is found as it is gone through.
fn is_refused_or_the_one_form(body: Vec<u8>) -> Result<(), TestCaseError> {
    let bytes = with_digest(body);
    let Ok(index) = Index::decode(bytes.clone()) else { return Ok(()) };
    let mut builder = IndexBuilder::default();
    for (path, row) in index.rows() {
        prop_assert_eq!(index.row(&path), Some(row.clone()), "{}", path);
        builder.put(path, row);
    }
    index.all_kept().for_each(|(path, kept)| builder.keep(path.clone(), Arc::clone(kept)));
    let again = builder.finish();
    prop_assert_eq!(again.len(), index.len());
    prop_assert!(again.encode() == bytes, "other bytes that say the same are taken");
    prop_assert_eq!(again, index);
    Ok(())
}

#[test]
fn a_byte_that_is_changed_cut_off_taken_out_or_put_in_is_never_another_form_of_the_same() {
    let bytes = sample().encode().to_vec();
    let body = &bytes[..bytes.len() - DIGEST];
    for at in 0..body.len() {
        let around = |middle: &[u8], rest: usize| [&body[..at], middle, &body[rest..]].concat();
        let mut hostile = vec![body[..at].to_vec(), around(&[], at + 1), around(&[0], at), around(&[0x80], at), around(&[0, 0], at + 1)];
        // A number that says the same in one byte more.
        hostile.push(around(&[body[at] | 0x80, 0], at + 1));
        hostile.extend((0..8).map(|bit| around(&[body[at] ^ (1 << bit)], at + 1)));
        hostile.extend([0, 1, 0x7f, 0x80, 0xff].map(|byte| around(&[byte], at + 1)));
        for each in hostile.into_iter().filter(|each| each != body) {
            is_refused_or_the_one_form(each).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn any_signed_bytes_are_refused_or_the_one_form(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        is_refused_or_the_one_form([MAGIC, &body].concat())?;
    }

    #[test]
    fn bytes_that_are_changed_here_and_there_are_refused_or_the_one_form(
        names in proptest::collection::btree_set("[ab/]{1,6}", 1..40),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut builder = IndexBuilder::default();
        for (number, name) in names.iter().enumerate() {
            let kinds = [Kind::Dir, Kind::Fifo, Kind::Symlink { target: b"x".to_vec() }, Kind::File { size: 1, content: ContentDigest::of(b"x") }];
            let row = if number % 5 == 4 { Row::Whiteout } else { put(kinds[number % 5].clone()) };
            let path = path(name);
            if !path.is_root() {
                builder.put(path, row);
            }
        }
        let mut body = builder.finish().encode().to_vec();
        body.truncate(body.len() - DIGEST);
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        is_refused_or_the_one_form(body)?;
    }
}

#[test]
fn a_hundred_thousand_rows_are_looked_up_by_search() {
    let mut builder = IndexBuilder::default();
    for dir in 0..100 {
        builder.put(path(&format!("d{dir}")), put(Kind::Dir));
        for file in 0..1000 {
            builder.put(path(&format!("d{dir}/f{file}")), put(Kind::Fifo));
        }
    }
    let index = Index::decode(builder.finish().encode().to_vec()).unwrap();
    assert_eq!(index.len(), 100_100);
    assert!(index.row(&path("d42/f999")).is_some());
    assert_eq!(index.children(&path("d7")).count(), 1000);
    assert_eq!(index.children(&TreePath::root()).count(), 100);
}

#[test]
fn other_bytes_that_would_say_the_same_are_refused() {
    let fifo = |path: &[u8]| {
        let mut out = Writer(Vec::new());
        out.text(path);
        out.row(&put(Kind::Fifo));
        out.0
    };
    let index = |rows: &[(u64, &[u8], &[u8])]| {
        let mut out = Writer([MAGIC, &(rows.len() as u64).to_le_bytes()].concat());
        for (shared, rest, row) in rows {
            out.number(*shared);
            out.text(rest);
            out.0.extend_from_slice(row);
        }
        out.fixed(0);
        with_digest(out.0)
    };
    let row = fifo(b"").split_off(1);
    assert!(Index::decode(index(&[(0, b"ab", &row), (1, b"c", &row)])).is_ok());
    assert!(Index::decode(index(&[(0, b"ab", &row), (0, b"ac", &row)])).is_err(), "less than is shared");
    assert!(Index::decode(index(&[(1, b"b", &row)])).is_err(), "shared with nothing");
    let long = [&[row[0] + 1], &row[1..], b"x"].concat();
    assert!(Index::decode(index(&[(0, b"ab", &long)])).is_err(), "more in a row than it says");
    let wide = [&[row[0] | 0x80, 0], &row[1..]].concat();
    assert!(Index::decode(index(&[(0, b"ab", &wide)])).is_err(), "a number longer than it need be");
}

#[test]
fn rows_are_found_and_gone_through_in_both_directions_wherever_blocks_end() {
    for count in [0, 1, 15, 16, 17, 32, 100] {
        let mut builder = IndexBuilder::default();
        let paths: Vec<TreePath> = (0..count).map(|number| path(&format!("d/{number:03}"))).collect();
        for each in &paths {
            builder.put(each.clone(), put(Kind::Fifo));
        }
        let index = builder.finish();
        assert_eq!(index.rows().map(|(path, _)| path).collect::<Vec<_>>(), paths);
        let mut back: Vec<TreePath> = index.rows_back().map(|(path, _)| path).collect();
        back.reverse();
        assert_eq!(back, paths);
        assert!(paths.iter().all(|path| index.row(path).is_some()));
        assert!(index.row(&path("d/0")).is_none() && index.row(&path("d")).is_none() && index.row(&path("e")).is_none());
        assert_eq!(index.rows_within(&path("d")).count(), count);
    }
}

#[test]
fn a_writer_takes_rows_in_order_alone_and_puts_whiteouts_where_they_belong() {
    let mut writer = IndexWriter::default();
    writer.put(&path("d"), &put(Kind::Dir)).unwrap();
    writer.whiteout(path("d/m")).unwrap();
    assert_eq!(writer.row(&path("d/m")), Some(Row::Whiteout));
    writer.put(&path("d/a"), &put(Kind::Fifo)).unwrap();
    writer.put(&path("d/z"), &put(Kind::Fifo)).unwrap();
    assert_eq!(writer.put(&path("d/y"), &put(Kind::Fifo)), Err(Unfit::Late));
    // A whiteout that were lost would show what is gone.
    assert_eq!([path("d/b"), path("d/z")].map(|late| writer.whiteout(late)), [Err(Unfit::Late); 2]);
    writer.whiteout(path("e")).unwrap();
    let names: Vec<String> = writer.finish().rows().map(|(path, _)| path.to_string()).collect();
    assert_eq!(names, ["/d", "/d/a", "/d/m", "/d/z", "/e"]);
}
