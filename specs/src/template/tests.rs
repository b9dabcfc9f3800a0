use super::*;
use crate::cel::tests::{chmod, exec};

fn render(text: &str, event: &Event) -> String {
    let (template, problems) = Template::parse(text);
    assert_eq!(problems, [], "{text}");
    template.unwrap().render(event)
}

fn problem(text: &str) -> (String, String, String) {
    let (template, problems) = Template::parse(text);
    let [problem] = problems.as_slice() else { panic!("{text}: {problems:#?}") };
    assert!(template.is_none());
    let said = if problem.label.is_empty() { problem.help.clone().unwrap_or_default() } else { problem.label.clone() };
    (text[problem.span.clone()].to_owned(), problem.message.clone(), said)
}

#[test]
fn fields_are_filled_in() {
    let text =
        "{{process.exe}} changed {{ file.path }} to {{file.mode}} ({{process.args}}; {{process.pid}}; {{file.created}}) }}";
    assert_eq!(render(text, &chmod()), "/bin/chmod changed /etc/shadow to 0777 (chmod -v 0777 /etc/shadow; 7; false) }}");
    assert_eq!(render("{{file.path}} {{kubernetes.pod}} {{type}}", &exec()), "- - exec");
    assert_eq!(render("{{kubernetes.labels.app.kubernetes.io/name}}{{kubernetes.labels.x}}", &chmod()), "shop-");
    assert_eq!(render("", &chmod()), "");
}

#[test]
fn requests_are_told_in_words() {
    let text = "{{api.verb}} {{api.resource}} {{api.namespace}}/{{api.name}} after {{api.latency_ns}}/{{file.path}}";
    let mut event = exec();
    let mut api = Api { verb: "list".to_owned(), resource: "pods".to_owned(), namespace: "prod".to_owned(), ..Api::default() };
    event.what = What::Api { api: Box::new(api.clone()) };
    assert_eq!(render(text, &event), "list pods prod/ after -/-");
    api = Api { verb: "get".to_owned(), resource: "nodes".to_owned(), name: "a/b".to_owned(), ..Api::default() };
    for (ns, want) in [(1_954_321, "1ms 954us"), (61_234_567_890, "1m 1s 234ms"), (0, "0s")] {
        api.latency_ns = Some(ns);
        event.what = What::Api { api: Box::new(api.clone()) };
        assert_eq!(render(text, &event), format!("get nodes a/b after {want}/-"));
    }
    assert_eq!(render("{{api.resource}}{{api.subresource}}/{{api.name}}", &event), "nodes/a/b");
    assert_eq!(render("{{api.latency_ns}}", &exec()), "-");
}

#[test]
fn what_is_empty_leaves_no_traces() {
    let mut event = exec();
    let mut message = |text: &str, api: Api| {
        event.what = What::Api { api: Box::new(api) };
        render(text, &event)
    };
    let api = |namespace: &str, name: &str, subresource: &str, query: &str| {
        let [namespace, name, subresource, query] = [namespace, name, subresource, query].map(str::to_owned);
        Api { verb: "watch".to_owned(), resource: "pods".to_owned(), namespace, name, subresource, query, ..Api::default() }
    };
    let ended = "{{api.verb}} of {{api.resource}} {{api.namespace}}/{{api.name}} {{api.subresource}} ended ({{api.query}})";
    for (namespace, name, subresource, query, want) in [
        ("", "", "", "", "watch of pods ended"),
        ("", "", "", "a=b", "watch of pods ended (a=b)"),
        ("prod", "", "", "", "watch of pods prod/ ended"),
        ("", "web", "log", "", "watch of pods web log ended"),
        ("prod", "web", "", "", "watch of pods prod/web ended"),
    ] {
        assert_eq!(message(ended, api(namespace, name, subresource, query)), want);
    }
    for (text, want) in [
        ("{{api.verb}} in {{api.namespace}} ({{api.query}}): {{api.code}}", "watch in: -"),
        ("{{api.verb}} of node {{api.name}}: {{api.code}}", "watch of node: -"),
        ("{{api.namespace}} {{api.verb}}, {{api.name}}", "watch,"),
        ("({{api.name}}) ({{api.namespace}} {{api.verb}}) {{api.name}}", "( watch)"),
        ("a  b {{api.verb}}/{{api.name}}/ \"{{api.name}}\"", "a  b watch// \"\""),
    ] {
        assert_eq!(message(text, api("", "", "", "")), want, "{text}");
    }
}

#[test]
fn wrong_fields_are_named_where_they_are() {
    let expect = |text, at: &str, message: &str, said: &str| {
        assert_eq!(problem(text), (at.to_owned(), message.to_owned(), said.to_owned()));
    };
    expect("é {{ process.ex }}", "ex", "`process` has no field `ex`", "did you mean `exe`?");
    expect("{{proces.exe}}", "proces", "the event has no field `proces`", "did you mean `process`?");
    expect(
        "{{kubernetes.owner}}",
        "owner",
        "`kubernetes.owner` is an object, which no message can show",
        "name one of its fields: kind, name",
    );
    expect("{{file.path", "{{", "this `{{` is never closed", "write `{{process.exe}}`");
    expect(
        "{{kubernetes.labels}}",
        "labels",
        "`kubernetes.labels` is a map, which no message can show",
        "name a key of it: kubernetes.labels.app",
    );
    expect("{{process.exe.a}}", "process.exe.a", "`process.exe` is a text: it has no fields", "");
    assert!(Template::parse("{{}} {{a}} {{b.c}}").1.len() == 3);
}

#[test]
fn a_message_stays_short() {
    let mut event = exec();
    std::sync::Arc::make_mut(&mut event.process).args = (0..5_000).map(|_| "é").collect();
    let message = render("{{process.args}}{{process.args}}x", &event);
    assert!(message.len() <= MAX_MESSAGE && message.len() > MAX_MESSAGE - 3);
}
