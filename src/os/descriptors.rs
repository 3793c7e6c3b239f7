//! How many descriptors this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, since every connection is a descriptor. Returns the resulting limit, `None`
/// if unlimited. If that is not permitted, the limit stays.
pub fn raise_descriptor_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_soft_limit_is_the_hard_one() {
        let raised = super::raise_descriptor_limit();
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        assert_eq!(raised, hard);
    }
}
