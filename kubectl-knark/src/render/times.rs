//! Times of day where the user is.

use jiff::{Timestamp, tz::TimeZone};

/// Turns RFC 3339 in UTC into a local time of day. Events come many to a second, so the last second is kept.
#[derive(Debug)]
pub struct LocalTime {
    zone: TimeZone,
    second: String,
    shown: String,
}

impl Default for LocalTime {
    fn default() -> Self {
        Self { zone: TimeZone::system(), second: String::new(), shown: String::new() }
    }
}

impl LocalTime {
    /// Where there is no summer time to mind.
    #[cfg(test)]
    pub fn utc() -> Self {
        Self { zone: TimeZone::UTC, second: String::new(), shown: String::new() }
    }

    /// `HH:MM:SS`, with milliseconds if wanted. What is no time stays as it is.
    pub fn of(&mut self, utc: &str, milliseconds: bool) -> String {
        let Some((second, fraction)) = utc.split_at_checked(19) else { return utc.to_owned() };
        if second != self.second {
            let Ok(time) = utc.parse::<Timestamp>() else { return utc.to_owned() };
            self.shown = time.to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string();
            second.clone_into(&mut self.second);
        }
        let fraction = if milliseconds { fraction.get(..4).unwrap_or_default() } else { "" };
        format!("{}{fraction}", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_local() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let mut times = LocalTime { zone, second: String::new(), shown: String::new() };
        assert_eq!(times.of("2026-01-02T23:04:05.678901234Z", false), "01:04:05");
        assert_eq!(times.of("2026-01-02T23:04:05.999999999Z", true), "01:04:05.999");
        assert_eq!(times.of("2026-01-02T23:04:06.000000001Z", true), "01:04:06.000");
        assert_eq!(times.of("nonsense", true), "nonsense");
    }
}
