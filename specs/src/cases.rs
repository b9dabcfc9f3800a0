//! Cases: policies, events, and the rules that must match them. `policy test` runs them offline.
//!
//! ```yaml
//! pack: credentials            # or policies: [...], or policyFile: FILE
//! cases:
//! - name: a shell reads the password hashes
//!   event:                     # as `-o json` shows it; what is left out has a plain value
//!     process: {exe: /bin/sh}
//!     file: {op: open, path: /etc/shadow}
//!   matches: [shadow-read]     # all rules that match, and no other
//! ```

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    event::{self, Event, SCHEMA},
    policy::{TraceList, TracePolicy},
    problem::Problem,
    typed,
    yaml::Node,
};

/// Policies, and what they must make of events.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaseFile {
    /// What the cases are about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The name of a shipped pack. Exactly one of `pack`, `policyFile` and `policies` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<String>,
    /// A file of policies, by its path from this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_file: Option<String>,
    /// The policies themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub policies: Vec<TracePolicy>,
    /// Lists that `policies` refer to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub lists: Vec<TraceList>,
    /// The cases; each by itself.
    #[schemars(length(min = 1, max = 10_000))]
    pub cases: Vec<CaseEntry>,
}

/// One case as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaseEntry {
    /// What happens, in words.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The event as `-o json` shows it. What is left out has a plain value: see [`event`].
    pub event: Map<String, Value>,
    /// Labels of the node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_labels: BTreeMap<String, String>,
    /// Labels of the pod's namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_labels: BTreeMap<String, String>,
    /// Names of all rules that match; none: nothing does.
    #[serde(default)]
    pub matches: Vec<String>,
}

/// One case, ready to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Case<'a> {
    /// What happens, in words.
    pub name: &'a str,
    /// The policies.
    pub policies: &'a [TracePolicy],
    /// The lists that they refer to.
    pub lists: &'a [TraceList],
    /// What happens.
    pub event: Event,
    /// Labels of the node.
    pub node_labels: &'a BTreeMap<String, String>,
    /// Labels of the pod's namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Names of all rules that match, in order.
    pub matches: Vec<String>,
}

/// Why an event can't be built from what is given.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not one of the kinds of events, or more than one.
    #[error("an event holds exactly one of `exec`, `file`, `exit` and `api`; this one holds {0}")]
    Kind(usize),
    /// A value is not what its field takes.
    #[error("the event{} can't be read: {problem}", if field.is_empty() { String::new() } else { format!("'s `{field}`") })]
    Value {
        /// The field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// No event has such a field.
    #[error("events have no field `{0}`; `schema event` prints those that they have")]
    Unknown(String),
}

/// The JSON Schema (draft 2020-12) of a file of cases.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(CaseFile)
}

impl CaseFile {
    /// Reads a file of cases.
    ///
    /// # Errors
    /// What isn't a file of cases, at its place; so is an event that can't be built.
    pub fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        let file: Self = typed::read(node)?;
        let mut problems = Vec::new();
        let sources = [file.pack.is_some(), file.policy_file.is_some(), !file.policies.is_empty()];
        if sources.iter().filter(|given| **given).count() != 1 {
            problems.push(Problem::error(node.span.clone(), "", "exactly one of `pack`, `policyFile` and `policies` is needed"));
        }
        for (at, case) in file.cases.iter().enumerate() {
            if let Err(error) = event(&case.event) {
                let field = match &error {
                    EventError::Value { field, .. } | EventError::Unknown(field) => format!("cases[{at}].event.{field}"),
                    EventError::Kind(_) => format!("cases[{at}].event"),
                };
                problems.push(Problem::error(node.find(&field).span.clone(), field, error.to_string()));
            }
        }
        if problems.is_empty() { Ok(file) } else { Err(problems) }
    }

    /// The cases, to be run against these policies: the file's own, or those of its pack or policy file.
    pub fn cases<'a>(
        &'a self,
        policies: &'a [TracePolicy],
        lists: &'a [TraceList],
    ) -> impl Iterator<Item = Result<Case<'a>, EventError>> {
        self.cases.iter().map(move |case| {
            let mut matches = case.matches.clone();
            matches.sort_unstable();
            Ok(Case {
                name: &case.name,
                policies,
                lists,
                event: event(&case.event)?,
                node_labels: &case.node_labels,
                namespace_labels: &case.namespace_labels,
                matches,
            })
        })
    }
}

/// The event of which only some fields are given, in the form of `-o json`.
///
/// What is left out: `type` is that of the field `exec`, `file`, `exit` or `api` that is there; `comm`, `args` and the name that was
/// executed follow `process.exe`; a syscall is called as the operation, and it succeeded; user and group are 0. A process is
/// outside of any pod unless there is `kubernetes` or `container`; either brings the other with it.
///
/// # Errors
/// See [`EventError`]. A field that no event has is one.
pub fn event(partial: &Map<String, Value>) -> Result<Event, EventError> {
    let kinds: Vec<_> = ["exec", "file", "exit", "api"].into_iter().filter(|kind| partial.contains_key(*kind)).collect();
    let &[kind] = kinds.as_slice() else { return Err(EventError::Kind(kinds.len())) };
    let partial = &Value::Object(partial.clone());
    let mut whole = plain(kind, partial);
    overlay(&mut whole, partial);
    // An event as a whole doesn't tell which of its fields is wrong; its parts do.
    part::<event::Process>(&whole, "process")?;
    match kind {
        "exec" => part::<event::Exec>(&whole, kind)?,
        "exit" => part::<event::Exit>(&whole, kind)?,
        "api" => part::<event::Api>(&whole, kind)?,
        _ => part::<event::File>(&whole, kind)?,
    }
    let mut event: Event =
        serde_json::from_value(whole).map_err(|error| EventError::Value { field: String::new(), problem: error.to_string() })?;
    if let event::What::Api { api } = &mut event.what {
        api.dry_run |= api.asks_for_dry_run();
    }
    let shown =
        serde_json::to_value(&event).map_err(|error| EventError::Value { field: String::new(), problem: error.to_string() })?;
    match unknown(partial, &shown) {
        Some(field) => Err(EventError::Unknown(field)),
        None => Ok(event),
    }
}

fn part<T: serde::de::DeserializeOwned>(event: &Value, field: &str) -> Result<(), EventError> {
    match serde_path_to_error::deserialize::<_, T>(&event[field]) {
        Ok(_) => Ok(()),
        Err(error) => {
            let field = match error.path().to_string() {
                path if path == "." => field.to_owned(),
                path => format!("{field}.{path}"),
            };
            Err(EventError::Value { field, problem: error.into_inner().to_string() })
        }
    }
}

/// All fields that an event must have, with values that say nothing.
fn plain(kind: &str, partial: &Value) -> Value {
    let text = |pointer: &str| partial.pointer(pointer).and_then(Value::as_str);
    let exe = text("/process/exe").unwrap_or(if kind == "api" { "/usr/local/bin/kube-apiserver" } else { "/usr/bin/true" });
    let name = exe.rsplit('/').next().unwrap_or_default();
    // A process's name holds 15 bytes.
    let comm = &name[..name.floor_char_boundary(15)];
    let mut event = json!({
        "schema": SCHEMA, "time": "2026-01-01T00:00:00.000000000Z", "boot_ns": "0", "type": kind,
        "node": { "name": "node", "clock_offset_ns": 0 },
        "process": {
            "pid": 1000, "ppid": 1, "uid": 0, "gid": 0, "comm": comm, "exe": exe, "args": [name], "cwd": "/",
            "start_time": "2026-01-01T00:00:00.000000000Z", "start_boot_ns": "0", "exe_memfd": false, "ancestors": [], "source": "exec",
        },
    });
    event[kind] = match kind {
        "exec" => json!({ "filename": exe, "mode": "0755", "uid": 0, "gid": 0, "inode": "1", "device": "8:1" }),
        "exit" => json!({ "duration_ns": "0" }),
        "api" => json!({
            "stage": "complete", "request_id": "1", "verb": "get", "group": "", "version": "v1", "resource": "",
            "subresource": "", "namespace": "", "name": "", "path": "/", "query": "",
        }),
        _ => {
            let op = text("/file/op").unwrap_or("open");
            let syscall = match op {
                "create" | "write-open" => "open",
                "map-exec" => "mmap",
                op => op,
            };
            json!({
                "op": op, "syscall": syscall, "path": "/", "path_source": "kernel", "created": op == "create",
                "mode": null, "old_mode": null, "uid": null, "gid": null, "old_uid": null, "old_gid": null, "result": 0,
            })
        }
    };
    if partial.pointer("/file/to").is_some() {
        event["file"]["to"] = json!({ "path": "/", "path_source": "kernel" });
    }
    if partial.get("kubernetes").is_some() || partial.get("container").is_some() {
        event["kubernetes"] = json!({ "namespace": "default", "pod": "pod", "pod_uid": "00000000-0000-0000-0000-000000000000" });
        event["container"] = json!({ "id": "0", "name": "container", "image": "image", "cgroup_id": "0" });
    }
    if let Some(ancestors) = partial.pointer("/process/ancestors").and_then(Value::as_array) {
        event["process"]["ancestors"] = ancestors
            .iter()
            .map(|given| {
                let mut ancestor = json!({ "pid": 1, "comm": "", "exe": "", "start_boot_ns": "0" });
                overlay(&mut ancestor, given);
                ancestor
            })
            .collect();
    }
    event
}

/// Puts what is given over what is there; an array replaces another, but for ancestors, which are whole already.
fn overlay(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                if key != "ancestors" {
                    overlay(under.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (under, over) => *under = over.clone(),
    }
}

/// A field that was given and isn't shown: a misspelt one.
fn unknown(given: &Value, shown: &Value) -> Option<String> {
    match (given, shown) {
        (Value::Object(given), Value::Object(shown)) => given.iter().find_map(|(key, value)| {
            let inner = match shown.get(key) {
                Some(shown) => unknown(value, shown)?,
                // What says nothing is left out of JSON.
                None if matches!(value, Value::Null | Value::Bool(false)) || value == &json!([]) => return None,
                None => String::new(),
            };
            Some(if inner.is_empty() { key.clone() } else { format!("{key}.{inner}") })
        }),
        (Value::Array(given), Value::Array(shown)) => given
            .iter()
            .zip(shown)
            .enumerate()
            .find_map(|(at, (given, shown))| Some(format!("[{at}].{}", unknown(given, shown)?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{CaseFile, EventError};
    use crate::{
        event::{Event, What},
        packs, typed,
    };

    fn event(partial: &serde_json::Value) -> Result<Event, EventError> {
        super::event(partial.as_object().unwrap())
    }

    #[test]
    fn what_is_left_out_has_a_plain_value() {
        let event =
            event(&json!({ "process": { "exe": "/bin/sh" }, "file": { "op": "chmod", "path": "/etc/x", "mode": "0777" } }))
                .unwrap();
        assert_eq!((event.process.comm.as_str(), event.process.uid), ("sh", 0));
        assert!(event.kubernetes.is_none());
        let What::File { file } = event.what else { panic!("{:?}", event.what) };
        assert_eq!((file.path.path.as_str(), file.syscall.as_str(), file.result), ("/etc/x", "chmod", 0));
    }

    #[test]
    fn a_container_is_in_a_pod() {
        let event = event(&json!({ "container": { "name": "web" }, "exec": {} })).unwrap();
        assert_eq!(event.container.unwrap().name, "web");
        assert_eq!(event.kubernetes.unwrap().namespace, "default");
    }

    #[test]
    fn ancestors_are_completed_one_by_one() {
        let event =
            event(&json!({ "process": { "ancestors": [{ "exe": "/a" }, { "exe": "/b", "pid": 7 }] }, "exec": {} })).unwrap();
        let ancestors: Vec<_> = event.process.ancestors.iter().map(|a| (a.exe.as_str(), a.pid)).collect();
        assert_eq!(ancestors, [("/a", 1), ("/b", 7)]);
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        for (partial, field) in [
            (json!({ "exec": {}, "procces": {} }), "procces"),
            (json!({ "file": { "pth": "/x" } }), "file.pth"),
            (json!({ "exec": {}, "process": { "ancestors": [{ "path": "/x" }] } }), "process.ancestors.[0].path"),
        ] {
            let EventError::Unknown(found) = event(&partial).unwrap_err() else { panic!("another error") };
            assert_eq!(found, field);
        }
    }

    #[test]
    fn a_value_of_another_type_is_an_error() {
        let error = event(&json!({ "file": { "op": "chmod", "mode": 644 } })).unwrap_err();
        assert!(error.to_string().contains("`file.mode`"), "{error}");
        assert!(matches!(event(&json!({})), Err(EventError::Kind(0))));
        assert!(matches!(event(&json!({ "exec": {}, "exit": {} })), Err(EventError::Kind(2))));
    }

    #[test]
    fn a_file_of_cases_names_its_policies_once() {
        let problems = CaseFile::read(&typed::node("cases: [{name: a, event: {exec: {}}}]")).unwrap_err();
        assert_eq!(problems.len(), 1);
        let problems =
            CaseFile::read(&typed::node("{pack: x, cases: [{name: a, event: {exec: {}}}, {name: b, event: {file: {opp: 1}}}]}"))
                .unwrap_err();
        assert_eq!(problems[0].field, "cases[1].event.file.opp");
    }

    macro_rules! shipped {
        ($($name:literal),*) => { [$(($name, include_str!(concat!("../cases/", $name, ".yaml")))),*] };
    }

    #[test]
    fn every_pack_has_cases_and_every_case_names_rules_that_there_are() {
        for (name, text) in shipped!(
            "cis-control-plane",
            "cis-node",
            "container-escape",
            "credentials",
            "execution",
            "persistence",
            "sensitive-api"
        ) {
            let file = CaseFile::read(&typed::node(text)).unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
            assert_eq!(file.pack.as_deref(), Some(name));
            let pack = packs::get(name).unwrap();
            for case in file.cases(&[], &[]) {
                let case = case.unwrap();
                for rule in &case.matches {
                    assert!(pack.text.contains(&format!("  - name: {rule}\n")), "{name}: {}: {rule}", case.name);
                }
            }
        }
    }
}
