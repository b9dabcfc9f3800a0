//! Objects in a JSON that is cut before they say their kind: they could be Secrets, whose `data` stands before their `kind`.

/// In JSON that is deeper than this nothing is looked for.
const DEEPEST: usize = 1 << 14;

/// An object that the text ends in.
#[derive(Default)]
struct Open<'t> {
    /// Where its `apiVersion` begins.
    version: Option<usize>,
    has_kind: bool,
    /// Whose value comes next.
    field: Option<&'t str>,
}

/// From where on the front of a JSON is to be left out: where an object within the outermost one has its `apiVersion`, if it has no
/// whole `kind`; else where `apiVersion` stands in quotes that have no end.
pub fn object(text: &str) -> Option<usize> {
    if !text.trim_ascii_start().starts_with(['{', '[']) {
        return None;
    }
    let mut open: Vec<Open<'_>> = Vec::new();
    let (mut quoted, mut quoted_at, mut at) = ("", 0, 0);
    let mut left_out = None;
    while let Some(byte) = text.as_bytes().get(at) {
        let depth = open.len();
        match (byte, open.last_mut()) {
            (b'{', _) if depth == DEEPEST => {
                left_out = Some(at);
                break;
            }
            (b'{', _) => open.push(Open::default()),
            (b'}', _) => drop(open.pop()),
            (b'"', object) => {
                let Some(length) = quotes_end(&text[at + 1..]) else {
                    left_out = text[at..].find("apiVersion").map(|place| at + place);
                    break;
                };
                (quoted, quoted_at) = (&text[at + 1..][..length], at);
                if let Some(object) = object {
                    object.has_kind |= object.field.take() == Some("kind");
                }
                at += length + 1;
            }
            (b':', Some(object)) => {
                object.field = Some(quoted);
                if quoted == "apiVersion" {
                    object.version = object.version.or(Some(quoted_at));
                }
            }
            (b',' | b'[', Some(object)) => object.field = None,
            _ => {}
        }
        at += 1;
    }
    open.iter().skip(1).filter(|object| !object.has_kind).find_map(|object| object.version).or(left_out)
}

/// How long a quoted text is, without the quotes; none if it has no end.
fn quotes_end(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_without_a_kind_are_found() {
        // Up to the bar it stays.
        for text in [
            r#"{"apiVersion":"v1","items":[{|"apiVersion":"v1","data":{"a":"b"#,
            r#"{"apiVersion":"v1","items":[{"apiVersion":"v1","data":{},"kind":"ConfigMap"},{|"apiVersion" : "v1","data":{"a":"#,
            // Others have a kind of their own, and it isn't whole.
            r#"{"a":{|"apiVersion":"v1","data":{"ä\"{":"}"},"metadata":{"o":[{"apiVersion":"v1","kind":"P"},{"kind":"P"}]},"kind":"Se"#,
            r#"[{"op":"add","value":{|"apiVersion":"v1","kind":["a"],"data":{"a":["b"#,
            r#"{"kind":"ConfigMap","data":{"a":"{\"|apiVersion\":\"v1\",\"data\":{\"a\":"#,
            // Nothing is left out.
            r#"{"apiVersion":"v1","data":{"a":"b"#,
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"managedFields":[{"apiVersion":"v1"}],"o":[{"apiVersion":"v1","kind":"P","x":["#,
            r#"{"a":{"kind":"Pod","apiVersion":"v1","spec":{"apiVersio"#,
            "a: {b: {\"apiVersion\": 1",
            "}}}:,[\"",
            "{:{:,\"",
            "",
        ] {
            let bare = text.replace('|', "");
            assert_eq!(object(&bare), text.find('|'), "{text}");
        }
        let deep = "{\"a\":".repeat(DEEPEST + 1);
        assert_eq!(object(&deep), Some(5 * DEEPEST));
    }
}
