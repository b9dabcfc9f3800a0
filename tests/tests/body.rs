//! Objects of a real API server: what is shown of their protobuf is the JSON that the server itself gives.
#![expect(clippy::unwrap_used, reason = "a test has no better way to end")]

use knark_specs::body::{self, Subject};
use knark_tests::api_server::ApiServer;
use serde_json::Value;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON: &str = "application/json";

/// One of each that has what is special in protobuf: times, quantities, numbers or texts, maps, bytes, schemas, raw objects.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: db, namespace: default, annotations: {a: b}, labels: {app: "1"}}
stringData: {password: correct-horse}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: all, namespace: default}
data: {a: "ü\n"}
binaryData: {b: AP8=}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: web}, {name: other, port: 81, targetPort: 8081}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: default}
spec:
  serviceName: web
  selector: {matchLabels: {app: web}}
  updateStrategy: {rollingUpdate: {maxUnavailable: 30%}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext: {supplementalGroups: [5, 6], runAsNonRoot: false}
      containers:
      - name: web
        image: web
        env: [{name: A, value: b}, {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        resources: {requests: {cpu: 1500m, memory: 2Gi}, limits: {memory: 1e10}}
        livenessProbe: {httpGet: {port: 8080, httpHeaders: [{name: A, value: b}]}, periodSeconds: 7}
        securityContext: {readOnlyRootFilesystem: true, capabilities: {add: [NET_ADMIN]}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: default}
spec: {minAvailable: 50%, selector: {matchExpressions: [{key: app, operator: In, values: [web]}]}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: default}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: web}
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: a, namespace: default}
spec: {acquireTime: "2026-01-02T03:04:05.678901Z", leaseDurationSeconds: 3}
---
apiVersion: apps/v1
kind: ControllerRevision
metadata: {name: a, namespace: default}
revision: 3
data: {spec: {template: {a: [1, 2.5, null]}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: a}
webhooks:
- name: a.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {url: "https://example.com/a"}
  rules: [{apiGroups: [example.com], apiVersions: ["*"], operations: [CREATE], resources: [things]}]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  names: {kind: Thing, plural: things}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: A, type: string, jsonPath: .spec.a}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            default: {a: 1}
            properties:
              a: {type: number, maximum: 2.5, enum: [1, 2.5]}
              b: {type: array, items: {type: string}}
              c: {type: object, additionalProperties: {x-kubernetes-int-or-string: true}}
"#;

/// All lists that the server has of its own kinds.
fn lists(server: &ApiServer) -> Vec<String> {
    let ask = |path: &str| -> Value { serde_json::from_slice(&server.get(path, JSON)).unwrap() };
    let groups = ask("/apis");
    let versions = groups["groups"].as_array().unwrap().iter().flat_map(|group| group["versions"].as_array().unwrap());
    let mut roots: Vec<_> = versions.map(|version| format!("/apis/{}", version["groupVersion"].as_str().unwrap())).collect();
    // Custom resources have no protobuf.
    roots.retain(|root| !root.starts_with("/apis/example.com/"));
    roots.push("/api/v1".to_owned());
    let mut lists = Vec::new();
    for root in roots {
        for resource in ask(&root)["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap();
            if resource["verbs"].as_array().unwrap().contains(&"list".into()) && name != "componentstatuses" {
                lists.push(format!("{root}/{name}"));
            }
        }
    }
    lists
}

/// Older servers show some times that are absent, and all servers lists that are empty.
fn without_nothing(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|values| !values.is_empty()));
            fields.values_mut().for_each(|value| *value = without_nothing(value.take()));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = without_nothing(value.take())),
        _ => {}
    }
    value
}

#[test]
fn protobuf_is_shown_as_the_servers_own_json() {
    let server = ApiServer::start();
    let file = server.file("objects.yaml", OBJECTS);
    server.admin(["apply", "-f", file.to_str().unwrap()]);
    let (mut compared, mut kinds) = (0, 0);
    for list in lists(&server) {
        let json: Value = serde_json::from_slice(&server.get(&list, JSON)).unwrap();
        // The same state, whatever happens meanwhile.
        let version = json["metadata"]["resourceVersion"].as_str().unwrap();
        let protobuf = server.get(&format!("{list}?resourceVersion={version}&resourceVersionMatch=Exact"), PROTOBUF);
        let body = body::read(&protobuf, None);
        assert!(protobuf.starts_with(b"k8s\0") && body.truncated_from.is_none(), "{list}");
        let (got, want) = (without_nothing(body.json.clone().unwrap()), without_nothing(json));
        assert_eq!(got, want, "{list}");
        let items = want["items"].as_array().map_or(0, Vec::len);
        compared += items;
        kinds += usize::from(items > 0);
        if list == "/api/v1/secrets" {
            let mut body = body;
            body::redact(&Subject { group: "", resource: "secrets", subresource: "" }, &mut body);
            let shown = String::from_utf8(body::write(&body)).unwrap();
            let hidden = ["correct-horse", "Y29ycmVjdC1ob3JzZQ=="].iter().all(|secret| !shown.contains(secret));
            assert!(hidden && shown.contains("\"password\":\"redacted\""), "{shown}");
        }
    }
    assert!(compared > 100 && kinds > 20, "{compared} objects of {kinds} kinds");
}
