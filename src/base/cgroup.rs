//! How much memory this process may use: what its control groups allow it, or what the machine has.
//!
//! Containers, systemd's `MemoryMax` and Kubernetes' limits are control groups. A group is bounded by those around it,
//! so the smallest limit on the way to the root holds. Inside a container, the own group may be mounted as the root:
//! then only that one can be seen. The CPU quota of the groups needs no code here, because
//! [`std::thread::available_parallelism`] knows it.
//!
//! Invariant: whatever these files hold, the answer is between one byte and the memory of the machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of memory that this process may use.
pub fn memory_limit() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)).max(1);
    limit_below(Path::new("/"), machine)
}

/// The limit, from the files below `root`.
fn limit_below(root: &Path, machine: u64) -> u64 {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        // `hierarchy:controllers:path`; version 2 has the hierarchy 0 and names no controllers.
        let mut parts = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        if hierarchy == "0" && controllers.is_empty() {
            return smallest(&root.join("sys/fs/cgroup"), path, &["memory.max", "memory.high"]);
        }
        let has_memory = controllers.split(',').any(|name| name == "memory");
        has_memory.then(|| smallest(&root.join("sys/fs/cgroup/memory"), path, &["memory.limit_in_bytes"]))?
    });
    limits.fold(machine, u64::min).max(1)
}

/// The smallest number in the files of these names, in the group at `path` and in those around it up to the `mount`.
fn smallest(mount: &Path, path: &str, names: &[&str]) -> Option<u64> {
    // A group of another namespace is shown as `/../…`, and is not below the mount.
    let inside = path.split('/').filter(|part| !part.is_empty() && *part != "..");
    let mut group: PathBuf = mount.to_path_buf();
    let mut groups = vec![group.clone()];
    for part in inside {
        group.push(part);
        groups.push(group.clone());
    }
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    groups.iter().flat_map(|group| names.iter().filter_map(|name| number(group.join(name)))).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: u64 = 64 << 30;

    fn limit(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        limit_below(root.path(), MACHINE)
    }

    #[test]
    fn version_2_takes_the_smallest_on_the_way_up() {
        let own = ("proc/self/cgroup", "0::/system.slice/ironkeep.service\n");
        assert_eq!(limit(&[own]), MACHINE);
        assert_eq!(limit(&[own, ("sys/fs/cgroup/system.slice/ironkeep.service/memory.max", "max\n")]), MACHINE);
        assert_eq!(limit(&[own, ("sys/fs/cgroup/system.slice/ironkeep.service/memory.max", "4096\n")]), 4096);
        let of_parent = ("sys/fs/cgroup/system.slice/memory.max", "2048\n");
        let of_own = ("sys/fs/cgroup/system.slice/ironkeep.service/memory.max", "4096\n");
        assert_eq!(limit(&[own, of_own, of_parent]), 2048);
        let throttled = ("sys/fs/cgroup/system.slice/ironkeep.service/memory.high", "1000\n");
        assert_eq!(limit(&[own, of_own, of_parent, throttled]), 1000);
    }

    #[test]
    fn version_1_has_a_hierarchy_for_memory() {
        let own =
            ("proc/self/cgroup", "12:cpu,cpuacct:/docker/abc\n9:memory:/docker/abc\n1:name=systemd:/docker/abc\n");
        let own_group = ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1073741824\n");
        assert_eq!(limit(&[own, own_group]), 1 << 30);
        // Inside a container, the group is mounted as the root.
        assert_eq!(limit(&[own, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n")]), 1 << 29);
        // No limit is a number near 2^63.
        assert_eq!(limit(&[own, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")]), MACHINE);
    }

    #[test]
    fn both_versions_at_once() {
        let own = ("proc/self/cgroup", "4:memory:/a\n0::/b\n");
        let files =
            [own, ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "5000"), ("sys/fs/cgroup/b/memory.max", "7000")];
        assert_eq!(limit(&files), 5000);
    }

    #[test]
    fn nonsense_is_no_limit() {
        for text in ["", "0", "0::", "x:y:z\n\n:::::\n9:memory\n", "0::/../../etc\n"] {
            assert_eq!(limit(&[("proc/self/cgroup", text), ("sys/fs/cgroup/etc/x", "1")]), MACHINE, "{text:?}");
        }
        let own = ("proc/self/cgroup", "0::/");
        for (text, expected) in [("0", 1), ("-5", MACHINE), ("99999999999999999999", MACHINE), ("12kb", MACHINE)] {
            assert_eq!(limit(&[own, ("sys/fs/cgroup/memory.max", text)]), expected, "{text:?}");
        }
        assert!(memory_limit() > 1 << 20, "the machine of this test has memory");
    }
}
