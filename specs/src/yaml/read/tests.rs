use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

#[track_caller]
fn good(text: &str) -> Vec<serde_json::Value> {
    let read = read(text);
    assert_eq!(read.problems, [], "{text}");
    read.documents.iter().map(Node::to_json).collect()
}

/// The problems of a text, each as the text that it stands at and its message.
fn bad(text: &str) -> Vec<(&str, String)> {
    read(text).problems.into_iter().map(|problem| (&text[problem.span], problem.message)).collect()
}

#[test]
fn documents_are_read_as_yaml_means_them() {
    assert_eq!(
        good("a: 1\nb: [x, 'y', \"z\\n\", null, true, 1.5]\n"),
        [json!({"a": 1, "b": ["x", "y", "z\n", null, true, 1.5]})]
    );
    assert_eq!(
        good("---\na: |\n  one\n  two\nb: >-\n  one\n  two\n...\n---\n# nothing\n---\n- ~\n-\n"),
        [json!({"a": "one\ntwo\n", "b": "one two"}), json!([null, null])]
    );
    assert_eq!(good("{\"a\": {\"b\": [1, \"\\u00fc\"]}}"), [json!({"a": {"b": [1, "ü"]}})]);
    assert_eq!(good("a: 1\r\nb:\r\n  - c\r\n"), [json!({"a": 1, "b": ["c"]})]);
    assert_eq!(good("a:\t1\t# a tab that separates\n"), [json!({"a": 1})]);
    assert_eq!(good("1: a\ntrue: b\n? c\n: d\n"), [json!({"1": "a", "true": "b", "c": "d"})]);
    assert_eq!(good("a: !!str 1\nb: !!int '2'\nc: ! 3\n"), [json!({"a": "1", "b": 2, "c": "3"})]);
    assert!(good("").is_empty());
}

#[test]
fn anchors_and_merge_keys_are_resolved() {
    let text = "base: &base {a: 1, b: [x]}\none:\n  <<: *base\n  a: 2\nmany: {<<: [{c: 3, a: 4}, *base]}\nkey: &k name\n*k : v\n";
    let want = json!({
        "base": {"a": 1, "b": ["x"]}, "one": {"a": 2, "b": ["x"]}, "many": {"c": 3, "a": 4, "b": ["x"]},
        "key": "name", "name": "v",
    });
    assert_eq!(good(text), [want]);
    let document = read(text).documents.remove(0);
    assert_eq!(&text[document.find("one.b[0]").span.clone()], "*base");
    assert_eq!(bad("a: &a [*a]\n"), [("*a", "the alias stands inside of what it stands for".to_owned())]);
    assert_eq!(bad("a: *nope\n")[0].1, "the alias stands for an anchor that isn't there");
    assert_eq!(bad("a: {<<: 1}\n"), [("1", "only a mapping can be merged with `<<`".to_owned())]);
}

#[test]
fn everything_has_its_place() {
    let text = "a:\n  - b: 'x y'\n    c: |\n      text\n      more\n\n  - {d: 1}\nlabels:\n  k.io/x: ü\nempty:\nlast: z\n";
    let document = read(text).documents.remove(0);
    for (field, want) in [
        ("a[0].b", "'x y'"),
        ("a[0].c", "text\n      more"),
        ("a[1]", "{d: 1}"),
        ("a[1].d", "1"),
        ("labels.k.io/x", "ü"),
        ("empty", ""),
        ("last.no.such[7]", "z"),
        ("a[0]", "b: 'x y'\n    c: |\n      text\n      more"),
    ] {
        assert_eq!(&text[document.find(field).span.clone()], want, "{field}");
    }
}

#[test]
fn mistakes_are_told_at_their_place_and_reading_goes_on() {
    let text = "a: 1\nb: 2\na: 3\n---\nx: [1, 2\n---\ny: !color red\n? [z]\n: 1\n";
    assert_eq!(bad(text).len(), 4, "{:?}", bad(text));
    assert_eq!(bad(text)[0], ("a", "key `a` stands here twice, first on line 1".to_owned()));
    assert_eq!(bad(text)[2], ("!color", "tag `!color` means nothing here".to_owned()));
    assert_eq!(bad(text)[3], ("[z]", "a key must be a text, and this is a list".to_owned()));
    assert_eq!(read(text).documents.len(), 2);
    assert!(read("a:\n\tb: 1\n").problems[0].help.as_deref().unwrap().contains("spaces"));
    assert_eq!(bad("a: !!int x\n"), [("!!int", "`!!int` doesn't fit what follows it".to_owned())]);
}

#[test]
fn hostile_texts_end_soon_with_a_clear_answer() {
    let laughs = (0..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, level| {
        format!("{text}a{}: &a{} [*a{level}, *a{level}]\n", level + 1, level + 1)
    });
    let wide = (0..9).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        let items = vec![format!("*a{level}"); 10].join(", ");
        format!("{text}a{}: &a{} [{items}]\n", level + 1, level + 1)
    });
    let chain =
        (0..200).fold("a0: &a0 [x]\n".to_owned(), |text, level| format!("{text}a{}: &a{} [*a{level}]\n", level + 1, level + 1));
    let large = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(1_000));
    let merges = format!(
        "a: &a {{{}}}\nb: [{}]\n",
        (0..1_000).map(|key| format!("k{key}: 1")).collect::<Vec<_>>().join(", "),
        "{<<: *a}, ".repeat(9_000)
    );
    for (text, want) in [
        (laughs, "1000000 values"),
        (wide, "1000000 values"),
        (merges, "1000000 values"),
        (chain, "64 deep"),
        (large, "64 MiB"),
        ("[".repeat(1 << 20), "64 deep"),
        ("{a: ".repeat(1 << 20), "64 deep"),
        ("- ".repeat(1 << 20), "64 deep"),
        ("[],".repeat(1 << 20), ""),
        ("- x\n".repeat(2 << 20), "1000000 values"),
        ("- !x y\n".repeat(1 << 16), "tag"),
        ("a: 1\n".repeat(1 << 16), "twice"),
        ("*a ".repeat(1 << 20), ""),
        ("---\n[\n".repeat(1 << 18), ""),
        ("? ".repeat(1 << 20), ""),
        ("&a ".repeat(1 << 20), ""),
        ("\"".to_owned() + &"\\".repeat(1 << 20), ""),
        ("%".repeat(1 << 20), ""),
        ("a: 'x\n".repeat(1 << 18), ""),
        (" ".repeat(SIZE_LIMIT + 1), "16 MiB"),
    ] {
        let begun = Instant::now();
        let problems = read(&text).problems;
        let start: String = text.chars().take(20).collect();
        assert!(problems.iter().any(|problem| problem.message.contains(want)), "{start}: {:?}", problems.first());
        assert!(begun.elapsed() < Duration::from_secs(20), "{start}: {:?}", begun.elapsed());
        if begun.elapsed() > Duration::from_secs(1) {
            eprintln!("{start:?}: {:?}", begun.elapsed());
        }
    }
}

#[test]
fn large_files_are_read() {
    let text = "- name: a\n  paths: [/etc/passwd, /etc/shadow]\n".repeat(150_000);
    assert_eq!(read(&text).problems, []);
}
