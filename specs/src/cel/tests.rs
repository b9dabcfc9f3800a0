use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::*;

mod hostile;
mod mistakes;

/// A chmod in a pod, with all that a file event can have.
pub(crate) fn chmod() -> Event {
    serde_json::from_value(json!({
        "schema": "knark.dev/v1alpha1", "time": "2026-11-21T12:00:00.000000001Z", "boot_ns": "18446744073709551615",
        "node": {"name": "node-1", "clock_offset_ns": -5},
        "kubernetes": {
            "namespace": "prod", "pod": "web-1", "pod_uid": "u-1",
            "labels": {"app": "web", "app.kubernetes.io/name": "shop"},
            "owner": {"kind": "ReplicaSet", "name": "web"},
        },
        "container": {"id": "c1", "name": "web", "image": "nginx:1", "cgroup_id": "77"},
        "process": {
            "pid": 7, "ppid": 1, "uid": 0, "gid": 1000, "ns_pid": 1, "ns_uid": 100, "ns_gid": 101, "comm": "chmod", "comm_b64": "Zg==", "exe": "/bin/chmod", "exe_b64": "Zg==",
            "args": ["chmod", "-v", "0777", "/etc/shadow"], "args_b64": ["Zg=="], "args_cut_from": 9000, "cwd": "/", "cwd_b64": "Zg==",
            "start_time": "2026-11-21T11:00:00.000000000Z", "start_boot_ns": "5", "exe_upper_layer": true, "exe_memfd": false,
            "ancestors": [{"pid": 1, "comm": "bash", "exe": "/bin/bash", "start_boot_ns": "4"}], "ancestors_cut": true,
            "source": "fork",
        },
        "thread": {"tid": 8, "comm": "worker"},
        "cause": {"request_id": "9", "user": "alice", "impersonator": "bob", "verb": "get", "subresource": "exec", "source": "::1", "certainty": "certain", "others": ["eve"]},
        "type": "file",
        "file": {
            "op": "chmod", "syscall": "fchmodat", "path": "/etc/shadow", "path_b64": "Zg==", "path_source": "kernel",
            "path_argument": "shadow", "path_marks": ["late", "deleted"], "to": {"path": "/x", "path_source": "argument"},
            "flags": ["O_TRUNC", "0x8000000"], "created": false, "mode": "0777", "old_mode": "0640", "uid": 1, "gid": 2, "old_uid": 3,
            "old_gid": 4, "size": "5", "xattr": "user.a", "same_as": ["/a\u{fffd}"], "same_as_b64": ["L2H/"], "inode": "6", "device": "8:1", "result": -1, "error": "EPERM",
        },
    }))
    .unwrap()
}

/// An execution on the host, with as little as there can be.
pub(crate) fn exec() -> Event {
    serde_json::from_value(json!({
        "schema": "knark.dev/v1alpha1", "time": "2026-11-21T12:00:00.000000001Z", "boot_ns": "1",
        "node": {"name": "node-1", "clock_offset_ns": 0},
        "process": {
            "pid": 7, "ppid": 1, "uid": 0, "gid": 0, "comm": "sh", "exe": "/bin/sh", "args": ["sh", "-c", "id"], "cwd": "/",
            "start_time": "2026-11-21T11:00:00.000000000Z", "start_boot_ns": "5", "exe_memfd": false, "ancestors": [],
            "source": "exec",
        },
        "type": "exec",
        "exec": {"filename": "/bin/sh", "mode": "0755", "uid": 0, "gid": 0, "inode": "3", "device": "8:1"},
    }))
    .unwrap()
}

fn lists() -> BTreeMap<String, Vec<String>> {
    [("shells".to_owned(), vec!["/bin/sh".to_owned(), "/bin/bash".to_owned()])].into()
}

fn condition(text: &str) -> Condition {
    let (condition, problems) = Condition::parse(text, &lists());
    assert_eq!(problems, [], "{text}");
    condition.unwrap()
}

fn eval(text: &str, event: &Event) -> Result<bool, EvalError> {
    condition(text).eval(event)
}

/// The only problem: what it points at, what it says, its label and its help.
fn problem(text: &str) -> (String, String, String, String) {
    let (condition, problems) = Condition::parse(text, &lists());
    let [problem] = problems.as_slice() else { panic!("{text}: {problems:#?}") };
    assert_eq!(condition.is_none(), problem.level == Level::Error);
    let at = text[problem.span.clone()].to_owned();
    (at, problem.message.clone(), problem.label.clone(), problem.help.clone().unwrap_or_default())
}

#[test]
fn every_field_is_what_json_shows() {
    fn walk(path: &str, value: &Json, object: field::Object<'_>) {
        let found = object.find(path);
        match (value, found) {
            (Json::Null, None) => {}
            (Json::Bool(value), Some(field::Field::Bool(found))) => assert_eq!(found, *value, "{path}"),
            (Json::Number(value), Some(field::Field::Int(found))) => assert_eq!(Some(found), value.as_i64(), "{path}"),
            (Json::String(value), Some(field::Field::Text(found))) => assert_eq!(found, value, "{path}"),
            (Json::String(value), Some(field::Field::Made(found))) => assert_eq!(found, *value, "{path}"),
            (Json::Array(values), Some(field::Field::List(list))) => {
                assert_eq!(list.len(), values.len(), "{path}");
                for (value, found) in values.iter().zip(list.iter()) {
                    match found {
                        field::Field::Object(object) => below("", value, object),
                        field::Field::Text(found) => assert_eq!(found, value, "{path}"),
                        other => panic!("{path}: {other:?}"),
                    }
                }
            }
            (Json::Object(_), Some(field::Field::Map(_) | field::Field::Object(_))) => below(&format!("{path}."), value, object),
            (value, found) => panic!("{path}: {value} and {found:?}"),
        }
    }
    fn below(prefix: &str, value: &Json, object: field::Object<'_>) {
        for (name, value) in value.as_object().unwrap() {
            walk(&format!("{prefix}{name}"), value, object);
        }
    }
    for event in [chmod(), exec()] {
        below("", &serde_json::to_value(&event).unwrap(), field::Object::Event(&event));
    }
}

#[test]
fn every_field_of_the_schema_can_be_read() {
    let mut full = serde_json::to_value(exec()).unwrap();
    full["exec"]["filename_b64"] = json!("Zg==");
    full["exec"]["exe_cut"] = json!(true);
    for (name, value) in [("count", json!(2)), ("first_time", json!("2026")), ("last_time", json!("2026"))] {
        full[name] = value;
    }
    let mut exit = serde_json::to_value(exec()).unwrap();
    exit["type"] = json!("exit");
    exit["exit"] = json!({"code": 1, "signal": "SIGKILL", "duration_ns": "9"});
    let mut api = serde_json::to_value(exec()).unwrap();
    api["type"] = json!("api");
    let user = json!({"name": "alice", "uid": "7", "groups": ["dev"]});
    let body = json!({"json": {"kind": "Pod"}, "text": "{", "truncated_from": 9});
    api["api"] = json!({
        "stage": "started", "request_id": "1", "verb": "get", "group": "", "version": "v1", "resource": "pods", "subresource": "",
        "namespace": "prod", "name": "web", "path": "/", "query": "", "command": ["id"], "method": "GET", "user": user, "impersonator": user,
        "decision": "allowed", "code": 200, "latency_ns": 5, "response_bytes": 6, "received": "2026", "source": "::1",
        "user_agent": "kubectl", "audit_id": "a", "request_body": body, "response_body": body, "truncated": ["path"],
    });
    let events =
        [serde_json::to_value(chmod()).unwrap(), full, exit, api].map(|event| serde_json::from_value::<Event>(event).unwrap());
    let all = fields();
    assert!(all.len() > 80, "{}", all.len());
    for Field { path, kind, .. } in all {
        let is_body = path.ends_with("_body.json");
        assert!((kind != "anything" || is_body) && kind != "list", "{path}: {kind}");
        if path.contains("[]") || path.starts_with("file.to.") {
            continue;
        }
        assert!(events.iter().any(|event| field::Object::Event(event).find(&path).is_some()), "{path}");
        assert!(Condition::parse(&format!("has({path})"), &lists()).0.is_some() || !path.contains('.'), "{path}");
    }
}

#[test]
fn what_is_in_a_body_is_read_as_it_is() {
    let partial = json!({ "api": { "request_body": { "json": {
        "kind": "Pod", "none": null, "ratio": 0.5, "big": 1e300, "metadata": { "labels": { "a.b/c": "d" } },
        "spec": { "hostPID": true, "containers": [{ "name": "a" }, { "name": "b", "securityContext": { "privileged": true } }] },
    } } } });
    let event = crate::cases::event(partial.as_object().unwrap()).unwrap();
    for (text, expected) in [
        ("api.request_body.json.kind == 'Pod'", Some(true)),
        ("api.request_body.json.spec.hostPID", Some(true)),
        ("!api.request_body.json.spec.hostPID", Some(false)),
        ("has(api.request_body.json.spec.hostIPC) && api.request_body.json.spec.hostIPC", Some(false)),
        ("has(api.request_body.json.spec.containers.name)", Some(false)),
        ("has(api.request_body.json.none)", Some(false)),
        ("has(api.response_body.json.kind)", Some(false)),
        ("api.response_body.json.kind == 'Pod'", None),
        ("api.request_body.json.spec.hostIPC == true", None),
        ("api.request_body.json.metadata.labels['a.b/c'] == 'd'", Some(true)),
        ("api.request_body.json.metadata.labels.exists(key, key.startsWith('a.'))", Some(true)),
        ("api.request_body.json.ratio < 1.0 && api.request_body.json.big > 1.0", Some(true)),
        ("size(api.request_body.json.spec.containers) == 2", Some(true)),
        ("api.request_body.json.spec.containers[1].name == 'b'", Some(true)),
        ("api.request_body.json.spec.containers.exists(c, has(c.securityContext) && c.securityContext.privileged)", Some(true)),
        ("api.request_body.json.spec.containers.all(c, has(c.securityContext))", Some(false)),
        // Nothing that is asked of what is of another kind ends otherwise than in an error, or in no.
        ("api.request_body.json.kind", None),
        ("api.request_body.json.kind > 3", None),
        ("api.request_body.json.spec == api.request_body.json.spec", Some(false)),
        ("api.request_body.json.spec.containers + 1 == 2", None),
        ("api.request_body.json.spec.exists(key, key == 7)", Some(false)),
        ("api.request_body.json.kind.exists(key, key == 7)", None),
        ("looserThan(api.request_body.json.spec, '0644')", None),
        ("api.request_body.json.spec.startsWith('x')", None),
        ("api.request_body.json.spec in [1]", Some(false)),
        ("string(api.request_body.json.spec) == ''", None),
        ("int(api.request_body.json.big) == 1", None),
    ] {
        let (condition, problems) = Condition::parse(text, &lists());
        assert_eq!(problems, [], "{text}");
        assert_eq!(condition.unwrap().eval(&event).ok(), expected, "{text}");
    }
}

#[test]
fn conditions_are_true_or_false() {
    let event = chmod();
    for (text, expected) in [
        ("process.exe != \"/usr/bin/kubelet\"", true),
        ("type == 'file' && file.op in ['chmod', 'chown']", true),
        ("process.uid == 0 && file.uid + 1 < 3", true),
        ("!(process.uid == 0)", false),
        ("process.args.exists(a, a.startsWith('/etc/'))", true),
        ("process.args.all(a, size(a) < 3)", false),
        ("process.args.filter(a, a.startsWith('-')).size() == 1", true),
        ("process.args.map(a, a + '!')[0] == 'chmod!'", true),
        ("process.args.exists_one(a, a == '-v')", true),
        ("process.args[2] == '0777' && size(process.args) == 4", true),
        ("process.args == ['chmod', '-v', '0777', '/etc/shadow']", true),
        ("['chmod', '-v', '0777', '/etc/shadow'] == process.args", true),
        ("process.args != ['chmod']", true),
        ("[['chmod', '-v', '0777', '/etc/shadow']] == [has(file.mode) ? process.args : []]", true),
        ("process.args.exists(a, ['chmod', '-v', '0777', '/etc/shadow'] == process.args)", true),
        ("process.pid < 7.5 && process.pid > 6u && process.pid == 7.0", true),
        ("'-v' in process.args && !('-x' in process.args)", true),
        ("process.ancestors.exists(a, a.exe in lists.shells)", true),
        ("process.ancestors[0].exe == '/bin/bash'", true),
        ("process.ancestors.exists(a, process.args.exists(b, a.comm + '' == b))", false),
        ("kubernetes.labels['app.kubernetes.io/name'] == 'shop' && kubernetes.labels.app == 'web'", true),
        ("'app' in kubernetes.labels && has(kubernetes.labels.app) && !has(kubernetes.labels.tier)", true),
        ("kubernetes.labels.exists(k, k.startsWith('app.'))", true),
        (
            "type == 'file' && lists.shells.exists(s, s == '/bin/sh') && size(lists.shells) == 2 && lists.shells[1] == '/bin/bash'",
            true,
        ),
        ("hasBits(file.mode, '0002') && !hasBits(file.old_mode, '0002') && hasBits(file.mode, '0022')", true),
        ("looserThan(file.mode, '0640') && !looserThan(file.old_mode, '0640')", true),
        ("glob(file.path, '/etc/*') && !glob(file.path, '/*') && glob(file.path, '/**') && glob(file.path, '/etc/')", true),
        ("glob(file.path, '/{etc,opt}/sh[a-c]dow') && !glob(file.path, '/etc/?') && glob(file.path, '/**/shadow')", true),
        ("file.path.matches('^/etc/sh.*w$') && matches(file.path, 'ado') && !file.path.matches('^ado')", true),
        ("has(file.old_mode) ? file.old_mode == '0640' : false", true),
        ("has(process.ns_uid) && process.ns_uid == 100 && process.uid == 0 && process.ns_pid == 1", true),
        ("int(file.size) > 4 && boot_ns == '18446744073709551615' && string(process.uid) == '0'", true),
        ("file.path_marks == ['late', 'deleted'] && 'late' in file.path_marks", true),
        ("has(exec.filename) || has(exec.mode)", false),
        ("'O_TRUNC' in file.flags && file.result < 0 && -file.result == 1", true),
        ("process.exe == \"é\" || process.comm == 'chmod'", true),
    ] {
        assert_eq!(eval(text, &event), Ok(expected), "{text}");
    }
}

#[test]
fn what_an_event_lacks_has_no_value() {
    let event = exec();
    assert_eq!(eval("file.path == '/x'", &event), Err(EvalError::Absent("file.path".into())));
    assert_eq!(eval("kubernetes.namespace == 'x'", &event).unwrap_err().to_string(), "the event has no kubernetes.namespace");
    assert_eq!(eval("!has(kubernetes.labels.app) && !has(file.old_mode) && !has(thread.tid)", &event), Ok(true));
    // One side may decide for both.
    assert_eq!(eval("file.path == '/x' || type == 'exec'", &event), Ok(true));
    assert_eq!(eval("type == 'file' && file.path == '/x'", &event), Ok(false));
    // What JSON leaves out because it is false or empty.
    assert_eq!(eval("!exec.deleted && !process.ancestors_cut", &event), Ok(true));
    assert_eq!(eval("process.args[3] == ''", &event), Err(EvalError::OutOfBounds));
    assert_eq!(eval("kubernetes.labels['x'] == ''", &chmod()), Err(EvalError::NoSuchKey));
    assert_eq!(eval("kubernetes.labels.x == ''", &chmod()), Err(EvalError::Absent("kubernetes.labels.x".into())));
    assert_eq!(eval("file.result == -1", &chmod()), Ok(true));
    assert_eq!(eval("process.pid + 9223372036854775807 > 0", &event), Err(EvalError::Overflow));
    assert_eq!(eval("process.pid / process.uid > 0", &event), Err(EvalError::DivisionByZero));
    assert_eq!(eval("int(process.comm) > 0", &event), Err(EvalError::Function("int".into())));
}

#[test]
fn several_mistakes_are_found_at_once() {
    let (_, problems) = Condition::parse("proces.exe == 'a' && file.mod == 'b'\n  || process.uid == '0'", &lists());
    assert_eq!(problems.len(), 3, "{problems:#?}");
}

#[test]
fn a_condition_tells_what_it_reads() {
    let read =
        condition("process.exe == 'a' && has(file.to.path) && process.args.exists(x, x == kubernetes.labels.app)").references();
    assert_eq!(read.into_iter().collect::<Vec<_>>(), ["file.to.path", "kubernetes.labels.app", "process.args", "process.exe"]);
}

#[test]
fn going_through_too_much_is_an_error() {
    let mut event = exec();
    let process = std::sync::Arc::make_mut(&mut event.process);
    process.args = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(eval("process.args.exists(a, process.args.exists(b, a == b + 'x'))", &event), Err(EvalError::TooManyItems));
    assert_eq!(eval("process.args.exists(a, a == '99')", &event), Ok(true));
    let process = std::sync::Arc::make_mut(&mut event.process);
    process.args = (0..10_000).map(|number| number.to_string()).collect();
    assert_eq!(eval("process.args.exists(a, a == '9999')", &event), Ok(true));
    assert_eq!(eval("process.args.all(a, '9999' in process.args)", &event), Err(EvalError::TooManyItems));
    let process = std::sync::Arc::make_mut(&mut event.process);
    process.args = (0..10_001).map(|number| number.to_string()).collect();
    assert_eq!(eval("process.args.exists(a, a == '0')", &event), Err(EvalError::TooManyItems));
    assert_eq!(eval("'10000' in process.args && process.args[10000] == '10000'", &event), Ok(true));
    let deep = "process.args.exists(a, process.args.exists(b, process.args.exists(c, a + b == c)))";
    assert!(problem(deep).1.starts_with("more than 2 loops"));
}

#[test]
#[ignore = "prints how long evaluations take; run it with --release --nocapture"]
fn how_long_it_takes() {
    let event = chmod();
    for text in [
        "process.exe != \"/usr/bin/kubelet\"",
        "process.exe != \"/usr/bin/kubelet\" && file.mode != \"0644\"",
        "has(file.old_mode) && hasBits(file.mode, \"0002\")",
        "process.exe in lists.shells",
        "file.path.startsWith(\"/etc/\")",
        "file.path.matches(\"^/etc/[a-z]+$\")",
        "process.uid < 1000",
        "process.args.exists(a, a == \"-x\")",
        "process.ancestors.exists(a, a.exe in lists.shells)",
    ] {
        let condition = condition(text);
        // The best of many rounds is what it takes where nothing else runs.
        let round = || {
            let started = std::time::Instant::now();
            for _ in 0..1000 {
                std::hint::black_box(condition.eval(std::hint::black_box(&event))).unwrap();
            }
            started.elapsed().as_nanos() / 1000
        };
        println!("{:>6} ns  {text}", (0..300).map(|_| round()).min().unwrap());
    }
    let started = std::time::Instant::now();
    for _ in 0..200 {
        std::hint::black_box(condition("process.exe != \"/usr/bin/kubelet\" && process.args.exists(a, a == \"-x\")"));
    }
    println!("{:>6.0} us  to read and check one", started.elapsed().as_secs_f64() * 1e6 / 200.0);
}
