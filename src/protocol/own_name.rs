//! Names by which a request means this machine, rather than one that an attacker's DNS may have pointed at it
//! (rebinding).

use std::net::IpAddr;

/// Whether the value of a Host header is an address, `localhost` or nothing.
pub fn is_own_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.is_empty() || bare.parse::<IpAddr>().is_ok() || bare.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_to_this_machine_alone() {
        for own in ["localhost", "LocalHost:9465", "127.0.0.1:9465", "10.0.0.7", "[::1]:9465", "[::1]", ""] {
            assert!(is_own_name(own), "{own}");
        }
        for other in ["example.com", "example.com:9465", "localhost.example.com", "127.0.0.1.example.com", "a:b"] {
            assert!(!is_own_name(other), "{other}");
        }
    }
}
