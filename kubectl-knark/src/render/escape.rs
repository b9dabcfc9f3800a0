//! Hostile text made harmless: what a traced process chose must not command the terminal of who reads it.

use std::{borrow::Cow, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

/// Text for one cell of a line: nothing in it moves the cursor, breaks the line, or changes the direction of reading.
pub fn cell(text: &str) -> Cow<'_, str> {
    escape(text, |c| c)
}

/// Text of several lines, such as an error that quotes an API server: as [`cell`], with its line breaks kept.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| if c == '\n' { ' ' } else { c })
}

/// As [`cell`], for a field that has its bytes in Base64 beside it where they aren't UTF-8: those show as `\xff`.
pub fn cell_of<'t>(text: &'t str, b64: Option<&str>) -> Cow<'t, str> {
    match b64.and_then(|b64| BASE64.decode(b64).ok()) {
        Some(bytes) => Cow::Owned(escape_bytes(&bytes)),
        None => cell(text),
    }
}

/// As [`shell_word`], likewise.
pub fn shell_word_of<'t>(word: &'t str, b64: Option<&str>) -> Cow<'t, str> {
    match b64.and_then(|b64| BASE64.decode(b64).ok()) {
        Some(bytes) if std::str::from_utf8(&bytes).is_err() => {
            Cow::Owned(format!("$'{}'", escape_bytes(&bytes).replace('\'', r"\'")))
        }
        _ => shell_word(word),
    }
}

/// As [`cell`], and quoted as a shell would want it.
pub fn shell_word(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() && !is_unsafe(c) || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    if word.chars().any(is_unsafe) {
        return Cow::Owned(format!("$'{}'", escape_quoted(word)));
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

/// Characters that a terminal obeys instead of showing, or shows nowhere, or shows elsewhere.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Line and paragraph separator, soft hyphen, Arabic letter mark, Mongolian vowel separator, zero-width characters.
            '\u{2028}' | '\u{2029}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            // Embeddings, overrides and isolates of the reading direction; invisible operators; byte order mark; tags.
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn escape(text: &str, exempt: impl Fn(char) -> char) -> Cow<'_, str> {
    // Most text is plain ASCII, and this runs several times per event.
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) || !text.chars().any(|c| is_unsafe(exempt(c))) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(exempt(c)) { push_escaped(&mut safe, c) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

fn escape_bytes(bytes: &[u8]) -> String {
    let mut safe = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        safe.push_str(&cell(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(safe, r"\x{byte:02x}");
        }
    }
    safe
}

fn escape_quoted(word: &str) -> String {
    let mut safe = String::with_capacity(word.len() + 16);
    for c in word.chars() {
        match c {
            '\'' | '\\' => safe.extend(['\\', c]),
            c if is_unsafe(c) => push_escaped(&mut safe, c),
            c => safe.push(c),
        }
    }
    safe
}

fn push_escaped(safe: &mut String, c: char) {
    match c {
        '\n' => safe.push_str(r"\n"),
        '\r' => safe.push_str(r"\r"),
        '\t' => safe.push_str(r"\t"),
        c if c.is_ascii() => {
            let _ = write!(safe, r"\x{:02x}", u32::from(c));
        }
        c => {
            let _ = write!(safe, r"\u{{{:x}}}", u32::from(c));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_commands_the_terminal() {
        assert_eq!(cell("plain ünïcode 日本"), "plain ünïcode 日本");
        assert_eq!(cell("a\x1b[2Jb\nc\td\x7f\u{9b}"), r"a\x1b[2Jb\nc\td\x7f\u{9b}");
        assert_eq!(cell("invoice\u{202e}fdp.exe"), r"invoice\u{202e}fdp.exe");
        assert_eq!(cell_of("\u{fffd}!", Some("/yE=")), r"\xff!");
        assert_eq!(shell_word_of("\u{fffd}!", Some("/yE=")), r"$'\xff!'");
        assert_eq!(lines("two\nlines\x1b"), "two\nlines\\x1b");
    }

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        for (word, want) in [
            ("ls", "ls"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("--x=/a,b:c@d%1+2", "--x=/a,b:c@d%1+2"),
            ("a\nb'\\", r"$'a\nb\'\\'"),
        ] {
            assert_eq!(shell_word(word), want);
        }
    }
}
