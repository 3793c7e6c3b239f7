//! Routes that every server has: `/healthz` for probes, `/healthcheck` with the uptime. A service listener also has
//! `/readyz`, for load balancers.

use crate::protocol::http::{Request, Response};
use std::time::Duration;

/// Whether the path is a health route.
pub(super) fn is_path(request: &Request<'_>) -> bool {
    matches!(request.path(), "/healthz" | "/healthcheck") || (request.is_service() && request.path() == "/readyz")
}

/// The answer to a health route, `None` for any other path.
pub(super) fn route(request: &Request<'_>, uptime: Duration, draining: bool, healthy: bool) -> Option<Response> {
    if !is_path(request) {
        return None;
    }
    let health = match request.path() {
        "/readyz" if draining || !healthy => Response::text(503, "not ready"),
        "/readyz" => Response::text(200, "ready"),
        "/healthz" if draining => Response::text(503, "draining"),
        "/healthz" if !healthy => Response::text(503, "unhealthy"),
        "/healthz" => Response::text(200, "ok"),
        "/healthcheck" => {
            let body = format!("{{\"uptime\":\"{}\"}}", duration(uptime));
            Response::new(200).content("application/json", body)
        }
        _ => return None,
    };
    let reads = matches!(request.method(), "GET" | "HEAD");
    Some(if reads { health } else { wrong_method("GET, HEAD") })
}

/// 405 with the allowed methods.
pub(super) fn wrong_method(allowed: &str) -> Response {
    Response::text(405, &format!("This path takes {allowed}.")).header("Allow", allowed)
}

/// Formats a duration as Go does, for clients that parse that: `1h2m3.5s`, `12.5ms`.
fn duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    let trimmed = |value: f64, digits: usize| {
        let text = format!("{value:.digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", trimmed(nanos as f64 / 1e3, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", trimmed(nanos as f64 / 1e6, 6)),
        _ => {
            let (minutes, hours) = (time.as_secs() / 60, time.as_secs() / 3600);
            let fraction = format!("{:09}", time.subsec_nanos());
            let fraction = fraction.trim_end_matches('0');
            let dot = if fraction.is_empty() { "" } else { "." };
            let seconds = format!("{}{dot}{fraction}s", time.as_secs() % 60);
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{}m{seconds}", minutes % 60),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        for (nanos, want) in [
            (0u64, "0s"),
            (17, "17ns"),
            (1_500, "1.5µs"),
            (12_500_000, "12.5ms"),
            (1_000_000_000, "1s"),
            (63_500_000_000, "1m3.5s"),
            (3_723_000_000_001, "1h2m3.000000001s"),
            (360_000_000_000_000, "100h0m0s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), want);
        }
    }
}
