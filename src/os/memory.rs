//! How much memory this process may use.

use rustix::process::{Resource, getrlimit};
use rustix::system::sysinfo;
use std::path::Path;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Bytes of memory that this process may use: those of the machine, or fewer if its control group, one above it, or its
/// own limit of address space (`RLIMIT_AS`) allows less.
pub fn usable() -> usize {
    let info = sysinfo();
    // The types of the fields differ between machines.
    #[allow(clippy::useless_conversion)]
    let machine = u64::from(info.totalram).saturating_mul(info.mem_unit.into());
    let of_group =
        std::fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group_limit(&text, CGROUPS.as_ref()));
    let of_process = getrlimit(Resource::As).current;
    let least = [Some(machine), of_group, of_process].into_iter().flatten().min().unwrap_or(machine);
    usize::try_from(least).unwrap_or(usize::MAX)
}

/// The lowest limit of the control groups in `/proc/self/cgroup`, and of those above them.
fn group_limit(groups: &str, mounted: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        // Version 2 has one hierarchy, version 1 one for memory.
        let (root, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            names if names.split(',').any(|name| name == "memory") => (mounted.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let group = root.join(path.trim_start_matches('/'));
        let up_to_root = group.ancestors().take_while(|folder| folder.starts_with(&root));
        // In a namespace the path may not be mounted here; then the root is the group.
        up_to_root
            .filter_map(|folder| std::fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok())
            .min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_counts() -> std::io::Result<()> {
        let folder = std::env::temp_dir().join(format!("percore-memory-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder"))?;
            std::fs::write(path, text)
        };
        put("a/memory.max", "1000\n")?;
        put("a/b/memory.max", "max\n")?;
        put("a/b/c/memory.max", "3000\n")?;
        put("memory/x/memory.limit_in_bytes", "500\n")?;
        for (groups, want) in [
            ("0::/a/b/c\n", Some(1000)),
            ("0::/a/b\n", Some(1000)),
            ("0::/elsewhere\n", None),
            ("0::/\n", None),
            ("12:memory,x:/x\n3:cpu:/a\n", Some(500)),
            ("12:memory:/x\n0::/a\n", Some(500)),
            ("nonsense", None),
        ] {
            assert_eq!(group_limit(groups, &folder), want, "{groups}");
        }
        std::fs::remove_dir_all(folder)?;
        assert!(usable() > 1 << 20);
        Ok(())
    }
}
