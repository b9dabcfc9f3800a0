//! How much memory JSON takes as values, which is many times its length where it is made of little else than brackets.

/// About what a value takes where it stands, in bytes, a short text or name with it.
pub const VALUE: usize = 128;
/// What an object takes beside its values, in bytes, unless it is empty.
pub const OBJECT: usize = 640;
/// More values than fit into this aren't made of one body. Real bodies of 1 MiB of JSON stay below it.
pub const AT_MOST: usize = 32 << 20;

/// About what a text's values take, without those that stand alone and what long texts among them take by their length.
pub fn of_json(text: &[u8]) -> usize {
    scan(text, usize::MAX).1
}

/// The text, or as much of its front as is not too much in memory if it is an object or a list in JSON.
pub fn fitting(text: &str) -> &str {
    let is_held = text.trim_ascii_start().starts_with(['{', '[']);
    if is_held { &text[..scan(text.as_bytes(), AT_MOST).0] } else { text }
}

/// How many bytes fit, up to the end of a character, and what they take.
fn scan(text: &[u8], most: usize) -> (usize, usize) {
    let (mut taken, mut in_text, mut is_escaped, mut opened) = (0_usize, false, false, None);
    for (at, byte) in text.iter().enumerate() {
        if in_text {
            in_text = is_escaped || *byte != b'"';
            is_escaped = !is_escaped && *byte == b'\\';
            continue;
        }
        let more = match (opened, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') => continue,
            (_, b',') => VALUE,
            // The first of it.
            (Some(b'{'), byte) if *byte != b'}' => OBJECT + VALUE,
            (Some(b'['), byte) if *byte != b']' => VALUE,
            _ => 0,
        };
        if more > most.saturating_sub(taken) {
            return (at, taken);
        }
        taken += more;
        in_text = *byte == b'"';
        opened = matches!(byte, b'{' | b'[').then_some(*byte);
    }
    (text.len(), taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted() {
        for (text, objects, values) in [
            ("", 0, 0),
            ("[]", 0, 0),
            ("{ }", 0, 0),
            ("[ 1 , \"a,[{\\\",\" ]", 0, 2),
            ("[[[[]]]]", 0, 3),
            (r#"{"a": {"b": [1, 2]}, "c": {}}"#, 2, 5),
            (r#"[{"": 0}, {"": 0}"#, 2, 4),
        ] {
            assert_eq!(of_json(text.as_bytes()), objects * OBJECT + values * VALUE, "{text}");
            assert_eq!(fitting(text), text);
        }
    }

    #[test]
    fn what_is_too_much_is_cut_between_characters() {
        let list = format!("[{}", "ä,".repeat(1 << 20));
        let front = fitting(&list);
        assert_eq!((of_json(front.as_bytes()), list.as_bytes()[front.len()]), (AT_MOST, b','));
        assert_eq!(fitting(&list[1..]), &list[1..], "no JSON");
    }
}
