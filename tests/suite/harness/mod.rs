//! What the tests stand on: a hermetic project, an independent reader of images, bases made here, and the programs
//! of others.

mod base;
mod docker;
mod network;
mod origin;
mod podman;
mod prerequisite;
mod project;
mod reader;
mod registry;
mod scan;
mod sshd;
mod tree;
mod way;
mod web;

pub(crate) use base::{busybox_layout, busybox_layout_with, debian_rootfs};
pub(crate) use docker::Docker;
pub(crate) use network::{free_port, get, processes_with, wait_until};
pub(crate) use origin::{GitDaemon, Shelf};
pub(crate) use podman::Podman;
pub(crate) use prerequisite::{am_root, need, need_all, need_root, need_user, rust_files, skipped, sources};
pub(crate) use project::{Project, Ran, copy_program, output_of};
pub(crate) use reader::{Image, Layer, sha256};
pub(crate) use registry::Registry;
pub(crate) use scan::{Needle, found};
pub(crate) use sshd::{SshAgent, Sshd, copy_programs};
pub(crate) use tree::{Kind, Node, differences, merged, read_layer};
pub(crate) use way::Way;
pub(crate) use web::{Asked, Web, answer};
