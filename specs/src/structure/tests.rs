use serde_json::json;

use super::*;

/// The problems of a text, each as the text that it stands at, its field and its message.
fn problems<'t>(text: &'t str, schema: &Json) -> Vec<(&'t str, String, String)> {
    let document = crate::yaml::read(text).documents.remove(0);
    check(&document, schema).into_iter().map(|problem| (&text[problem.span], problem.field, problem.message)).collect()
}

#[track_caller]
fn one(text: &str, schema: &Json, want: (&str, &str, &str)) {
    assert_eq!(problems(text, schema), [(want.0, want.1.to_owned(), want.2.to_owned())], "{text}");
}

#[test]
fn each_keyword_has_its_message() {
    let schema = |value: Json| json!({"type": "object", "properties": {"a": value}});
    for (keywords, text, want) in [
        (json!({"type": "string"}), "a: 1", ("1", "a", "`a` must be a text, and this is the number `1`")),
        (
            json!({"type": ["integer", "string"]}),
            "a: 1.5",
            ("1.5", "a", "`a` must be a whole number or a text, and this is the number `1.5`"),
        ),
        (json!({"type": "boolean"}), "a: yes", ("yes", "a", "`a` must be true or false, and this is the text `yes`")),
        (json!({"minLength": 1}), "a: ''", ("''", "a", "`a` is an empty text")),
        (json!({"maxLength": 2}), "a: üüü", ("üüü", "a", "`a` has 3 characters, more than 2")),
        (json!({"pattern": "^x"}), "a: y", ("y", "a", "`y` isn't a valid value of `a`")),
        (json!({"minItems": 1}), "a: []", ("a", "a", "`a` is empty")),
        (json!({"maxItems": 1}), "a: [1, 2]", ("a", "a", "`a` has 2 items, more than 1")),
        (
            json!({"items": {"type": "string"}}),
            "a: [x, {}]",
            ("{}", "a[1]", "an item of `a` must be a text, and this is a mapping"),
        ),
        (json!({"minimum": 2}), "a: 1", ("1", "a", "`a` is 1, less than 2")),
        (json!({"maximum": 2}), "a: 3", ("3", "a", "`a` is 3, more than 2")),
        (json!({"maximum": 2000}), "a: 0644", ("0644", "a", "`0644` is 420 to some readers of YAML, and 644 to others")),
        (json!({"minProperties": 1}), "a: {}", ("a", "a", "`a` is empty, and would say nothing")),
        (
            json!({"additionalProperties": {"type": "string"}}),
            "a: {b.c: 1}",
            ("1", "a.b.c", "`c` must be a text, and this is the number `1`"),
        ),
        (json!({"additionalProperties": false, "properties": {}}), "a: {b: 1}", ("b", "a.b", "`a` has no field `b`")),
        (json!({"required": ["b"]}), "a: {c: 1}", ("a", "a.b", "`a` has no `b`")),
        (json!({"const": "x"}), "a: y", ("y", "a", "`a` must be `x`, not `y`")),
        (json!({"enum": ["x", "z"]}), "a: y", ("y", "a", "`a` can't be `y`")),
        (json!({"oneOf": [{"const": "x"}, {"enum": ["z"]}]}), "a: y", ("y", "a", "`a` can't be `y`")),
        (json!({"anyOf": [{"type": "integer", "maximum": 5}, {"type": "string"}]}), "a: 7", ("7", "a", "`a` is 7, more than 5")),
        (
            json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
            "a: [7]",
            ("a", "a", "`a` must be a whole number or a text, and this is a list"),
        ),
        (json!({"allOf": [{"type": "integer"}, {"maximum": 5}]}), "a: 7", ("7", "a", "`a` is 7, more than 5")),
        (Json::Bool(false), "a: 7", ("7", "a", "`a` can't be given")),
    ] {
        one(text, &schema(keywords), want);
    }
}

#[test]
fn references_are_followed_and_circles_end() {
    let tree = json!({"$defs": {"Tree": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Tree"}}, "additionalProperties": false}}, "$ref": "#/$defs/Tree"});
    one("next: {next: {nxt: 1}}", &tree, ("nxt", "next.next.nxt", "`next` has no field `nxt`"));
    assert_eq!(problems("a: 1", &json!({"$ref": "#"})), []);
    assert_eq!(problems("a: 1", &json!({"$ref": "#/nowhere"})), []);
}

#[test]
fn suggestions_are_near() {
    let names = ["paths", "ops", "argsInOrder", "write-open"];
    for (text, want) in [
        ("path", Some("paths")),
        ("args_in_order", Some("argsInOrder")),
        ("Ops", Some("ops")),
        ("WriteOpen", Some("write-open")),
        ("x", None),
        ("something", None),
    ] {
        assert_eq!(suggest(text, &names), want, "{text}");
    }
    assert_eq!(suggest(&"p".repeat(1 << 20), &names), None);
}

#[test]
fn problems_are_bounded() {
    let text = format!("a: [{}]", "1, ".repeat(10_000));
    let schema = json!({"properties": {"a": {"items": {"type": "string"}}}});
    assert_eq!(problems(&text, &schema).len(), PROBLEM_LIMIT);
}
