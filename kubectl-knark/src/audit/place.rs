//! Where audit logs are, as `--audit-log` names them.

use std::{ffi::OsString, path::PathBuf};

use knark_specs::audit::series;

use crate::cluster::LogPlace;

/// What a log on a node begins with.
const NODE: &str = "node:";

/// Where a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Here: a file, a folder, or `-`.
    Here(PathBuf),
    /// On nodes.
    OnNodes(LogPlace),
}

impl Place {
    /// Whether it is standard input.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Here(path) if path.as_os_str() == "-")
    }
}

/// Reads a flag's value.
pub fn parse(value: OsString) -> Result<Place, String> {
    if !value.as_encoded_bytes().starts_with(NODE.as_bytes()) {
        return Ok(Place::Here(value.into()));
    }
    let value = value.into_string().map_err(|_| "a path on a node must be UTF-8".to_owned())?;
    on_nodes(&value[NODE.len()..]).map(Place::OnNodes)
}

/// A path by Linux's rules, whatever this machine's are. What has a log's name is a file, whose folder has the rotated ones; all else
/// is a folder.
fn on_nodes(path: &str) -> Result<LogPlace, String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?}: a path on a node begins with /, as in node:/var/log/kubernetes/audit.log"));
    }
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    if names.contains(&"..") || path.contains('\0') {
        return Err(format!("{path:?}: a path on a node has no .. in it"));
    }
    let (folder, name) = match names.split_last() {
        Some((last, folder)) if !path.ends_with('/') && series([*last]).len() == 1 => (folder, *last),
        _ => (&names[..], ""),
    };
    if folder.is_empty() {
        return Err(format!("{path:?}: the root folder of a node is not mounted into a pod: name a folder in it"));
    }
    Ok(LogPlace { folder: format!("/{}", folder.join("/")), name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_from_folders_by_their_names() {
        for (path, folder, name) in [
            ("/var/log/kubernetes/audit.log", "/var/log/kubernetes", "audit.log"),
            ("//var/./log//audit-2026-01-02T03-04-05.678.log.gz", "/var/log", "audit-2026-01-02T03-04-05.678.log.gz"),
            ("/var/log/kubernetes", "/var/log/kubernetes", ""),
            ("/var/log/audit.log/", "/var/log/audit.log", ""),
        ] {
            assert_eq!(on_nodes(path), Ok(LogPlace { folder: folder.into(), name: name.into() }), "{path}");
        }
        assert_eq!(parse("node.log".into()), Ok(Place::Here("node.log".into())));
        assert_eq!(parse("./node:/x".into()), Ok(Place::Here("./node:/x".into())));
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for path in ["", "audit.log", "/", "/audit.log", "/var/../etc", "/var/log/..", "/a\0/b", "knark-0:/var/log"] {
            assert!(on_nodes(path).is_err(), "{path:?}");
        }
    }
}
