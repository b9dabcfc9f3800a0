//! Whether bodies in protobuf are shown as the API server's own JSON: on standard input, lines of API version, kind, the body in
//! base64, and the JSON. `tests/api-fields.sh` makes them of every kind.

use std::io::{BufRead as _, stdin};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use knark_specs::body;
use serde_json::Value;

fn main() -> anyhow::Result<()> {
    let (mut right, mut wrong, mut longest) = (0, 0, 0.0_f64);
    for line in stdin().lock().lines() {
        let line = line.context("reading standard input")?;
        let [version, kind, protobuf, json] = line.splitn(4, ' ').collect::<Vec<_>>()[..] else {
            anyhow::bail!("{line}: no API version, kind, body and JSON");
        };
        let bytes = STANDARD.decode(protobuf).with_context(|| format!("{version} {kind}: the body is not in base64"))?;
        let want: Value = serde_json::from_str(json).with_context(|| format!("{version} {kind}: no JSON"))?;
        let body = body::read(&bytes, None);
        if body.json.as_ref() == Some(&want) && body.truncated_from.is_none() {
            right += 1;
        } else {
            wrong += 1;
            if wrong <= 5 {
                let shown = body.json.unwrap_or_default();
                eprintln!("{version} {kind}, {} bytes, {:?}:", bytes.len(), body.truncated_from);
                differences("", &shown, &want);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "it is to be shown")]
        if bytes.len() > 1000 {
            longest = longest.max(json.len() as f64 / bytes.len() as f64);
        }
    }
    eprintln!("{right} bodies are shown right, {wrong} wrong; JSON is up to {longest:.1} times as long as protobuf");
    ensure!(right > 0 && wrong == 0, "not all bodies are shown as the API server shows them");
    Ok(())
}

fn differences(path: &str, shown: &Value, want: &Value) {
    match (shown, want) {
        (Value::Object(shown), Value::Object(want)) => {
            for name in shown.keys().chain(want.keys().filter(|name| !shown.contains_key(*name))) {
                let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or("(absent)".into());
                differences(&format!("{path}.{name}"), &of(shown), &of(want));
            }
        }
        (Value::Array(shown), Value::Array(want)) if shown.len() == want.len() => {
            for (at, (shown, want)) in shown.iter().zip(want).enumerate() {
                differences(&format!("{path}[{at}]"), shown, want);
            }
        }
        _ if shown != want => eprintln!("  {path}: {shown} instead of {want}"),
        _ => {}
    }
}
