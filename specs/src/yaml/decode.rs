//! Bytes that should be text.

use std::borrow::Cow;

use super::read::SIZE_LIMIT;
use crate::problem::Problem;

/// The text in a file's bytes, without its byte order mark.
///
/// # Errors
/// Bytes that aren't UTF-8, and more of them than [`SIZE_LIMIT`]. The place is the byte's, and holds in
/// [`String::from_utf8_lossy`] of the same bytes as well.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, Problem> {
    if bytes.len() > SIZE_LIMIT {
        return Err(too_large(bytes.len()));
    }
    if let Some(encoding) = wide_encoding(bytes) {
        return Err(Problem::error(0..0, "", format!("the text is in {encoding}, and only UTF-8 is read"))
            .help(format!("convert it: `iconv -f {encoding} -t UTF-8 FILE`")));
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(text).map(Cow::Borrowed).map_err(|error| {
        let skipped = bytes.len() - text.len();
        let at = skipped + error.valid_up_to();
        let end = error.error_len().map_or(bytes.len(), |length| at + length);
        let bad: Vec<String> = bytes[at..end].iter().map(|byte| format!("{byte:02x}")).collect();
        Problem::error(at..at, "", format!("the text isn't UTF-8: byte {at} begins `{}`", bad.join(" ")))
            .help("save the file as UTF-8; a text that needs other bytes can't be written here")
    })
}

/// What is told of a text of more bytes than the limit.
pub(super) fn too_large(length: usize) -> Problem {
    let limit = SIZE_LIMIT >> 20;
    Problem::error(0..0, "", format!("the text has {length} bytes, more than the {limit} MiB that are read"))
        .help("split it into several files")
}

/// UTF-16 and UTF-32, by their byte order marks, or by the zeros that the first character, ASCII in any YAML, has there.
fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] => Some("UTF-32LE"),
        [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, 1..=255, ..] => Some("UTF-32BE"),
        [0xff, 0xfe, ..] => Some("UTF-16LE"),
        [0xfe, 0xff, ..] => Some("UTF-16BE"),
        [1..=255, 0, 0, 0, ..] => Some("UTF-32LE"),
        [1..=255, 0, ..] => Some("UTF-16LE"),
        [0, 1..=255, ..] => Some("UTF-16BE"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_dropped() {
        assert_eq!(decode(b"\xef\xbb\xbfa: 1").unwrap(), "a: 1");
        assert_eq!(decode("ü: 日".as_bytes()).unwrap(), "ü: 日");
        assert_eq!(decode(b"").unwrap(), "");
    }

    #[test]
    fn other_encodings_are_named() {
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        assert!(decode(&utf16("\u{feff}a: 1")).unwrap_err().message.contains("UTF-16LE"));
        assert!(decode(&utf16("a: 1")).unwrap_err().message.contains("UTF-16LE"));
        assert!(decode(b"\0a\0:").unwrap_err().message.contains("UTF-16BE"));
        assert!(decode(b"a\0\0\0:\0\0\0").unwrap_err().message.contains("UTF-32LE"));
    }

    #[test]
    fn a_bad_byte_has_its_place() {
        let problem = decode(b"a: 1\nb: \xff\n").unwrap_err();
        assert_eq!(problem.span, 8..8);
        assert!(problem.message.contains("byte 8 begins `ff`"), "{}", problem.message);
        assert!(decode(b"a: \xe6\x97").unwrap_err().message.contains("`e6 97`"));
        assert!(decode(&vec![b' '; SIZE_LIMIT + 1]).unwrap_err().message.contains("16 MiB"));
    }
}
