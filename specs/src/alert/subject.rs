//! What an alert is about, in a few words: the same ones in all formats that have a place for them.

use std::borrow::Cow;

use crate::event::{Event, What};

/// Who did it: of a request to the Kubernetes API its user's name, else the process's user id.
pub fn user(event: &Event) -> Cow<'_, str> {
    match &event.what {
        What::Api { api } => Cow::Borrowed(api.user.as_ref().map_or("", |user| &user.name)),
        _ => Cow::Owned(event.process.uid.to_string()),
    }
}

/// What it was done to: a file's path, the name that was executed, or a request's verb and path; empty for the end of a process.
pub fn object(event: &Event) -> Cow<'_, str> {
    match &event.what {
        What::Exec { exec } => Cow::Borrowed(&exec.filename),
        What::File { file } => Cow::Borrowed(&file.path.path),
        What::Exit { .. } => Cow::Borrowed(""),
        What::Api { api } => Cow::Owned(format!("{} {}", api.verb, api.path)),
    }
}

/// The namespace that it is about: the pod's, or that of the request.
pub fn namespace(event: &Event) -> &str {
    match (&event.what, &event.kubernetes) {
        (What::Api { api }, _) => &api.namespace,
        (_, Some(pod)) => &pod.namespace,
        (_, None) => "",
    }
}

/// The pod's name; empty outside of any. A request's pod is the API server's, which isn't what it is about.
pub fn pod(event: &Event) -> &str {
    match (&event.what, &event.kubernetes) {
        (What::Api { api }, _) if api.resource == "pods" => &api.name,
        (What::Api { .. }, _) | (_, None) => "",
        (_, Some(pod)) => &pod.pod,
    }
}

/// The container's id; the node's name outside of containers.
pub fn container_or_node(event: &Event) -> &str {
    event.container.as_ref().map_or(&event.node.name, |container| &container.id)
}

/// At most so many bytes of a text, and an ellipsis where there were more.
pub fn shorten(text: &str, bytes: usize) -> Cow<'_, str> {
    if text.len() <= bytes {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8()));
    Cow::Owned(format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_about_its_object_and_not_about_the_server() {
        let notice = crate::alert::tests::notice(&json!({
            "kubernetes": { "namespace": "kube-system", "pod": "kube-apiserver" },
            "api": { "verb": "create", "path": "/api/v1/namespaces/prod/pods/web/exec", "resource": "pods", "namespace": "prod",
                "name": "web", "user": { "name": "eve" } },
        }));
        let event = &notice.event;
        let got = [&*user(event), &*object(event), namespace(event), pod(event)];
        assert_eq!(got, ["eve", "create /api/v1/namespaces/prod/pods/web/exec", "prod", "web"]);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        for (text, bytes, want) in [("abc", 3, "abc"), ("abcd", 3, "…"), ("abcde", 4, "a…"), ("ääää", 6, "ä…"), ("ab", 0, "…")]
        {
            assert_eq!(shorten(text, bytes), want, "{text} {bytes}");
        }
    }
}
