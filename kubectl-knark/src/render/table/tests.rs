use std::sync::Arc;

use knark_specs::{
    event::{Ancestor, Api, ApiStage, ApiUser, Container, Exec, File, Kubernetes, Path},
    frame::FileOp,
    link::{Cause, Certainty},
    linux::Mode,
};

use super::*;
use crate::{pipeline::tests::event, render::Render as _};

const LONG: &str = "/var/lib/kubelet/pods/0a1b2c3d-0000-1111-2222-333344445555/volumes/token";

fn file(op: FileOp, path: &str) -> Event {
    let mut event = event(1);
    let process = Arc::make_mut(&mut event.process);
    (process.pid, process.comm) = (4711, "nginx".into());
    process.ancestors = vec![Ancestor { pid: 1, comm: "init".into(), exe: String::new(), start_boot_ns: 0 }];
    let pod = Kubernetes {
        namespace: "prod".into(),
        pod: "web-7d9f8b6c5-x2x7k".into(),
        pod_uid: "u".into(),
        labels: None,
        owner: None,
    };
    event.kubernetes = Some(Arc::new(pod));
    event.container = Some(Arc::new(Container { id: "c0".into(), name: "app".into(), image: "i".into(), cgroup_id: 3 }));
    let path = Path { path: path.into(), ..Path::default() };
    let file = File {
        op,
        syscall: String::new(),
        path,
        same_as: knark_specs::texts::Texts::default(),
        same_as_b64: None,
        to: None,
        flags: None,
        created: false,
        mode: None,
        old_mode: None,
        uid: None,
        gid: None,
        old_uid: None,
        old_gid: None,
        size: None,
        xattr: None,
        inode: None,
        device: None,
        result: 0,
        error: None,
    };
    event.what = What::File { file: Box::new(file) };
    event
}

fn changed(mut event: Event, change: impl FnOnce(&mut File)) -> Event {
    if let What::File { file } = &mut event.what {
        change(file);
    }
    event
}

fn exec(args: &[&str]) -> Event {
    let mut event = file(FileOp::Open, "");
    Arc::make_mut(&mut event.process).args = args.iter().collect();
    let exec = Exec {
        filename: String::new(),
        filename_b64: None,
        mode: Mode(0o755),
        uid: 0,
        gid: 0,
        inode: 1,
        device: "8:1".into(),
        deleted: true,
        exe_cut: false,
    };
    event.what = What::Exec { exec };
    event
}

fn caused(mut event: Event, subresource: &str, certainty: Certainty) -> Event {
    event.cause = Some(Arc::new(Cause {
        request_id: "1".into(),
        user: "alice".into(),
        impersonator: None,
        verb: "create".into(),
        subresource: subresource.into(),
        source: None,
        certainty,
        others: std::iter::empty::<&str>().collect(),
    }));
    event
}

#[test]
fn who_is_behind_it_is_said() {
    use Certainty::{Certain, Likely};
    let shim = Ancestor { pid: 9, comm: "containerd-shim".into(), exe: String::new(), start_boot_ns: 0 };
    let mut first = exec(&["app"]);
    Arc::make_mut(&mut first.process).ancestors.insert(0, shim);
    for (event, short, full) in [
        (caused(exec(&["sh"]), "exec", Certain), Some("kubectl exec by alice"), "kubectl exec by alice"),
        (caused(exec(&["sh"]), "attach", Likely), Some("probably kubectl attach by alice"), "probably kubectl attach by alice"),
        (caused(exec(&["sh"]), "ephemeralcontainers", Certain), Some("kubectl debug by alice"), "kubectl debug by alice"),
        (caused(first, "", Likely), Some("probably created by alice"), "probably created by alice"),
        // All else that the pod does.
        (caused(exec(&["sh"]), "", Certain), None, "created by alice"),
        (caused(file(FileOp::Open, "/a"), "exec", Certain), None, "kubectl exec by alice"),
    ] {
        let marks = |extent| words::detail(&event, extent).marks.into_iter().find(|mark| mark.contains("alice"));
        assert_eq!((marks(Extent::Brief).as_deref(), marks(Extent::Usual).as_deref()), (short, Some(full)));
    }
}

fn lines(width: Option<usize>, local: bool, colour: bool, events: &[Event]) -> String {
    let scene = Scene { local, nodes: 1, pods: &[], policies: false, requests: false };
    shown(Layout { wide: false, width, header: true, colour, many_namespaces: false }, &scene, events, &[])
}

fn shown(layout: Layout, scene: &Scene<'_>, events: &[Event], matches: &[Match]) -> String {
    let (mut table, mut out) = (Table::new(layout), Vec::new());
    table.times = LocalTime::utc();
    table.begin(scene, &mut out);
    for event in events {
        table.event(event, matches, &mut out).unwrap();
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn other_names_are_told() {
    let same = |paths: &[&str]| changed(file(FileOp::Open, "/tmp/x"), |f| f.same_as = paths.iter().collect());
    let table = lines(None, false, false, &[same(&["/etc/shadow"]), same(&["/etc/a b", "/etc/shadow"])]);
    for words in ["/tmp/x (same file as /etc/shadow)", "/tmp/x (same file as '/etc/a b' and 1 more)"] {
        assert!(table.contains(words), "{words}: {table}");
    }
}

fn some() -> Vec<Event> {
    vec![
        exec(&["init", "--switched-root", "--system", "--deserialize=17"]),
        changed(file(FileOp::Chmod, LONG), |f| (f.mode, f.old_mode) = (Some(Mode(0o777)), Some(Mode(0o644)))),
        changed(file(FileOp::Open, LONG), |f| (f.result, f.error) = (-2, Some("ENOENT".into()))),
        changed(file(FileOp::Rename, "/tmp/x"), |f| f.to = Some(Path { path: LONG.into(), ..Path::default() })),
    ]
}

#[test]
fn at_80_columns_lines_fit() {
    let table = lines(Some(80), false, false, &some());
    assert!(table.lines().all(|line| shorten::width(line) <= 80), "{table}");
    assert_eq!(
        table,
        "\
TIME      POD               OP          PROCESS     DETAIL
00:00:00  web-7…b6c5-x2x7k  exec        init --switched-root --system… (deleted)
00:00:00  web-7…b6c5-x2x7k  chmod       nginx       /var/…umes/token 0644 → 0777
00:00:00  web-7…b6c5-x2x7k  open        nginx       /var/l…/volumes/token ENOENT
00:00:00  web-7…b6c5-x2x7k  rename      nginx       /tmp/x → /var/l…olumes/token
"
    );
}

#[test]
fn remarks_give_way_on_a_narrow_terminal() {
    let mut event = exec(&["/bin/sh", "-c", "id"]);
    Arc::make_mut(&mut event.process).exe = "/bin/sh".into();
    event.cause = Some(Arc::new(serde_json::from_str(CAUSE).unwrap()));
    for width in [40, 70, 80, 100] {
        let table = lines(Some(width), false, false, std::slice::from_ref(&event));
        let line = table.lines().next_back().unwrap();
        assert!(shorten::width(line) <= width && line.contains("/bin/sh"), "{width}: {table}");
        assert!(width < 80 || line.contains("(kubectl exec by somebody"), "{width}: {table}");
    }
    assert!(lines(None, false, false, &[event]).contains("by somebody-with-a-long-name@example.com"));
}

const CAUSE: &str =
    r#"{"request_id": "1", "user": "somebody-with-a-long-name@example.com", "subresource": "exec", "certainty": "certain"}"#;

#[test]
fn a_wider_terminal_says_more() {
    let table = lines(Some(120), false, false, &some());
    assert!(table.lines().all(|line| shorten::width(line) <= 120), "{table}");
    assert_eq!(
        table,
        "\
TIME          POD                   PID      PROCESS          OP          DETAIL
00:00:00.000  web-7d9f8b6c5-x2x7k   4711     nginx            exec        init --switched-root --system --des… (deleted)
00:00:00.000  web-7d9f8b6c5-x2x7k   4711     nginx            chmod       /var/lib/ku…44445555/volumes/token 0644 → 0777
00:00:00.000  web-7d9f8b6c5-x2x7k   4711     nginx            open        /var/lib/kub…333344445555/volumes/token ENOENT
00:00:00.000  web-7d9f8b6c5-x2x7k   4711     nginx            rename      /tmp/x → /var/lib/kub…3344445555/volumes/token
"
    );
    assert!(lines(Some(160), false, false, &[]).contains("CONTAINER     PID      UID    PROCESS"));
}

#[test]
fn on_a_host_processes_matter() {
    let table = lines(Some(80), true, false, &some());
    assert_eq!(
        table,
        "\
TIME      PROCESS             OP          DETAIL
00:00:00  nginx@4711          exec        init --switched-root --syst… (deleted)
00:00:00  nginx@4711          chmod       /var/lib…555/volumes/token 0644 → 0777
00:00:00  nginx@4711          open        /var/lib/k…445555/volumes/token ENOENT
00:00:00  nginx@4711          rename      /tmp/x → /var/lib/…45555/volumes/token
"
    );
}

#[test]
fn colours_say_what_it_is() {
    let table = lines(None, false, true, &some()[..3]);
    assert!(table.contains("\x1b[36mexec\x1b[0m        "), "{table:?}");
    assert!(table.contains("\x1b[33mchmod\x1b[0m       "), "{table:?}");
    assert!(table.contains("\x1b[31m ENOENT\x1b[0m\n"), "{table:?}");
    assert!(table.contains("\x1b[2m (deleted)\x1b[0m\n"), "{table:?}");
}

fn request(change: impl FnOnce(&mut Api)) -> Event {
    let user = ApiUser { name: "alice".into(), ..ApiUser::default() };
    let mut api = Api {
        verb: "get".into(),
        resource: "secrets".into(),
        namespace: "prod".into(),
        name: "db-\u{1b}[2Jpassword".into(),
        user: Some(user),
        code: Some(200),
        latency_ns: Some(1_234_567),
        ..Api::default()
    };
    change(&mut api);
    let mut event = file(FileOp::Open, "");
    event.what = What::Api { api: Box::new(api) };
    event
}

/// A shell in a pod, the request for it and what it runs, and a request of a user with a long name.
fn session() -> Vec<Event> {
    let asked = request(|api| {
        (api.resource, api.subresource, api.name, api.code) = ("pods".into(), "exec".into(), "web".into(), Some(101));
        api.command = ["/bin/sh", "-c", "id; cat /etc/hostname; sleep 1"].iter().collect();
    });
    let mut shell = caused(exec(&["/bin/sh", "-c", "id; cat /etc/hostname; sleep 1"]), "exec", Certainty::Certain);
    Arc::make_mut(&mut shell.process).exe = "/bin/busybox".into();
    let collected = request(|api| {
        let user = "system:serviceaccount:kube-system:generic-garbage-collector";
        api.user = Some(ApiUser { name: user.into(), ..ApiUser::default() });
        (api.verb, api.name) = ("delete".into(), "db-password".into());
    });
    vec![asked, shell, collected]
}

#[test]
fn whose_shell_it_is_and_what_requests_are_about_fit_80_columns() {
    let mut events = session();
    events.push(file(FileOp::Open, LONG));
    let table = lines(Some(80), false, false, &events);
    assert!(table.lines().all(|line| shorten::width(line) <= 80), "{table}");
    assert_eq!(
        table,
        "\
TIME      POD               OP          PROCESS     DETAIL
00:00:00  api  alice get pods/exec prod/web: /bin/sh -c 'id; cat /etc/hostn… 101
00:00:00  web-7…b6c5-x2x7k  exec        /bin/sh… […] (kubectl exec by alice, d…)
00:00:00  api  system:se…c-garbage-collector delete secrets prod/db-password 200
00:00:00  web-7…b6c5-x2x7k  open        nginx       /var/lib/…5555/volumes/token
"
    );
    let wide = lines(Some(140), false, false, &events);
    assert!(wide.lines().all(|line| shorten::width(line) <= 140), "{wide}");
    assert!(wide.contains("exec by alice, deleted)") && wide.contains("101 after 1ms 234us"), "{wide}");
    assert!(wide.contains("generic-garbage-collector delete secrets prod/db-password 200"), "{wide}");
    let piped = lines(None, false, false, &events);
    let whole = "'id; cat /etc/hostname; sleep 1' [/bin/busybox] (kubectl exec by alice, deleted)\n";
    assert!(piped.contains(whole) && !piped.contains('…'), "{piped}");
    for width in (40..NARROW).chain(70..200) {
        let table = lines(Some(width), false, false, &events);
        assert!(table.lines().skip(1).all(|line| shorten::width(line) <= width), "{width}: {table}");
    }
}

fn matched(message: &str) -> Match {
    Match {
        policy: "p".into(),
        rule: "pod-exec".into(),
        severity: knark_specs::policy::Severity::High,
        message: message.into(),
        tags: Vec::new(),
        references: Vec::new(),
    }
}

#[test]
fn what_a_rule_says_has_room() {
    let matched = matched("alice: exec in pod prod/web (command=id&container=app)");
    let scene = Scene { local: false, nodes: 1, pods: &[], policies: true, requests: false };
    let layout = Layout { wide: false, width: Some(80), header: true, colour: false, many_namespaces: false };
    let table = shown(layout, &scene, &session()[..2], &[matched]);
    assert_eq!(
        table,
        "\
TIME      SEVERITY  POD               MESSAGE
00:00:00  high      alice: exec in pod prod/web (command=id&container=app)
00:00:00  high      web-7…b6c5-x2x7k  alice: exec in pod prod/web (command=id&c…
"
    );
}

#[test]
fn where_all_are_requests_nothing_says_so() {
    let scene = Scene { local: false, nodes: 1, pods: &[], policies: false, requests: true };
    let layout = |header| Layout { wide: false, width: None, header, colour: false, many_namespaces: true };
    assert_eq!(
        shown(layout(true), &scene, &session()[2..], &[]),
        "\
TIME          DETAIL
00:00:00.000  system:serviceaccount:kube-system:generic-garbage-collector delete secrets prod/db-password 200 after 1ms 234us
"
    );
    // Where there is room, of several API servers, or logs, which one.
    let several = shown(Layout { width: Some(140), ..layout(true) }, &Scene { nodes: 2, ..scene }, &session()[..1], &[]);
    assert!(several.contains("\n00:00:00.000  n             alice get pods/exec"), "{several}");
}

#[test]
fn a_wide_table_says_where_a_request_comes_from() {
    let event = request(|api| {
        let groups = ["dev", "a\u{1b} b"].iter().collect();
        api.user = Some(ApiUser { name: "alice".into(), groups, ..ApiUser::default() });
        api.source = Some("10.0.0.7".into());
        api.user_agent = Some("kubectl/v1.36.3 (linux/amd64)".into());
        api.name = "db".into();
    });
    let scene = Scene { local: false, nodes: 1, pods: &[], policies: false, requests: true };
    let layout = |wide| Layout { wide, width: None, header: false, colour: false, many_namespaces: true };
    let wide = shown(layout(true), &scene, std::slice::from_ref(&event), &[]);
    let end = r"200     alice get secrets prod/db 200 after 1ms 234us (from 10.0.0.7, by 'kubectl/v1.36.3 (linux/amd64)', groups dev $'a\x1b b')";
    assert!(wide.trim_end().ends_with(end), "{wide}");
    let table = shown(layout(false), &scene, std::slice::from_ref(&event), &[]);
    assert!(table.ends_with("after 1ms 234us\n"), "{table}");
    let scene = Scene { policies: true, ..scene };
    let matched = shown(layout(true), &scene, &[event], &[matched("alice reads")]);
    assert!(matched.contains("alice reads (from 10.0.0.7, by "), "{matched}");
}

#[test]
fn requests_say_who_did_what_to_what() {
    let api = |change: fn(&mut Api)| words::detail(&request(change), Extent::Usual).text();
    assert_eq!(api(|_| {}), r"alice get secrets prod/db-\x1b[2Jpassword 200 after 1ms 234us");
    let changed = api(|api| {
        api.impersonator = Some(ApiUser { name: "root".into(), ..ApiUser::default() });
        (api.group, api.subresource) = ("apps".into(), "scale".into());
        (api.name, api.code, api.latency_ns) = (String::new(), Some(403), None);
        api.truncated = vec!["query".into()];
    });
    assert_eq!(changed, "root as alice get secrets/scale.apps prod/ 403 (cut)");
    let exec = api(|api| {
        (api.resource, api.subresource, api.name, api.code) = ("pods".into(), "exec".into(), "web".into(), Some(101));
        api.command = ["sh", "-c", "id; \u{1b}"].iter().collect();
    });
    assert_eq!(exec, r"alice get pods/exec prod/web: sh -c $'id; \x1b' 101 after 1ms 234us");
    let begun = api(|api| {
        (api.stage, api.user, api.code) = (ApiStage::Started, None, None);
        (api.resource, api.path) = (String::new(), "/healthz".into());
    });
    assert_eq!(begun, "- get /healthz started");
}
