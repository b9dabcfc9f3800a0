//! Requests to an API server over kept connections, of many kinds and as fast as they are answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use http::{Method, Request, header};
use kube::{Client, Config};

/// The namespace of a load's objects.
pub const NAMESPACE: &str = "load";
/// Watches that are under way all the time.
const WATCHES: usize = 4;
/// Objects that are there for large lists, and the size of each, in bytes.
const LISTED: usize = 300;
const LISTED_BYTES: usize = 4 << 10;

/// A connection of its own, that is kept.
pub fn connect(url: &str) -> Result<Client> {
    let mut config = Config::new(url.parse().context("reading the API server's address")?);
    config.accept_invalid_certs = true;
    Ok(Client::try_from(config)?)
}

/// A request by the user with this token.
pub fn request(user: &str, method: Method, uri: &str, body: String) -> Result<Request<Vec<u8>>> {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let builder = Request::builder().method(method).uri(uri).header(header::AUTHORIZATION, format!("Bearer {user}-token"));
    Ok(builder.header(header::CONTENT_TYPE, kind).body(body.into_bytes())?)
}

/// A small configmap.
pub fn small(name: &str) -> String {
    config_map(name, 16)
}

/// Makes this request as admin, which must be granted.
pub async fn ask(client: &Client, method: Method, uri: &str, body: String) -> Result<String> {
    let what = format!("{method} {uri}");
    client.request_text(request("admin", method, uri, body)?).await.with_context(|| format!("asking for {what}"))
}

/// Makes what the mixed load and the small GETs ask for.
pub async fn prepare(client: &Client) -> Result<()> {
    let namespace = serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    ask(client, Method::POST, "/api/v1/namespaces", namespace.to_string()).await?;
    ask(client, Method::POST, &maps(""), small("small")).await?;
    for number in 0..LISTED {
        ask(client, Method::POST, &maps(""), config_map(&format!("listed-{number}"), LISTED_BYTES)).await?;
    }
    Ok(())
}

/// How long each of so many GETs of a small object took, one after the other on one connection.
pub async fn small_gets(client: &Client, count: usize) -> Result<Vec<Duration>> {
    timed(client, count, Method::GET, &maps("/small"), "").await
}

/// How long each of so many dry runs took that would make an object of 4 KiB: all of such a request but for its storing.
pub async fn dry_creates(client: &Client, count: usize) -> Result<Vec<Duration>> {
    timed(client, count, Method::POST, &maps("?dryRun=All"), &config_map("dry", LISTED_BYTES)).await
}

async fn timed(client: &Client, count: usize, method: Method, uri: &str, body: &str) -> Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        ask(client, method.clone(), uri, body.to_owned()).await?;
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// Makes so many requests of verbs, users and sizes of all kinds, over so many connections, while watches begin and end. How many there
/// were, watches included.
pub async fn mixed(url: &str, count: u64, connections: u64) -> Result<u64> {
    let (next, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (client, next) = (connect(url)?, Arc::clone(&next));
        tasks.push(tokio::spawn(async move {
            let mut made = 0;
            loop {
                let number = next.fetch_add(3, Ordering::Relaxed);
                if number >= count {
                    return Ok::<u64, anyhow::Error>(made);
                }
                for of_three in 0..3 {
                    answered(&client, kind(number, of_three)?).await?;
                    made += 1;
                }
            }
        }));
    }
    let watches: Vec<_> = (0..WATCHES)
        .map(|_| {
            let (client, over) = (connect(url), Arc::clone(&over));
            tokio::spawn(async move {
                let (client, mut made) = (client?, 0);
                while !over.load(Ordering::Relaxed) {
                    answered(&client, request("admin", Method::GET, &maps("?watch=true&timeoutSeconds=2"), String::new())?)
                        .await?;
                    made += 1;
                }
                Ok::<u64, anyhow::Error>(made)
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += task.await??;
    }
    over.store(true, Ordering::Relaxed);
    for watch in watches {
        made += watch.await??;
    }
    Ok(made)
}

/// The three requests of a number belong together: an object is made, changed and deleted.
fn kind(number: u64, of_three: u64) -> Result<Request<Vec<u8>>> {
    let get = |user, uri: &str| request(user, Method::GET, uri, String::new());
    let own = format!("own-{number}");
    let turn = number / 30;
    match (number / 3 % 10, of_three) {
        (0 | 1, 0) => {
            let bytes = match turn % 20 {
                0 => 500 << 10,
                1..5 => 64 << 10,
                _ => 1 << 10,
            };
            request("admin", Method::POST, &maps(""), config_map(&own, bytes))
        }
        (0 | 1, 1) => request("admin", Method::PATCH, &maps(&format!("/{own}")), r#"{"data":{"more":"x"}}"#.into()),
        (0 | 1, _) => request("admin", Method::DELETE, &maps(&format!("/{own}")), String::new()),
        (2, 0) => get("alice", &maps("/small")),
        (2, 1) => get("nobody", &maps("/small")),
        (2, _) => {
            let mut request = get("admin", &maps("/small"))?;
            request.headers_mut().insert("Impersonate-User", "bob".parse()?);
            Ok(request)
        }
        (3, 0) => get("admin", "/nothing/there"),
        (3, 1) => get("bob", "/livez"),
        (3, _) if turn.is_multiple_of(10) => get("admin", &maps("")),
        (3, _) => get("admin", &maps("?limit=10")),
        _ => get("admin", &maps("/small")),
    }
}

/// Whatever the answer is, there must be one.
async fn answered(client: &Client, request: Request<Vec<u8>>) -> Result<()> {
    let what = format!("{} {}", request.method(), request.uri());
    match client.request_text(request).await {
        Ok(_) | Err(kube::Error::Api(_)) => Ok(()),
        Err(e) => bail!("{what}: {e:?}"),
    }
}

/// A path below the load's configmaps.
fn maps(rest: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps{rest}")
}

fn config_map(name: &str, bytes: usize) -> String {
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "text": "x".repeat(bytes) }
    });
    object.to_string()
}
