//! What is shown, as a file of JSON lines.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::Context as _;

use super::history::Entry;
use crate::render::{Render as _, json::Json};

/// Writes the events to a new file, for its owner's eyes only, and says how many. One that exists is never touched.
pub fn save<'e>(path: &Path, events: impl Iterator<Item = &'e Entry>) -> anyhow::Result<usize> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|error| {
        let exists = error.kind() == std::io::ErrorKind::AlreadyExists;
        let remedy = if exists { "; choose another name" } else { "" };
        anyhow::anyhow!("making {}: {error}{remedy}", path.display())
    })?;
    let written = write(BufWriter::new(file), events);
    if written.is_err() {
        // Half of it would look like all of it.
        let _ = std::fs::remove_file(path);
    }
    written.with_context(|| format!("writing {}", path.display()))
}

fn write<'e>(mut file: BufWriter<File>, events: impl Iterator<Item = &'e Entry>) -> std::io::Result<usize> {
    let (mut json, mut line, mut count) = (Json::default(), Vec::new(), 0);
    for entry in events {
        line.clear();
        json.event(&entry.event, &entry.matches, &mut line)?;
        file.write_all(&line)?;
        count += 1;
    }
    file.flush()?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tui::tests::entry;

    #[test]
    fn files_are_new_and_hold_what_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shown.jsonl");
        let events = [entry(0, json!({"exec": {}})), entry(1, json!({"exit": {}}))];
        assert_eq!(save(&path, events.iter()).unwrap(), 2);
        let read: Vec<serde_json::Value> =
            std::fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&read[0]["type"], &read[1]["type"]), (&json!("exec"), &json!("exit")));

        let error = save(&path, events.iter()).unwrap_err().to_string();
        assert!(error.contains("exists") && error.contains("choose another name"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
