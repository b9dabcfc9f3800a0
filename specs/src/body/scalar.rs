//! Single values as Go's JSON shows them.

use jiff::Timestamp;
use serde_json::Value;

/// The seconds of Go's zero time, 0001-01-01T00:00:00Z.
const ZERO_TIME: i64 = -62_135_596_800;

/// Seconds since the epoch as RFC 3339, and whether that is Go's zero time; a number where there is no such time.
pub fn time(seconds: i64) -> (Value, bool) {
    let shown = match Timestamp::from_second(seconds) {
        _ if seconds == ZERO_TIME => Value::Null,
        Ok(time) => time.to_string().into(),
        Err(_) => seconds.into(),
    };
    (shown, seconds == ZERO_TIME)
}

/// The same to the microsecond.
pub fn micro_time(seconds: i64, nanoseconds: i64) -> (Value, bool) {
    let is_zero = (seconds, nanoseconds) == (ZERO_TIME, 0);
    let all = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    // What is below a microsecond is cut, towards the past.
    let shown = match Timestamp::from_nanosecond(all.div_euclid(1000) * 1000) {
        _ if is_zero => Value::Null,
        Ok(time) => format!("{time:.6}").into(),
        Err(_) => seconds.into(),
    };
    (shown, is_zero)
}

/// Nanoseconds as Go's time.Duration shows itself: `1h2m3.5s`, `1.5ms`, `0s`.
pub fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    // What is below the unit, which has so many digits.
    let fraction = |below: u64, digits: usize| {
        let digits = format!("{below:0digits$}");
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() { String::new() } else { format!(".{digits}") }
    };
    match all {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{all}ns"),
        1_000..1_000_000 => format!("{sign}{}{}µs", all / 1_000, fraction(all % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}{}ms", all / 1_000_000, fraction(all % 1_000_000, 6)),
        _ => {
            let (seconds, below) = (all / 1_000_000_000, fraction(all % 1_000_000_000, 9));
            let above = match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => String::new(),
                (0, minutes) => format!("{minutes}m"),
                (hours, minutes) => format!("{hours}h{minutes}m"),
            };
            format!("{sign}{above}{}{below}s", seconds % 60)
        }
    }
}

/// As a whole number where it is one, as Go's JSON has it; null where it is none.
pub fn float(number: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
    if number.fract() == 0.0 && number.abs() < 1e15 { (number as i64).into() } else { number.into() }
}

/// How deep it is: 0 for what holds nothing else.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_shown_as_go_shows_them() {
        for (seconds, want) in [
            (0, json!("1970-01-01T00:00:00Z")),
            (1_700_000_000, json!("2023-11-14T22:13:20Z")),
            (-1, json!("1969-12-31T23:59:59Z")),
            (ZERO_TIME, Value::Null),
            (i64::MAX, json!(i64::MAX)),
        ] {
            assert_eq!(time(seconds).0, want);
        }
        for (seconds, nanoseconds, want) in [
            (1, 2_999, json!("1970-01-01T00:00:01.000002Z")),
            (0, 0, json!("1970-01-01T00:00:00.000000Z")),
            (-1, 1_999, json!("1969-12-31T23:59:59.000001Z")),
            (i64::MIN, i64::MIN, json!(i64::MIN)),
            (i64::MAX, i64::MAX, json!(i64::MAX)),
        ] {
            assert_eq!(micro_time(seconds, nanoseconds).0, want);
        }
    }

    #[test]
    fn durations_are_shown_as_go_shows_them() {
        for (nanoseconds, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (-245_000_000_000, "-4m5s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (3_600_000_000_000, "1h0m0s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(duration(nanoseconds), want);
        }
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        assert_eq!([float(1.0), float(-2.5), float(f64::NAN)], [json!(1), json!(-2.5), Value::Null]);
    }
}
