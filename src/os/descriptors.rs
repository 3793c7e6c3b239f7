//! How many descriptors this process may have open.

/// The soft limit, `None` where there is none or it cannot be read.
pub fn descriptor_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_are_some() {
        assert!(super::descriptor_limit().is_none_or(|limit| limit > 100));
    }
}
