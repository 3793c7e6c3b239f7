//! Addresses that `percore bench` connects from.

use super::Failure;
use crate::bench::Plan;
use crate::os::stream::check_source;
use crate::telemetry::log::in_words;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Largest range of addresses; a million connections need far fewer.
const MOST: u128 = 65_536;

/// One address, or several in a row.
#[derive(Clone, Debug)]
pub(super) struct AddressRange(pub Vec<IpAddr>);

/// Reads `IP` or `IP-IP`.
///
/// # Errors
/// A sentence about what may be typed.
pub(super) fn addresses(text: &str) -> Result<AddressRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
    let range = match (parse(first)?, parse(last)?) {
        (IpAddr::V4(first), IpAddr::V4(last)) => row(u32::from(first).into(), u32::from(last).into())
            .map(|numbers| numbers.map(|number| Ipv4Addr::from(number as u32).into()).collect()),
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            row(first.into(), last.into()).map(|numbers| numbers.map(|number| Ipv6Addr::from(number).into()).collect())
        }
        _ => None,
    };
    range.map(AddressRange).ok_or_else(wrong)
}

fn row(first: u128, last: u128) -> Option<impl Iterator<Item = u128>> {
    (first <= last && last - first < MOST).then_some(first..=last)
}

fn wrong() -> String {
    format!("give an address, or the first and the last of at most {MOST}, such as 10.0.0.5-10.0.0.9")
}

/// Checks that all of them are addresses of this machine.
pub(super) fn check_sources(plan: &Plan) -> Result<(), Failure> {
    for source in &plan.source {
        check_source(*source).map_err(|error| {
            Failure::Usage(format!("--source {source}: cannot connect from there: {}", in_words(&error)))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_several() {
        for (text, count, last) in [
            ("10.0.0.5", 1, "10.0.0.5"),
            ("10.0.0.250-10.0.1.4", 11, "10.0.1.4"),
            ("fd00::1-fd00::ff", 255, "fd00::ff"),
        ] {
            let AddressRange(all) = addresses(text).expect(text);
            assert_eq!((all.len(), all.last().map(IpAddr::to_string)), (count, Some(last.to_owned())));
        }
        for bad in ["", "x", "10.0.0.5-", "10.0.0.5-10.0.0.4", "10.0.0.5-::1", "0.0.0.0-255.255.255.255", "::-ff::"] {
            assert!(addresses(bad).is_err(), "{bad}");
        }
    }
}
