//! Durations and sizes as people type them.

use std::time::Duration;

/// The longest duration a flag takes. Well below what the timers can count.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Reads `30s`, `500ms`, `2m`, `1h`, or a bare number of seconds.
///
/// # Errors
/// A sentence that says what may be typed.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    let wanted = number.parse::<f64>().map_or(f64::NAN, |number| number * seconds);
    match Duration::try_from_secs_f64(wanted) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err("longer than a week".into()),
        Err(_) => Err("give a time such as 30s, 500ms, 2m or 1h".into()),
    }
}

/// Reads a yes or a no, as people write them in environments.
///
/// # Errors
/// A sentence that says what may be typed.
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
/// A sentence that says what may be typed.
pub fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("give permissions in octal, such as 660".into()),
    }
}

/// Reads a number of microseconds: `50`.
///
/// # Errors
/// A sentence that says what may be typed.
pub fn microseconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(number @ 0..=1_000_000) => Ok(Duration::from_micros(number)),
        _ => Err("give a number of microseconds, at most 1000000".into()),
    }
}

/// Reads `65536`, `64K`, `64KiB`, `16M` or `1G`: multiples of 1024.
///
/// # Errors
/// A sentence that says what may be typed.
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
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "s", "-1s", "3 days", "1e3", "ms", "9999h", "NaN"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
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
