//! What a tracer's `doctor` verb says. Fields are added there, so all of them are optional here.

use serde::{Deserialize, Serialize};

/// A node's answer.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Its name.
    pub node: String,
    /// What its tracer says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// What kept it from answering.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a node can do.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The tracer's version.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// The machine.
    pub arch: String,
    /// Whether the kernel describes its types.
    pub btf: bool,
    /// none, integrity, confidentiality or unknown.
    pub lockdown: String,
    /// Security modules.
    pub lsm: Vec<String>,
    /// Control groups.
    pub cgroup: Cgroup,
    /// containerd, cri-o, docker or none.
    pub runtime: String,
    /// What can be seen.
    pub events: Vec<Event>,
    /// What is wrong, each with its remedy.
    pub problems: Vec<String>,
    /// What a newer tracer says besides.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// Control groups.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroup {
    /// v1, v2 or hybrid.
    pub version: String,
    /// cgroupfs, systemd or unknown.
    pub driver: String,
}

/// A kind of event.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// exec, file, write, map-exec, exit or api.
    pub kind: String,
    /// precise, portable, or mixed where some calls are in one and some in the other.
    pub tier: String,
    /// Whether it can be seen at all.
    pub available: bool,
    /// What of it can't, and why.
    pub missing: Vec<String>,
    /// What of it is seen in the portable tier alone although there is a better one, and why.
    pub portable: Vec<String>,
}

impl Answer {
    /// Reads a tracer's report.
    pub fn new(node: String, report: anyhow::Result<String>) -> Self {
        let report = report.and_then(|text| Ok(serde_json::from_str(&text)?));
        match report {
            Ok(report) => Self { node, report: Some(report), error: None },
            Err(error) => Self { node, report: None, error: Some(format!("{error:#}")) },
        }
    }

    /// Whether anything can be traced there.
    pub fn is_able(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.events.iter().any(|event| event.available))
    }
}

impl Report {
    /// Whether events of this kind can be seen.
    pub fn sees(&self, kind: &str) -> bool {
        self.events.iter().any(|event| event.kind == kind && event.available)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_other_versions_are_read() {
        let text = r#"{"kernel":"6.1","events":[{"kind":"exec","available":true}],"novelty":1}"#;
        let answer = Answer::new("n".into(), Ok(text.into()));
        assert!(answer.is_able());
        assert_eq!(answer.report.unwrap().more["novelty"], 1);
        let answer = Answer::new("n".into(), Ok("garbage".into()));
        assert!(!answer.is_able() && answer.error.is_some());
    }
}
