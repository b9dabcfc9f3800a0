//! Plain scalars of YAML's core schema (YAML 1.2.2, chapter 10.3).

use serde_json::Number;

use super::Value;

/// What a plain scalar without a tag stands for.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

/// Whether a text is a number.
pub(super) fn is_number(text: &str) -> bool {
    is_integer(text) || is_float(text)
}

/// Whether a text is a whole number.
pub(super) fn is_integer(text: &str) -> bool {
    let all = |digits: &str, is: fn(&u8) -> bool| !digits.is_empty() && digits.as_bytes().iter().all(is);
    match text.split_at_checked(2) {
        Some(("0o", digits)) => all(digits, |digit| matches!(digit, b'0'..=b'7')),
        Some(("0x", digits)) => all(digits, u8::is_ascii_hexdigit),
        _ => all(text.strip_prefix(['-', '+']).unwrap_or(text), u8::is_ascii_digit),
    }
}

/// The number that [`is_number`] saw; `None` where JSON has none, as for infinity.
pub(super) fn number(text: &str) -> Option<Number> {
    let radix = |digits, radix| u64::from_str_radix(digits, radix).ok().map(Number::from);
    match text.split_at_checked(2) {
        Some(("0o", digits)) => radix(digits, 8),
        Some(("0x", digits)) => radix(digits, 16),
        _ => {
            let whole = text.parse().ok().map(|number: i64| number.into());
            whole.or_else(|| text.parse().ok().map(|number: u64| number.into())).or_else(|| Number::from_f64(text.parse().ok()?))
        }
    }
}

fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    // Rust reads more than YAML does, but nothing else of these characters.
    unsigned.starts_with(|c: char| c == '.' || c.is_ascii_digit())
        && unsigned.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'-' | b'+'))
        && unsigned.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_the_core_schema_s() {
        for text in
            ["0", "-12", "+7", "0644", "0o17", "0xFf", "1.5", ".5", "1e3", "-1.E-2", "-.inf", ".NaN", "99999999999999999999"]
        {
            assert_eq!(resolve(text), Value::Number(text.into()));
        }
        for text in ["yes", "on", "1_000", "0x", "0o9", "1.2.3", "e5", "inf", "nan", "-", ".", "2026-01-02", "nULL", "+0x1"] {
            assert_eq!(resolve(text), Value::Text(text.into()));
        }
        assert_eq!(resolve("TRUE"), Value::Bool(true));
        assert_eq!(resolve("~"), Value::Null);
    }

    #[test]
    fn numbers_have_their_value() {
        for (text, value) in [
            ("0o17", "15"),
            ("0xFf", "255"),
            ("-12", "-12"),
            ("+7", "7"),
            ("1.50", "1.5"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            assert_eq!(number(text).unwrap().to_string(), value);
        }
        assert_eq!(number(".inf"), None);
    }
}
