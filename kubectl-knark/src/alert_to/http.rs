//! HTTP requests to receivers: credentials, time limits, and what an answer means.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use knark_specs::alert::receiver::Receiver;

use super::{delivery::Failure, tls};
use crate::exit::UsageError;

/// Of an answer, so much is read; of an error, less is shown.
const ANSWER: usize = 64 << 10;
const SHOWN: usize = 200;
/// A file with a secret is no larger.
const SECRET: u64 = 64 << 10;

/// Where requests go, and what they bear.
pub struct Post {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Files with secrets, by the header that they make.
    secrets: Vec<(HeaderName, &'static str, String)>,
    timeout: Duration,
}

impl Post {
    /// What the receiver says, for this URL, or for the one in a file (`@FILE`).
    ///
    /// # Errors
    /// It can't be meant, or one of its files can't be read.
    pub fn new(receiver: &Receiver, url: &str, timeout: Duration) -> anyhow::Result<Self> {
        let uri = match url.strip_prefix('@') {
            Some(file) => secret(file)?,
            None => url.to_owned(),
        };
        // What is wrong with it is told without it: it may be a secret.
        let uri: Uri = uri.parse().map_err(|error| UsageError::because(format!("the receiver's URL can't be read: {error}")))?;
        let scheme = uri.scheme_str().unwrap_or_default();
        if !matches!(scheme, "http" | "https") || uri.host().is_none_or(str::is_empty) {
            return Err(UsageError::because("a receiver's URL begins with https:// or http:// and a host"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(UsageError::because(
                "the URL must not hold a user's password: name a file by headerFile=Authorization:FILE",
            ));
        }
        let mut secrets = Vec::new();
        if let Some(file) = &receiver.token_file {
            secrets.push((header::AUTHORIZATION, "Bearer ", file.clone()));
        }
        for (name, file) in &receiver.header_files {
            secrets.push((header_name(name)?, "", file.clone()));
        }
        let local = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if scheme == "http" && !secrets.is_empty() && !local {
            return Err(UsageError::because("a token sent over http:// can be read on the way: use https://"));
        }
        let mut headers = Vec::new();
        for (name, value) in &receiver.headers {
            let header = header_name(name)?;
            if [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE].contains(&header) {
                let text =
                    format!("{name} is a secret, which the command line and its files must not show: use headerFile={name}:FILE");
                return Err(UsageError::because(text));
            }
            let value = HeaderValue::from_str(value);
            headers.push((
                header,
                value.map_err(|_| UsageError::because(format!("the header {name} has a value that can't be sent")))?,
            ));
        }
        // Files that aren't there are told of now.
        secrets.iter().try_for_each(|(.., file)| secret(file).map(drop))?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls::config(receiver)?).https_or_http().enable_http1().build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), uri, headers, secrets, timeout })
    }

    /// The receiver without what may be secret: `https://host:port`.
    pub fn origin(&self) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}", self.uri.scheme_str().unwrap_or_default())
    }

    /// Puts this behind the URL's path, unless that ends with it.
    ///
    /// # Errors
    /// That makes no URL.
    pub fn below(mut self, path: &str) -> anyhow::Result<Self> {
        let mut parts = self.uri.into_parts();
        let (before, query) = match &parts.path_and_query {
            Some(given) => (given.path().trim_end_matches('/'), given.query()),
            None => ("", None),
        };
        let before = before.strip_suffix(path).unwrap_or(before);
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        parts.path_and_query = Some(format!("{before}{path}{query}").parse().context("making the receiver's URL")?);
        self.uri = Uri::from_parts(parts).context("making the receiver's URL")?;
        Ok(self)
    }

    /// Sends a JSON body; the beginning of the answer.
    ///
    /// # Errors
    /// It was not taken.
    pub async fn send(&self, body: Vec<u8>) -> Result<Bytes, Failure> {
        let request = self.request(body).await?;
        let answered = async {
            let answer = self.client.request(request).await?;
            let (head, body) = answer.into_parts();
            let read = Limited::new(body, ANSWER).collect().await;
            anyhow::Ok((head, read.map(Collected::to_bytes).unwrap_or_default()))
        };
        let (head, body) = match tokio::time::timeout(self.timeout, answered).await {
            Ok(answered) => answered.context("sending alerts")?,
            Err(_) => return Err(anyhow!("sending alerts: no answer within {}", humantime::format_duration(self.timeout)).into()),
        };
        if head.status.is_success() {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body);
        let text = knark_specs::alert::subject::shorten(text.trim(), SHOWN);
        let why = match (head.status.is_redirection(), text.is_empty()) {
            (true, _) => anyhow!("it answered {}, and redirections are not followed: name where it leads", head.status),
            (_, true) => anyhow!("it answered {}", head.status),
            (_, false) => anyhow!("it answered {}: {text}", head.status),
        };
        // These say that it is the alert which is wrong; all else may be mended there while alerts wait here.
        let wrong = [
            StatusCode::BAD_REQUEST,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            StatusCode::UNPROCESSABLE_ENTITY,
        ];
        if wrong.contains(&head.status) {
            return Err(Failure::Never(why));
        }
        let after = head.headers.get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.trim().parse().ok());
        Err(Failure::Later { why, after: after.map(Duration::from_secs) })
    }

    async fn request(&self, body: Vec<u8>) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("kubectl-knark/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body.into()))
            .context("making the request")?;
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        for (name, before, file) in self.secrets.clone() {
            // Files may be slow, on a network for one.
            let named = file.clone();
            let text = tokio::task::spawn_blocking(move || secret(&named)).await.context("reading a secret")??;
            let value = HeaderValue::from_str(&format!("{before}{text}"));
            let mut value = value.map_err(|_| anyhow!("what {file} holds can't be sent as a header"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(request)
    }
}

fn header_name(name: &str) -> anyhow::Result<HeaderName> {
    name.parse().map_err(|_| UsageError::because(format!("{name:?} is no name of a header")))
}

/// What a file holds, without the line's end.
fn secret(file: &str) -> anyhow::Result<String> {
    use std::io::Read as _;
    let doing = || format!("reading the secret in {file}");
    let mut text = String::new();
    std::fs::File::open(file).with_context(doing)?.take(SECRET).read_to_string(&mut text).with_context(doing)?;
    let text = text.trim();
    anyhow::ensure!(!text.is_empty(), "{}: the file is empty", doing());
    Ok(text.to_owned())
}
