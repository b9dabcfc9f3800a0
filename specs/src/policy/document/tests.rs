use super::*;

const GOOD: &str = r#"
apiVersion: knark.dev/v1alpha1
kind: TracePolicy
metadata: {name: files, uid: x, resourceVersion: "7", creationTimestamp: null, managedFields: [{manager: kubectl}]}
spec:
  nodes: {matchLabels: {node-role.kubernetes.io/control-plane: ""}}
  pods: {matchExpressions: [{key: app, operator: In, values: [web]}, {key: x, operator: Exists}]}
  rules:
  - name: manifests
    severity: critical
    file: {ops: [chmod, chown], paths: ["/etc/kubernetes/manifests/*.yaml"], looserThan: "0600"}
    process: {uids: [0, 1000-65533, "7"]}
    where: process.exe != "/usr/bin/kubelet"
    references: ["CIS 1.1.1"]
  - {name: all, exec: {}}
status: {anything: 1}
---
apiVersion: knark.dev/v1alpha1
kind: TraceList
metadata: {name: shells}
spec: {items: [/bin/sh]}
---
apiVersion: v1
kind: List
items:
- {apiVersion: kive.io/v1, kind: KivePolicy}
- {apiVersion: knark.dev/v1alpha1, kind: TraceList, metadata: {name: more}, spec: {items: []}}
"#;

/// The problems of a text, each as the text that it stands at, its message, its label and its help.
fn problems(text: &str) -> Vec<(&str, String)> {
    let problems = parse(text).problems;
    problems.into_iter().map(|Problem { span, message, label, .. }| (&text[span], [message, label].join(" | "))).collect()
}

#[test]
fn policies_lists_and_other_kinds_are_told_apart() {
    let parsed = parse(GOOD);
    assert_eq!(parsed.problems, []);
    assert_eq!((parsed.policies.len(), parsed.lists.len(), parsed.other.len()), (1, 2, 1));
    let Located { value, node } = &parsed.policies[0];
    assert_eq!(value.spec.rules[0].process.as_ref().unwrap().uids[1].last, 65_533);
    assert_eq!(&GOOD[node.find("spec.rules[0].file.ops[1]").span.clone()], "chown");
    assert_eq!(parsed.lists[1].value.metadata.name, "more");
}

#[test]
fn every_mistake_is_told_in_one_run() {
    let text = r"
apiVersion: knark.dev/v1alpha1
kind: TracePolicy
metadata: {name: Bad_Name, lables: {}}
spec:
  pods: {matchExpressions: [{key: app, operator: in}, {key: a, operator: Exists, values: [b]}]}
  rules:
  - name: one
    severity: hgh
    file: {ops: [chmood], path: [/etc], looserThan: 0644}
    wehre: 'true'
  - name: one
    exec:
    api: {codes: [abc]}
  - severity: low
    message: [x]
    except: [{}]
";
    let problems = problems(text);
    let want = [
        ("Bad_Name", "`Bad_Name` isn't a valid value of `name` | "),
        ("lables", "`metadata` has no field `lables` | did you mean `labels`?"),
        ("in", "`operator` can't be `in` | did you mean `In`?"),
        ("values", "`Exists` takes no values | "),
        ("hgh", "`severity` can't be `hgh` | did you mean `high`?"),
        ("chmood", "an item of `ops` can't be `chmood` | did you mean `chmod`?"),
        ("path", "`file` has no field `path` | did you mean `paths`?"),
        ("0644", "`looserThan` must be a text, and this is the number `0644` | a text is wanted"),
        ("wehre", "an item of `rules` has no field `wehre` | did you mean `where`?"),
        ("one", "rule `one` stands here twice | again"),
        ("exec", "`exec` has no value, and is taken for left out | "),
        ("abc", "`abc` isn't a valid value of an item of `codes` | "),
        ("severity", "an item of `rules` has no `name` | `name` is missing"),
        ("severity", "the rule doesn't say what it looks at | "),
        ("message", "`message` must be a text, and this is a list | a text is wanted"),
        ("{}", "an item of `except` is empty, and would say nothing | "),
    ];
    assert_eq!(problems, want.map(|(at, message)| (at, message.to_owned())));
}

#[test]
fn objects_without_a_known_kind_are_refused() {
    for (text, want) in [
        ("a: 1\n", ("a", "the object has no `kind` | `kind` is missing")),
        ("[1]\n", ("[1]", "the document is no object | ")),
        ("apiVersion: knark.dev/v1alpha1\nkind: [x]\n", ("[x]", "`kind` must be a text | ")),
    ] {
        assert_eq!(problems(text), [(want.0, want.1.to_owned())]);
    }
}

#[test]
fn a_wrong_kind_hides_no_other_mistake() {
    for (head, wrong, message) in [
        ("kind: TracePolicy", "kind", "the object has no `apiVersion` | `apiVersion` is missing"),
        ("apiVersion: knark.dev/v1alpha1", "apiVersion", "the object has no `kind` | `kind` is missing"),
        (
            "apiVersion: knark.dev/v1\nkind: TracePolicy",
            "knark.dev/v1",
            "unknown apiVersion `knark.dev/v1` | did you mean `knark.dev/v1alpha1`?",
        ),
        (
            "apiVersion: knark.dev/v1alpha1\nkind: TracePolcy",
            "TracePolcy",
            "unknown kind `TracePolcy` | did you mean `TracePolicy`?",
        ),
    ] {
        let text = format!("{head}\nmetadata: {{name: a}}\nspec: {{rules: [{{name: b, file: {{ops: [chmood]}}}}]}}\n");
        let want = [(wrong, message), ("chmood", "an item of `ops` can't be `chmood` | did you mean `chmod`?")];
        assert_eq!(problems(&text), want.map(|(at, message)| (at, message.to_owned())));
        assert!(parse(&text).policies.is_empty());
        let text = text.replace("chmood", "chmod");
        assert_eq!((parse(&text).policies.len(), parse(&text).broken.len()), (0, 1), "{text}");
    }
}

#[test]
fn an_empty_range_is_a_warning() {
    let text = GOOD.replace("1000-65533", "65533-1000");
    let parsed = parse(&text);
    assert_eq!(parsed.policies.len(), 1);
    assert_eq!(parsed.problems[0].level, Level::Warning);
}

/// The same objects are given to a real API server by tests/tests/cluster_policy.rs.
#[test]
fn example_objects_are_told_good_from_bad() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/objects");
    let texts = |kind: &str| -> Vec<(String, String)> {
        let paths = std::fs::read_dir(folder.join(kind)).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap())).collect()
    };
    let (good, bad) = (texts("good"), texts("bad"));
    assert!(good.len() >= 6 && bad.len() >= 15);
    for (name, text) in good {
        let parsed = parse(&text);
        assert!(!parsed.has_errors(), "{name}: {:?}", parsed.problems);
        assert_eq!(parsed.policies.len() + parsed.lists.len(), 1, "{name}");
    }
    for (name, text) in bad {
        let parsed = parse(&text);
        let errors = parsed.problems.iter().filter(|problem| problem.level == Level::Error);
        assert_eq!(errors.count(), 1, "{name}: {:?}", parsed.problems);
    }
}
