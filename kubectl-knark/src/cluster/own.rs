//! Requests that this process makes: what a trace sees of them is no news.
//!
//! Names of pods or users would not do to know them by: anybody may choose those, and who breaks into a tracer's pod must be seen.
//! So each bears an id of its own, which nobody can guess, as `Audit-ID`; the API server takes it over and tells it in what it does.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderValue, Request};
use knark_specs::event::Api;

/// Takes a request's id to the API server.
const HEADER: &str = "audit-id";
/// Requests that are remembered; beyond, the oldest is forgotten, and shows as anybody's.
const MOST: usize = 4_096;
/// A request that is traced is seen so soon, on a slow node and in its turn among the events of others.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// The requests made so far. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct OwnRequests(Arc<Mutex<Made>>);

#[derive(Debug, Default)]
struct Made {
    by_id: HashMap<String, Asked>,
    /// The ids, the oldest first.
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Asked {
    when: Instant,
    /// Of HTTP.
    method: String,
    /// Path and query.
    uri: String,
    /// What tells the events of this request from others', once one was seen.
    request_id: Option<String>,
}

impl OwnRequests {
    /// Gives a request its id. Where the system has no random bytes, it gets none.
    pub fn mark<B>(&self, mut request: Request<B>) -> Request<B> {
        let mut random = [0; 16];
        if getrandom::fill(&mut random).is_err() {
            return request;
        }
        let id = format!("{:032x}", u128::from_ne_bytes(random));
        if let (Some(uri), Ok(value)) = (request.uri().path_and_query(), HeaderValue::try_from(&id)) {
            let uri = uri.as_str().to_owned();
            request.headers_mut().insert(HEADER, value);
            let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let method = request.method().as_str().to_owned();
            made.by_id.insert(id.clone(), Asked { when: Instant::now(), method, uri, request_id: None });
            made.order.push_back(id);
            if made.order.len() > MOST
                && let Some(oldest) = made.order.pop_front()
            {
                made.by_id.remove(&oldest);
            }
        }
        request
    }

    /// Whether an event is of one of these. Who read an id in an audit log may use it too, but neither for something else nor for what
    /// comes later: an id is good for one request, which is seen soon.
    pub fn include(&self, api: &Api) -> bool {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(asked) = api.audit_id.as_ref().and_then(|id| made.by_id.get_mut(id)) else { return false };
        let uri = if api.query.is_empty() { api.path.clone() } else { format!("{}?{}", api.path, api.query) };
        // Method and path are of every request that is traced; a log need not tell the method.
        let same = asked.uri == uri && api.method.as_ref().is_none_or(|method| *method == asked.method);
        let in_time = asked.request_id.is_some() || asked.when.elapsed() < SEEN_WITHIN;
        same && in_time && *asked.request_id.get_or_insert_with(|| api.request_id.clone()) == api.request_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the API server tells of a request.
    fn told(request: &Request<()>, request_id: &str) -> Api {
        Api {
            request_id: request_id.to_owned(),
            method: Some(request.method().as_str().to_owned()),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            audit_id: request.headers().get("audit-id").map(|id| id.to_str().unwrap().to_owned()),
            ..Api::default()
        }
    }

    fn asking(own: &OwnRequests, uri: &str) -> Request<()> {
        own.mark(Request::get(uri).body(()).unwrap())
    }

    #[test]
    fn only_what_was_asked_for_here_is_known() {
        let own = OwnRequests::default();
        let uri = "/api/v1/namespaces/kube-system/pods/knark-1/exec?command=knark-tracer&stdin=true";
        let exec = asking(&own, uri);
        // Another's of the same shape, and another's that took our id for something else.
        assert!(!own.include(&told(&Request::get(uri).body(()).unwrap(), "1")));
        assert!(!own.include(&Api { query: "command=sh".into(), ..told(&exec, "1") }));
        assert!(!own.include(&Api { method: Some("DELETE".into()), ..told(&exec, "1") }));
        // Its beginning and its end; and another's by the id that it was seen with.
        assert!(own.include(&told(&exec, "2")) && own.clone().include(&told(&exec, "2")));
        assert!(!own.include(&told(&exec, "3")));
        let list = asking(&own, "/api/v1/pods");
        assert!(own.include(&told(&list, "4")));
        // Of one that another API server answered, the id may be used much later by somebody else.
        let elsewhere = asking(&own, "/apis/batch/v1/namespaces/kube-system/jobs");
        let id = elsewhere.headers()["audit-id"].to_str().unwrap();
        own.0.lock().unwrap().by_id.get_mut(id).unwrap().when -= SEEN_WITHIN;
        assert!(!own.include(&told(&elsewhere, "5")));
        assert_ne!(exec.headers()["audit-id"], list.headers()["audit-id"]);
    }

    #[test]
    fn memory_is_bounded() {
        let own = OwnRequests::default();
        let first = asking(&own, "/first");
        let others: Vec<_> = (0..MOST).map(|_| asking(&own, "/other")).collect();
        assert_eq!(own.0.lock().unwrap().by_id.len(), MOST);
        assert!(!own.include(&told(&first, "1")) && own.include(&told(others.last().unwrap(), "2")));
    }
}
