//! Secrets in what is asked for: they are taken out where requests are first seen, so no output and no recording has them.

use std::borrow::Cow;

/// What stands in place of a secret.
pub const GONE: &str = "redacted";
/// A parameter whose name contains one of these holds a secret.
const NAMES: [&str; 8] = ["token", "password", "passwd", "secret", "apikey", "api_key", "credential", "signature"];

/// The path and query without secrets: values of parameters that are called as secrets are, and of all parameters of what is
/// passed on to pods, services and nodes, whose meaning is theirs alone.
pub fn uri(uri: &[u8]) -> Cow<'_, [u8]> {
    let Some(at) = uri.iter().position(|byte| *byte == b'?') else { return Cow::Borrowed(uri) };
    let (path, query) = (&uri[..at], &uri[at + 1..]);
    let proxied = path.split(|byte| *byte == b'/').any(|part| part == b"proxy");
    let mut out = Vec::with_capacity(uri.len());
    out.extend_from_slice(path);
    let mut changed = false;
    for (number, parameter) in query.split(|byte| *byte == b'&').enumerate() {
        out.push(if number == 0 { b'?' } else { b'&' });
        let equals = parameter.iter().position(|byte| *byte == b'=');
        let (name, value) = parameter.split_at(equals.map_or(parameter.len(), |equals| equals + 1));
        out.extend_from_slice(name);
        if !value.is_empty() && (proxied || is_secret(name)) {
            out.extend_from_slice(GONE.as_bytes());
            changed = true;
        } else {
            out.extend_from_slice(value);
        }
    }
    if changed { Cow::Owned(out) } else { Cow::Borrowed(uri) }
}

fn is_secret(name: &[u8]) -> bool {
    let name: String =
        form_urlencoded::parse(name.strip_suffix(b"=").unwrap_or(name)).map(|(name, _)| name.to_lowercase()).collect();
    NAMES.iter().any(|secret| name.contains(secret))
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn secrets_are_taken_out() {
        for (given, want) in [
            ("/api/v1/pods", "/api/v1/pods"),
            ("/api/v1/pods?limit=500&watch", "/api/v1/pods?limit=500&watch"),
            ("/api/v1/pods/x/exec?command=sh&command=-c&container=a", "/api/v1/pods/x/exec?command=sh&command=-c&container=a"),
            ("/x?access_token=a.b.c&x=1", "/x?access_token=redacted&x=1"),
            ("/x?to%6ben=abc", "/x?to%6ben=redacted"),
            ("/x?Password=a%26b&b=", "/x?Password=redacted&b="),
            (
                "/api/v1/namespaces/a/services/b/proxy/login?user=a&code=7&&c",
                "/api/v1/namespaces/a/services/b/proxy/login?user=redacted&code=redacted&&c",
            ),
            ("?", "?"),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8_lossy(&uri(given.as_bytes())), want);
        }
    }

    #[test]
    fn what_was_redacted_stays_so() {
        let once = uri(b"/x?token=a&token=b&c=d").into_owned();
        assert_eq!(uri(&once), once);
    }
}
