//! The machine's name.

use std::fs;

/// The host's name as the kernel has it; `HOSTNAME` or `localhost` where the kernel does not say.
pub fn hostname() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    kernel.ok().or_else(|| std::env::var("HOSTNAME").ok()).filter(|name| !name.is_empty()).unwrap_or("localhost".into())
}
