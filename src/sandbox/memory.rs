//! A file system in memory for what a step changes, where the store's own cannot hold an overlay's changes: overlayfs is
//! one, which is what the root of an ordinary container is.
//!
//! Source: the kernel's `overlayfs.rst` ("the upper filesystem"), tmpfs.rst.

use std::path::{Path, PathBuf};

use rustix::{
    io::Errno,
    mount::{MountAttrFlags, MoveMountFlags, UnmountFlags},
};

use super::{InitError, init::file_system};

/// A tmpfs, gone when this is dropped.
#[derive(Debug)]
pub struct Memory {
    place: PathBuf,
    size: u64,
}

impl Memory {
    /// Mounts one on `place`, an empty directory that is the caller's alone. Half of what memory there is may be used.
    ///
    /// The caller is the engine: root in a user namespace, with a mount namespace of its own.
    pub fn mount(place: &Path) -> Result<Self, InitError> {
        let failed = || InitError::new::<Errno>("mount", "tmpfs");
        let size = total() / 2;
        let text = size.to_string();
        let flags = MountAttrFlags::MOUNT_ATTR_NODEV;
        let memory = file_system("tmpfs", &[("mode", "0755"), ("size", text.as_str())], flags).map_err(failed())?;
        rustix::mount::move_mount(&memory, c"", rustix::fs::CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed())?;
        Ok(Self { place: place.to_owned(), size })
    }

    /// How many bytes it may hold, if it holds as many: what a step failed of, if it failed.
    pub fn is_full(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.place).ok()?;
        let left = found.f_bfree.saturating_mul(found.f_frsize);
        (left < LITTLE || found.f_ffree == 0).then_some(self.size)
    }
}

/// Less than this left is full: what did not fit has been removed by now, or was never written whole.
const LITTLE: u64 = 1 << 20;

impl Drop for Memory {
    fn drop(&mut self) {
        // If it stays, it ends with the engine's mount namespace.
        rustix::mount::unmount(&self.place, UnmountFlags::DETACH).ok();
    }
}

/// The memory of the machine, or what a container may use of it, in bytes.
fn total() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| mem_total(&text)).unwrap_or(1 << 30);
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let allowed = limits.iter().filter_map(|path| read(path)?.trim().parse().ok()).min().unwrap_or(u64::MAX);
    machine.min(allowed)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(mem_total("MemTotal:       2097152 kB\nMemFree: 1 kB\n"), Some(2 << 30));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
        assert!(total() > 1 << 20);
    }
}
