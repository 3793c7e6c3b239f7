//! The machine's name.

use std::fs;

/// The host's name according to the kernel; otherwise `HOSTNAME` or `localhost`.
pub fn hostname() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    kernel.ok().or_else(|| std::env::var("HOSTNAME").ok()).filter(|name| !name.is_empty()).unwrap_or("localhost".into())
}
