//! Durations and sizes as people type them.

use std::time::Duration;

/// The longest duration a flag takes, well below what the timers can count.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Reads `30s`, `500ms`, `20us`, `1m30s` or `1.5h`, or a bare number of seconds.
///
/// # Errors
/// A sentence about what may be typed.
pub fn duration(text: &str) -> Result<Duration, String> {
    time(text, 1.0)
}

/// Like [`duration`], but a bare number is in microseconds, and a second is the most.
///
/// # Errors
/// A sentence about what may be typed.
pub fn microseconds(text: &str) -> Result<Duration, String> {
    match time(text, 1e-6)? {
        wait if wait <= Duration::from_secs(1) => Ok(wait),
        _ => Err("longer than a second".into()),
    }
}

/// Reads a time; a bare number counts units of `bare` seconds.
fn time(text: &str, bare: f64) -> Result<Duration, String> {
    let (mut rest, mut seconds) = (text.trim(), 0.0);
    // A part that is not a number makes the sum NaN.
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let factor = match unit.trim() {
            "" if number.len() == text.trim().len() => bare,
            "ns" => 1e-9,
            // The micro sign, or the Greek letter.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 24.0 * 3600.0,
            _ => f64::NAN,
        };
        seconds += number.parse::<f64>().map_or(f64::NAN, |number| number * factor);
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err("longer than a week".into()),
        Err(_) => Err("give a time such as 30s, 500ms, 20us, 2m or 1m30s".into()),
    }
}

/// Reads a boolean in the spellings common in environments.
///
/// # Errors
/// A sentence about what may be typed.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("give true or false (or yes, no, on, off, 1, 0)".into()),
    }
}

/// Reads permissions as chmod takes them: `660`, `0600`.
///
/// # Errors
/// A sentence about what may be typed.
pub fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("give permissions in octal, such as 660".into()),
    }
}

/// Reads `65536`, `64K`, `64KiB`, `16M` or `1G`: multiples of 1024.
///
/// # Errors
/// A sentence about what may be typed.
pub fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => 64,
    };
    let factor = 1usize.checked_shl(shift);
    let size = number.parse::<usize>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    size.filter(|size| *size <= 1 << 40).ok_or_else(|| "give a size such as 65536, 64K, 16M or 1G".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type() {
        for (text, milliseconds) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("0", 0),
            ("1.5s", 1_500),
            ("250ms", 250),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("1h 30m", 5_400_000),
            ("2m0.5s", 120_500),
            ("20000us", 20),
            ("1d", 86_400_000),
            // As Go prints them.
            ("0s", 0),
            ("1h2m3.5s", 3_723_500),
            ("2h45m0s", 9_900_000),
            ("1.5h", 5_400_000),
            ("100000\u{b5}s", 100),
            ("100000\u{3bc}s", 100),
            ("1000000ns", 1),
            (".5s", 500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "s", "-1s", "3 days", "1e3", "ms", "9999h", "NaN", "1m30", "1m 30", "5s5", "1..5s", "."] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for (text, wait) in [("50", 50), ("20us", 20), ("1ms", 1_000), ("0", 0), ("1s", 1_000_000)] {
            assert_eq!(microseconds(text), Ok(Duration::from_micros(wait)), "{text}");
        }
        assert!(microseconds("2s").is_err() && microseconds("1000001").is_err());
        for (text, is_on) in [("1", true), ("yes", true), ("ON", true), ("true", true), ("0", false), ("Off", false)] {
            assert_eq!(boolean(text), Ok(is_on), "{text}");
        }
        assert!(boolean("perhaps").is_err() && boolean("").is_err());
        for (text, size) in
            [("0", 0), ("65536", 65536), ("64K", 65536), ("64KiB", 65536), ("16m", 16 << 20), ("1G", 1 << 30)]
        {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for bad in ["", "K", "-1", "1.5M", "1T", "99999999999999999999", "9999999G"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!((mode("660"), mode("0600")), (Ok(0o660), Ok(0o600)));
        for bad in ["", "888", "1777", "-1", "rw"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
