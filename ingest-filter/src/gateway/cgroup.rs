//! How much memory the process may take: what its control groups allow, version 1 or 2.

use std::path::{Path, PathBuf};

/// Where control groups are mounted.
pub const MOUNT: &str = "/sys/fs/cgroup";
/// Which groups a process is in.
pub const GROUPS: &str = "/proc/self/cgroup";
/// Version 1 writes a number near 2⁶³ for no limit.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// The least of the limits of the process's groups and of those around them, bytes; none where
/// there is no limit, or no group that says so.
pub fn memory_limit(mount: &Path, groups: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(groups).ok()?;
    let files = groups.lines().filter_map(|line| file(mount, line));
    files.filter_map(|(top, group, name)| least(&top, &group, name)).min()
}

/// Where a line of `/proc/self/cgroup` says that the limit is: the directory of the hierarchy,
/// the group in it, the file.
fn file(mount: &Path, line: &str) -> Option<(PathBuf, PathBuf, &'static str)> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
    let (top, name) = match controllers {
        "" => (mount.to_owned(), "memory.max"),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            (mount.join("memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    Some((top.clone(), top.join(group.trim_start_matches('/')), name))
}

/// A container sees its own group as the top, so a path that is not there is looked for above.
fn least(top: &Path, group: &Path, name: &str) -> Option<u64> {
    let inside = group.ancestors().take_while(|path| path.starts_with(top));
    let limits = inside.filter_map(|path| {
        let limit = std::fs::read_to_string(path.join(name)).ok()?.trim().parse().ok()?;
        (limit < NO_LIMIT_BYTES).then_some(limit)
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(groups: &str, files: &[(&str, &str)], expected: Option<u64>) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let own = directory.path().join("cgroup");
        std::fs::write(&own, groups).expect("written");
        let mount = directory.path().join("mount");
        for (path, text) in files {
            let path = mount.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            std::fs::write(path, text).expect("written");
        }
        assert_eq!(memory_limit(&mount, &own), expected, "{groups:?} {files:?}");
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_around_it() {
        let pod = "0::/kubepods/pod1/app\n";
        check(pod, &[("kubepods/pod1/app/memory.max", "1073741824\n")], Some(1 << 30));
        let around = [("kubepods/pod1/app/memory.max", "max\n"), ("kubepods/memory.max", "5000\n")];
        check(pod, &around, Some(5000));
        // Inside of a container the group is the top.
        check("0::/\n", &[("memory.max", "2048\n")], Some(2048));
        check(pod, &[("memory.max", "4096\n")], Some(4096));
        check("0::/\n", &[("memory.max", "max\n")], None);
        check("0::/\n", &[], None);
        check("", &[("memory.max", "1")], None);
        let old = "11:cpu,cpuacct:/a\n9:memory:/docker/1\n0::/x\n";
        check(old, &[("memory/docker/1/memory.limit_in_bytes", "777\n")], Some(777));
        check(old, &[("memory/memory.limit_in_bytes", "9223372036854771712\n")], None);
    }

    #[test]
    fn this_process_is_in_some_group_or_none() {
        assert!(memory_limit(Path::new(MOUNT), Path::new(GROUPS)).is_none_or(|limit| limit > 0));
        assert_eq!(memory_limit(Path::new(MOUNT), Path::new("/nowhere")), None);
    }
}
