//! Generated policies, good ones and bad ones. The tests that have a real API server read this file, too.

use proptest::{collection::vec, option, prelude::*, sample::select, strategy::Union};
use serde_json::{Map, Value as Json, json};

/// A policy: of ten, some have nothing wrong with them.
pub fn policy() -> BoxedStrategy<Json> {
    object([
        ("apiVersion", 0.999, Just(json!("knark.dev/v1alpha1")).boxed()),
        ("kind", 0.999, Just(json!("TracePolicy")).boxed()),
        ("metadata", 0.99, object([("name", 0.99, value(json!(["a", "b.c-d"]), json!(["", "A", "a.", 7, "x".repeat(254)])))])),
        (
            "spec",
            0.99,
            object([
                ("description", 0.3, text()),
                ("nodes", 0.3, selector()),
                ("pods", 0.3, selector()),
                ("lists", 0.3, value(json!([{}, {"shells": ["/bin/sh"], "none": []}]), json!([{"x": "y"}, []]))),
                ("rules", 0.99, list(rule())),
            ]),
        ),
    ])
}

/// One of the good values, seldom one of the bad ones.
fn value(good: Json, bad: Json) -> BoxedStrategy<Json> {
    let all = |values: Json| select(values.as_array().unwrap().clone());
    Union::new_weighted(vec![(60, all(good).boxed()), (1, all(bad).boxed())]).boxed()
}

/// An object of some of these fields, each with its probability.
fn object<const N: usize>(fields: [(&'static str, f64, BoxedStrategy<Json>); N]) -> BoxedStrategy<Json> {
    let fields = fields.map(|(name, probability, value)| {
        option::weighted(probability, value).prop_map(move |value| Some((name.to_owned(), value?)))
    });
    let stray = option::weighted(0.01, Just(Some(("stray".to_owned(), json!(1))))).prop_map(Option::flatten);
    (Vec::from(fields), stray)
        .prop_map(|(fields, stray)| Json::Object(fields.into_iter().chain([stray]).flatten().collect::<Map<_, _>>()))
        .boxed()
}

fn list(item: BoxedStrategy<Json>) -> BoxedStrategy<Json> {
    let not_a_list = select(vec![json!("x"), json!({}), json!(3), json!(null)]);
    Union::new_weighted(vec![(60, vec(item, 0..4).prop_map(Json::Array).boxed()), (1, not_a_list.boxed())]).boxed()
}

fn text() -> BoxedStrategy<Json> {
    value(json!(["/etc/passwd", "", "glob:a*", "ü\n\t\"", "$list", "0", "true", "~"]), json!([7, true, null, [], {}]))
}

fn ids() -> BoxedStrategy<Json> {
    let good = json!([0, 4_294_967_295_u32, "7", "1000-65533", "9-3", "9999999999", "0007"]);
    list(value(good, json!(["a", "-1", "1-", "+5", "1-2-3", "", "12345678901", -1, 4_294_967_296_u64, 1.5, true, null])))
}

fn process() -> BoxedStrategy<Json> {
    object([("exes", 0.5, list(text())), ("argsInOrder", 0.3, list(text())), ("uids", 0.5, ids()), ("gids", 0.3, ids())])
}

fn exec() -> BoxedStrategy<Json> {
    object([
        ("paths", 0.5, list(text())),
        ("from", 0.5, list(value(json!(["upper-layer", "memfd", "deleted"]), json!(["upperLayer", 1])))),
    ])
}

fn file() -> BoxedStrategy<Json> {
    let number = || value(json!([0, 1000]), json!(["0", -1, 4_294_967_296_u64, null]));
    object([
        ("ops", 0.5, list(value(json!(["open", "write-open", "chmod"]), json!(["chmood", "", 1])))),
        ("paths", 0.5, list(text())),
        ("becomes", 0.2, list(value(json!(["setuid", "world-writable"]), json!(["worldWritable"])))),
        ("looserThan", 0.3, value(json!(["0600", "04755"]), json!(["600", "0999", 600, "00644 ", "007777", ""]))),
        ("ownerOtherThan", 0.3, object([("uid", 0.9, number()), ("gid", 0.5, number())])),
        ("result", 0.3, value(json!(["any", "success", "failure"]), json!(["ok", true]))),
    ])
}

fn api() -> BoxedStrategy<Json> {
    object([("verbs", 0.5, list(text())), ("userGroups", 0.3, list(text())), ("codes", 0.5, ids())])
}

fn condition() -> BoxedStrategy<Json> {
    value(json!(["true", "process.pid == 1"]), json!(["", true, "x".repeat(4097)]))
}

fn selector() -> BoxedStrategy<Json> {
    let requirement = (select(vec![true, false]), 0_u8..40).prop_flat_map(|(takes_values, dice)| {
        let operators = if takes_values { json!(["In", "NotIn"]) } else { json!(["Exists", "DoesNotExist"]) };
        let values = match (takes_values, dice) {
            (true, 1..) | (false, 0) => json!(["a"]),
            _ => json!([]),
        };
        object([
            ("key", 0.99, Just(json!("app")).boxed()),
            ("operator", 0.99, value(operators, json!(["in", "Gt", 1]))),
            ("values", 0.97, Just(values).boxed()),
        ])
    });
    object([
        ("matchLabels", 0.5, value(json!([{}, {"a.b/c": "d", "e": ""}]), json!([{"a": 1}, [], "a=b"]))),
        ("matchExpressions", 0.5, list(requirement.boxed())),
    ])
}

fn rule() -> BoxedStrategy<Json> {
    let names = json!(["a", "b", "c", "d1", "e.f-g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"]);
    let exception = object([("process", 0.6, process()), ("file", 0.4, file()), ("where", 0.6, condition())]);
    let rest = object([
        ("name", 0.99, value(names, json!(["", "A", "a..b", "-a", 7, "x".repeat(129)]))),
        ("severity", 0.5, value(json!(["info", "low", "critical"]), json!(["Low", "urgent", 3]))),
        ("message", 0.5, value(json!(["", "{{process.exe}}", "ü".repeat(2048)]), json!(["ü".repeat(2049), 1]))),
        ("tags", 0.3, list(text())),
        ("process", 0.5, process()),
        ("where", 0.3, condition()),
        ("except", 0.3, list(exception)),
    ]);
    let one = prop_oneof![exec().prop_map(|v| ("exec", v)), file().prop_map(|v| ("file", v)), api().prop_map(|v| ("api", v))];
    let subjects = prop_oneof![40 => vec(one.clone(), 1), 1 => vec(one, 0..3)];
    (rest, subjects)
        .prop_map(|(mut rule, subjects)| {
            for (name, value) in subjects {
                rule[name] = value;
            }
            rule
        })
        .boxed()
}
