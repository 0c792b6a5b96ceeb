//! The history of an image: one line for each instruction, and which of them made a layer.
//!
//! Invariant: the lines that are not `empty_layer` are as many as the layers. A base that breaks it is mended
//! here; nothing else of a base's history changes. Times are a function of the layers' times alone, so that a
//! rebuild whose every step is cached gives the same digests.

use crate::oci::History;

use super::assemble::Item;

/// On lines that stand for layers of a base which its own history does not account for.
const PADDING: &str = "buildkit.exporter.image.v0";

/// A base's history, made to fit its number of layers: missing lines are appended, surplus ones made empty.
pub(super) fn of_base(history: &[History], layers: usize, created: Option<&str>) -> Vec<History> {
    let mut seen = 0;
    let mut lines: Vec<History> = history
        .iter()
        .map(|line| {
            let surplus = !line.empty_layer && seen >= layers;
            seen += usize::from(!line.empty_layer && !surplus);
            History { empty_layer: line.empty_layer || surplus, ..line.clone() }
        })
        .collect();
    lines.extend((seen..layers).map(|_| History {
        created: created.map(str::to_owned),
        comment: Some(PADDING.to_owned()),
        ..History::default()
    }));
    lines
}

/// The lines of what was built. A line without a layer takes the time of the layer nearest before it; where there
/// is none, of the first one made; where none was made, of the base.
pub(super) fn of_items(items: &[Item], base_created: Option<&str>) -> Vec<History> {
    let first = items.iter().find_map(Item::created).or(base_created);
    items
        .iter()
        .scan(first, |time, item| {
            *time = item.created().or(*time);
            Some(History {
                created: time.map(str::to_owned),
                created_by: Some(item.created_by.clone()),
                comment: Some(item.comment.clone()).filter(|text| !text.is_empty()),
                empty_layer: item.layer.is_none(),
                ..History::default()
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, DiffId, Digest, media_type};

    fn line(name: &str, empty_layer: bool) -> History {
        History { created_by: Some(name.into()), empty_layer, ..History::default() }
    }

    fn made(created: &str) -> Item {
        let digest = Digest::of(created.as_bytes());
        let layer = (DiffId(digest), Descriptor::new(media_type::LAYER, digest, 1), created.to_owned());
        Item { layer: Some(layer), ..Item::new("RUN x") }
    }

    #[test]
    fn a_history_that_fits_is_left_as_it_is() {
        let lines = vec![line("a", false), line("b", true), line("c", false)];
        assert_eq!(of_base(&lines, 2, Some("t")), lines);
    }

    #[test]
    fn layers_that_a_base_does_not_account_for_get_a_line_each() {
        let lines = of_base(&[line("a", false)], 3, Some("t"));
        assert_eq!(lines.iter().filter(|line| !line.empty_layer).count(), 3);
        assert_eq!(lines[0], line("a", false));
        assert_eq!(lines[2].comment.as_deref(), Some(PADDING));
        assert_eq!(lines[2].created.as_deref(), Some("t"));
    }

    #[test]
    fn lines_beyond_the_last_layer_become_empty() {
        let lines = of_base(&[line("a", false), line("b", false)], 1, None);
        assert_eq!(lines, [line("a", false), line("b", true)]);
    }

    #[test]
    fn a_line_without_a_layer_takes_the_time_of_the_layer_before_it() {
        let items = [Item::new("ENV a"), made("1"), Item::new("ENV b"), made("2"), Item::new("CMD c")];
        let times: Vec<_> = of_items(&items, Some("0")).into_iter().filter_map(|line| line.created).collect();
        assert_eq!(times, ["1", "1", "1", "2", "2"]);
    }

    #[test]
    fn where_no_layer_was_made_the_base_gives_the_time() {
        let lines = of_items(&[Item::new("ENV a")], Some("0"));
        assert_eq!(lines[0].created.as_deref(), Some("0"));
        assert_eq!(of_items(&[Item::new("ENV a")], None)[0].created, None);
    }
}
