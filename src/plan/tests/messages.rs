//! What is said when a Dockerfile means nothing.

use super::{Shelf, amd64, message, messages, plan, resolved};
use crate::{error::Kind, oci::Config, plan::Request};

fn said(text: &str) -> Vec<String> {
    messages(text, &amd64(), &Shelf::new())
}

#[test]
fn a_stage_that_is_misspelt_is_suggested() {
    insta::assert_debug_snapshot!(said("FROM busybox AS build\nFROM scratch\nCOPY --from=biuld /a /b\nRUN --mount=from=bild,target=/m x\n"));
}
