//! Converts seconds since 1970 to a date: RFC 3339 for logs, IMF-fixdate for HTTP (RFC 9110, section 5.6.7).

/// A moment in UTC, to the second.
///
/// ```
/// use percore::internal::time::calendar::Utc;
///
/// let moment = Utc::from_unix(784_111_777);
/// assert_eq!(moment.http_date(), "Sun, 06 Nov 1994 08:49:37 GMT");
/// assert_eq!(moment.rfc3339(42), "1994-11-06T08:49:37.042Z");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Utc {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    weekday: u64,
}

impl Utc {
    /// The moment `seconds` after 1970-01-01T00:00:00Z, not counting leap seconds.
    pub fn from_unix(seconds: u64) -> Utc {
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        // Years start in March here, so that the leap day is the last of its year; an era is 400 years.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Utc {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
            weekday: (days + 4) % 7,
        }
    }

    /// Formats as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
    pub fn http_date(&self) -> String {
        let weekday = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"][self.weekday as usize];
        let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            [self.month as usize - 1];
        format!(
            "{weekday}, {:02} {month} {} {:02}:{:02}:{:02} GMT",
            self.day, self.year, self.hour, self.minute, self.second
        )
    }

    /// Formats as `1994-11-06T08:49:37.042Z` (RFC 3339). `milliseconds` is 0 to 999.
    pub fn rfc3339(&self, milliseconds: u32) -> String {
        format!("{}.{milliseconds:03}Z", self.seconds())
    }

    /// Formats as `1994-11-06T08:49:37.042000001Z` (RFC 3339). `nanoseconds` is below a billion.
    pub fn rfc3339_nanos(&self, nanoseconds: u32) -> String {
        format!("{}.{nanoseconds:09}Z", self.seconds())
    }

    /// Formats as `1994-11-06T08:49:37`, without fraction and zone.
    pub fn seconds(&self) -> String {
        let Utc { year, month, day, hour, minute, second, .. } = self;
        format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        assert_eq!(Utc::from_unix(784_111_777).http_date(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(Utc::from_unix(0).rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(Utc::from_unix(0).rfc3339_nanos(42), "1970-01-01T00:00:00.000000042Z");
        assert_eq!(Utc::from_unix(951_782_400).rfc3339(7), "2000-02-29T00:00:00.007Z");
        assert_eq!(Utc::from_unix(4_102_444_799).rfc3339(999), "2099-12-31T23:59:59.999Z");
    }
}
