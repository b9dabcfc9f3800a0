//! Text cut to a terminal's columns.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

const ELLIPSIS: char = '…';

/// How many columns the text takes.
pub fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// Cuts at the end: for a command line, whose beginning says most.
pub fn end(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let mut short = first(text, columns.saturating_sub(1)).to_owned();
    short.push(ELLIPSIS);
    Cow::Owned(short)
}

/// Cuts in the middle: for a path, whose end says most, and for a pod's name, whose end tells it from its siblings.
pub fn middle(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let kept = columns.saturating_sub(1);
    let head = first(text, kept / 3);
    let mut short = head.to_owned();
    short.push(ELLIPSIS);
    short.push_str(last(text, kept - width(head)));
    Cow::Owned(short)
}

/// As much of the beginning as fits.
pub fn first(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    for (at, c) in text.char_indices() {
        taken += c.width().unwrap_or(0);
        if taken > columns {
            return &text[..at];
        }
    }
    text
}

/// As much of the end as fits.
pub fn last(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    let mut from = text.len();
    for (at, c) in text.char_indices().rev() {
        taken += c.width().unwrap_or(0);
        if taken > columns {
            break;
        }
        from = at;
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_keep_what_says_most() {
        assert_eq!(end("cat /etc/passwd", 10), "cat /etc/…");
        assert_eq!(middle("/etc/kubernetes/manifests/kube-apiserver.yaml", 29), "/etc/kube…kube-apiserver.yaml");
        assert_eq!(middle("short", 5), "short");
        assert_eq!(middle("日本語日本語", 7), "日…本語");
        assert_eq!(end("abc", 1), "…");
        assert_eq!(middle("abc", 1), "…");
    }
}
