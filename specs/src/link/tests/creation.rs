//! Who made pods, and containers in them.

use super::*;

#[test]
fn a_pod_belongs_to_who_created_it() {
    let uid = |uid: &str| json!({ "response_body": { "json": { "metadata": { "uid": uid, "name": "web" } } } });
    let query = |query: &str| json!({ "name": "web", "query": query });
    for (more, want) in [
        (uid("uid-web"), certain("alice")),
        (uid("uid-other"), None),
        (json!({ "name": "web" }), certain("alice")),
        (json!({ "name": "other" }), None),
        (json!({ "request_body": { "json": { "metadata": { "name": "web" } } } }), certain("alice")),
        (json!({ "request_body": { "json": { "metadata": { "generateName": "we" } } } }), likely("alice")),
        (json!({}), likely("alice")),
        (json!({ "namespace": "other" }), None),
        (json!({ "name": "web", "truncated": ["name"] }), likely("alice")),
        (json!({ "name": "web", "verb": "patch" }), certain("alice")),
        (json!({ "name": "web", "verb": "update" }), certain("alice")),
        (json!({ "name": "web", "verb": "patch", "code": 200 }), None),
        (json!({ "name": "web", "code": 403 }), None),
        (query("dryRun=All"), None),
        (query("fieldManager=kubectl"), certain("alice")),
        (query("dryRun=All;a"), certain("alice")),
        (json!({ "name": "web", "subresource": "binding" }), None),
        (json!({ "name": "web", "user": { "name": "system:node:n1" } }), None),
        (json!({ "name": "web", "group": "metrics.k8s.io" }), None),
    ] {
        let mut links = Links::default();
        cause(&mut links, &creation("1", "alice", &more), 10 * SECOND);
        assert_eq!(of(&mut links, &first("web", "app", 11, 15)), want, "{more}");
        let below = json!([{ "pid": 100, "comm": "app", "exe": "/bin/app", "start_boot_ns": (15 * SECOND).to_string() }]);
        let child = cause(&mut links, &process(101, &["id"], &below), 16 * SECOND);
        assert_eq!(child.map(|cause| (cause.user.clone(), cause.certainty)), want, "{more}");
    }
}

#[test]
fn each_container_of_a_new_pod_has_its_first_process_and_no_other() {
    let mut links = Links::default();
    cause(&mut links, &creation("1", "alice", &json!({ "name": "web" })), 10 * SECOND);
    assert_eq!(of(&mut links, &first("web", "init", 11, 12)), certain("alice"));
    assert_eq!(of(&mut links, &first("web", "app", 11, 1000)), certain("alice"));
    // It was begun anew.
    assert_eq!(of(&mut links, &first("web", "app", 11, 1010)), None);
    // What is run in it.
    let mut probe = first("web", "late", 11, 1020);
    let runtime = Ancestor { pid: 50, comm: "runc".into(), exe: "/usr/bin/runc".into(), start_boot_ns: 0 };
    Arc::make_mut(&mut probe.process).ancestors.insert(0, runtime);
    assert_eq!(of(&mut links, &probe), None);
    // An older pod of that name, and a much later one.
    for pod_began in [5, 400] {
        let mut links = Links::default();
        cause(&mut links, &creation("1", "alice", &json!({ "name": "web" })), 10 * SECOND);
        assert_eq!(of(&mut links, &first("web", "other", pod_began, 401)), None);
    }
    // Where each container has a shim of its own, later ones are the pod's by its UID.
    let mut links = Links::default();
    cause(&mut links, &creation("1", "alice", &json!({ "name": "web" })), 10 * SECOND);
    for (container, began) in [("init", 12), ("app", 1000)] {
        assert_eq!(of(&mut links, &first("web", container, began, began)), certain("alice"), "{container}");
    }
}

#[test]
fn a_pod_that_could_be_of_several_requests_is_of_none() {
    let mut links = Links::default();
    for (id, user) in [("1", "alice"), ("2", "bob")] {
        cause(&mut links, &creation(id, user, &json!({})), 10 * SECOND);
    }
    assert_eq!(of(&mut links, &first("web", "app", 11, 15)), None);
    // By its owner, only one may be it.
    let controller = "system:serviceaccount:kube-system:replicaset-controller";
    let owned = |owner: Option<&str>| {
        let mut event = first("web", "app", 11, 15);
        let pod = Arc::make_mut(event.kubernetes.as_mut().unwrap());
        pod.labels = Some(std::collections::BTreeMap::new());
        pod.owner = owner.map(|kind| crate::event::Owner { kind: kind.into(), name: "web".into() });
        event
    };
    for (owner, want) in
        // Alice may name an owner as well as its controller does.
        [
            (Some("ReplicaSet"), None),
            (Some("Job"), likely("alice")),
            (None, likely("alice")),
            (Some("Own"), likely("alice")),
        ]
    {
        let mut links = Links::default();
        for (id, user) in [("1", "alice"), ("2", controller)] {
            cause(&mut links, &creation(id, user, &json!({})), 10 * SECOND);
        }
        assert_eq!(of(&mut links, &owned(owner)), want, "{owner:?}");
    }
    let mut links = Links::default();
    cause(&mut links, &creation("1", controller, &json!({})), 10 * SECOND);
    assert_eq!(of(&mut links, &owned(Some("Job"))), None);
    assert_eq!(of(&mut links, &owned(Some("ReplicaSet"))), likely(controller));
    // A name that is known is another pod's; one that has led to a pod is that pod's.
    let mut links = Links::default();
    cause(&mut links, &creation("1", "alice", &json!({})), 10 * SECOND);
    cause(&mut links, &creation("2", "bob", &json!({ "name": "other" })), 10 * SECOND);
    assert_eq!(of(&mut links, &first("web", "app", 11, 15)), likely("alice"));
    assert_eq!(of(&mut links, &first("web-2", "app", 11, 15)), None);
    cause(&mut links, &creation("3", "carol", &json!({})), 20 * SECOND);
    assert_eq!(of(&mut links, &first("web-3", "app", 21, 25)), likely("carol"));
    assert_eq!(of(&mut links, &first("web", "other", 11, 400)), likely("alice"));
    // Too late, and too early.
    for pod_began in [8, 400] {
        let mut links = Links::default();
        cause(&mut links, &creation("1", "alice", &json!({})), 10 * SECOND);
        assert_eq!(of(&mut links, &first("web", "app", pod_began, 401)), None);
    }
}

#[test]
fn a_container_that_was_put_into_a_pod_belongs_to_who_put_it_there() {
    let put = |id: &str, user: &str, body: &Value| {
        let body = json!({ "json": { "spec": { "ephemeralContainers": body } } });
        let more =
            json!({ "verb": "patch", "subresource": "ephemeralcontainers", "name": "web", "code": 200, "request_body": body });
        creation(id, user, &more)
    };
    let debugger = || first("web", "debugger", 1, 15);
    let spec =
        pod(&[("app", PodContainer::default()), ("debugger", PodContainer { ephemeral: true, ..PodContainer::default() })]);
    for (body, spec, want) in [
        (json!([{ "name": "debugger" }]), None, certain("bob")),
        (json!([{ "name": "other" }]), None, None),
        (json!(null), None, likely("bob")),
        (json!(null), Some(&spec), likely("bob")),
    ] {
        let mut links = Links::default();
        cause(&mut links, &put("1", "bob", &body), 10 * SECOND);
        assert_eq!(of_known(&mut links, &debugger(), spec), want, "{body}");
    }
    // The pod of that name may be another.
    let of_pod = |id: &str, user: &str, uid: &str| {
        let mut event = put(id, user, &json!([{ "name": "debugger" }]));
        let What::Api { api } = &mut event.what else { panic!("a request") };
        let body = json!({ "metadata": { "uid": uid } });
        api.response_body = Some(crate::event::ApiBody { json: Some(body), ..Default::default() });
        event
    };
    let named = |id: &str, user: &str| put(id, user, &json!([{ "name": "debugger" }]));
    let later = |pod_began: i64| first("web", "debugger", pod_began, pod_began.max(25));
    for (requests, debugger, want) in [
        ([of_pod("1", "alice", "uid-old"), of_pod("2", "bob", "uid-web")], later(15), certain("bob")),
        ([of_pod("1", "alice", "uid-old"), named("2", "bob")], later(15), likely("bob")),
        ([named("1", "alice"), named("2", "bob")], later(15), likely("bob")),
        ([named("1", "alice"), named("2", "bob")], later(500), None),
        // Whoever is the first to name a container of a pod has added it.
        ([of_pod("1", "alice", "uid-web"), of_pod("2", "bob", "uid-web")], later(15), certain("alice")),
        ([named("1", "alice"), named("2", "bob")], later(1), certain("alice")),
        ([put("1", "alice", &json!(null)), put("2", "bob", &json!(null))], later(1), likely("bob")),
    ] {
        let mut links = Links::default();
        for request in &requests {
            cause(&mut links, request, 10 * SECOND);
        }
        assert_eq!(of(&mut links, &debugger), want, "{requests:?}");
    }
    // A container of the pod's own that is begun anew.
    let mut links = Links::default();
    cause(&mut links, &put("1", "bob", &json!(null)), 10 * SECOND);
    assert_eq!(of_known(&mut links, &first("web", "app", 1, 15), Some(&spec)), None);
    assert_eq!(of(&mut links, &first("other", "debugger", 1, 15)), None);
    assert_eq!(of(&mut links, &first("web", "debugger", 1, 8)), None);
    // Whoever created the pod has not put it there.
    let mut links = Links::default();
    cause(&mut links, &creation("1", "alice", &json!({ "name": "web" })), SECOND);
    cause(&mut links, &put("2", "bob", &json!(null)), 10 * SECOND);
    assert_eq!(of_known(&mut links, &first("web", "app", 1, 12), Some(&spec)), certain("alice"));
    assert_eq!(of_known(&mut links, &debugger(), Some(&spec)), likely("bob"));
}
