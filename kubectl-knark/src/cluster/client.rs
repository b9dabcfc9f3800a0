//! The way to the API server: kubectl's connection flags, the kubeconfig, and the client that comes of them.

use std::time::Duration;

use clap_complete::ArgValueCompleter;
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    config::{
        AuthInfo, Cluster as ClusterEntry, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
    },
};
use tower::{timeout::TimeoutLayer, util::MapRequestLayer};

use super::{
    complete,
    error::{ApiError, ConnectError},
    kubeconfig,
    own::OwnRequests,
};

/// How long a connection may take to come about. Short, so that a cut one is taken up again while the tracer still waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the API server may take to begin its answer, if the user doesn't say.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// kubectl's own flags for reaching a cluster.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Connection (as in kubectl)")]
pub struct ConnectionFlags {
    /// Path of the kubeconfig to use
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<String>,
    /// Context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME", add = ArgValueCompleter::new(complete::contexts))]
    pub context: Option<String>,
    /// Cluster of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME", add = ArgValueCompleter::new(complete::clusters))]
    pub cluster: Option<String>,
    /// User of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME", add = ArgValueCompleter::new(complete::users))]
    pub user: Option<String>,
    /// Namespace of the targets; the context's if not given
    #[arg(short, long, global = true, value_name = "NAME", add = ArgValueCompleter::new(complete::namespaces))]
    pub namespace: Option<String>,
    /// User to impersonate
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,
    /// Group to impersonate (repeatable)
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub as_groups: Vec<String>,
    /// UID to impersonate
    #[arg(long, global = true, value_name = "UID")]
    pub as_uid: Option<String>,
    /// How long one request may take, such as 30s; streams and watches aren't cut. 0 sets no limit
    #[arg(long, global = true, value_name = "DURATION", value_parser = request_timeout)]
    pub request_timeout: Option<Duration>,
    /// Address and port of the API server
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Bearer token for the API server
    #[arg(long, global = true, value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File with the certificates that the API server's must be signed by
    #[arg(long, global = true, value_name = "FILE")]
    pub certificate_authority: Option<String>,
    /// Don't check the API server's certificate: insecure
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// Name to expect in the API server's certificate instead of its address
    #[arg(long, global = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// File with the client certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub client_certificate: Option<String>,
    /// File with the client certificate's key
    #[arg(long, global = true, value_name = "FILE")]
    pub client_key: Option<String>,
    /// What was asked of any cluster by these flags.
    #[arg(skip)]
    pub own: OwnRequests,
}

/// A cluster that can be spoken to.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// The API server's address, for messages.
    pub server: String,
    /// The namespace that the user is in.
    pub namespace: String,
}

impl Cluster {
    /// Says what a failed request means. `doing` completes the sentence "… failed", such as `listing pods`.
    pub fn explain(&self, doing: impl Into<String>, error: kube::Error) -> ApiError {
        ApiError::new(doing.into(), &self.server, error)
    }
}

impl ConnectionFlags {
    /// Makes the client. Nothing is sent yet.
    pub async fn connect(&self) -> Result<Cluster, ConnectError> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(self.limit().map_or(CONNECT_TIMEOUT, |limit| limit.min(CONNECT_TIMEOUT)));
        // A retry that kube makes by itself only delays the message; what needs repeating is repeated here.
        config.default_retry = false;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        if let Some(namespace) = &self.namespace {
            config.default_namespace.clone_from(namespace);
        }
        let namespace = config.default_namespace.clone();
        let command = config.auth_info.exec.as_ref().and_then(|exec| exec.command.clone());
        let failed = |error: kube::Error| match error {
            kube::Error::Auth(error) => ConnectError::Credentials { server: server.clone(), command, error },
            error => ConnectError::Client { server: server.clone(), error: Box::new(error) },
        };
        let own = self.own.clone();
        let marked = MapRequestLayer::new(move |request: http::Request<Body>| own.mark(request));
        let builder = ClientBuilder::try_from(config).map_err(failed)?.with_layer(&marked);
        // Only until the answer begins: what an exec stream or a watch carries afterwards has no limit.
        let client = match self.limit() {
            Some(limit) => builder.with_layer(&TimeoutLayer::new(limit)).build(),
            None => builder.build(),
        };
        Ok(Cluster { client, server, namespace })
    }

    fn limit(&self) -> Option<Duration> {
        match self.request_timeout {
            Some(Duration::ZERO) => None,
            limit => Some(limit.unwrap_or(REQUEST_TIMEOUT)),
        }
    }

    async fn config(&self) -> Result<Config, ConnectError> {
        let mut kubeconfig = kubeconfig::load(self.kubeconfig.as_deref())?;
        if kubeconfig.contexts.is_empty() && kubeconfig.clusters.is_empty() && self.server.is_none() && self.context.is_none() {
            kubeconfig = kubeconfig::of_service_account().ok_or(ConnectError::NoKubeconfig)?;
        }
        let only = self.overlay(&kubeconfig)?;
        let proxied = only.clusters.iter().any(|c| c.cluster.as_ref().is_some_and(|c| c.proxy_url.is_some()));
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(only, &options).await?;
        if !proxied && kubeconfig::is_exempt_from_proxy(config.cluster_url.host().unwrap_or_default()) {
            config.proxy_url = None;
        }
        Ok(config)
    }

    fn impersonate(&self, user: &mut AuthInfo) {
        if let Some(name) = &self.as_user {
            user.impersonate = Some(name.clone());
        }
        if let Some(uid) = &self.as_uid {
            user.impersonate_uid = Some(uid.clone());
        }
        if !self.as_groups.is_empty() {
            user.impersonate_groups = Some(self.as_groups.clone());
        }
    }

    /// A kubeconfig with a single context: the chosen one with what the flags override.
    fn overlay(&self, kubeconfig: &Kubeconfig) -> Result<Kubeconfig, ConnectError> {
        let context = self.chosen_context(kubeconfig)?;
        let cluster_name = self.cluster.clone().unwrap_or(context.cluster);
        let mut cluster = kubeconfig.clusters.iter().find(|c| c.name == cluster_name).and_then(|c| c.cluster.clone());
        if cluster.is_none() && self.server.is_none() {
            return Err(ConnectError::NoSuch {
                what: "cluster",
                name: cluster_name,
                known: names(&kubeconfig.clusters, |c| &c.name),
            });
        }
        self.override_cluster(cluster.get_or_insert_default());

        let user_name = self.user.clone().or(context.user);
        let user = kubeconfig.auth_infos.iter().find(|u| Some(&u.name) == user_name.as_ref()).and_then(|u| u.auth_info.clone());
        if let (None, Some(name)) = (&user, &self.user) {
            let known = names(&kubeconfig.auth_infos, |u| &u.name);
            return Err(ConnectError::NoSuch { what: "user", name: name.clone(), known });
        }
        let mut user = user.unwrap_or_default();
        self.override_user(&mut user)?;

        let name = "chosen".to_owned();
        let context = Context { cluster: name.clone(), user: Some(name.clone()), ..context_namespace(context.namespace) };
        Ok(Kubeconfig {
            current_context: Some(name.clone()),
            contexts: vec![NamedContext { name: name.clone(), context: Some(context), ..NamedContext::default() }],
            clusters: vec![NamedCluster { name: name.clone(), cluster, ..NamedCluster::default() }],
            auth_infos: vec![NamedAuthInfo { name, auth_info: Some(user), ..NamedAuthInfo::default() }],
            ..Kubeconfig::default()
        })
    }

    fn chosen_context(&self, kubeconfig: &Kubeconfig) -> Result<Context, ConnectError> {
        let name = self.context.clone().or_else(|| kubeconfig.current_context.clone().filter(|name| !name.is_empty()));
        let Some(name) = name else {
            // As in kubectl, flags alone can name a server.
            let enough = self.server.is_some() || self.cluster.is_some();
            let known = names(&kubeconfig.contexts, |c| &c.name);
            return if enough { Ok(Context::default()) } else { Err(ConnectError::NoContext { known }) };
        };
        kubeconfig.contexts.iter().find(|c| c.name == name).and_then(|c| c.context.clone()).ok_or_else(|| ConnectError::NoSuch {
            what: "context",
            name,
            known: names(&kubeconfig.contexts, |c| &c.name),
        })
    }

    fn override_cluster(&self, cluster: &mut ClusterEntry) {
        if let Some(server) = &self.server {
            cluster.server = Some(server.clone());
        }
        if let Some(file) = &self.certificate_authority {
            cluster.certificate_authority = Some(file.clone());
            cluster.certificate_authority_data = None;
        }
        if self.insecure_skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
        if let Some(name) = &self.tls_server_name {
            cluster.tls_server_name = Some(name.clone());
        }
    }

    fn override_user(&self, user: &mut AuthInfo) -> Result<(), ConnectError> {
        if let Some(token) = &self.token {
            // The token's type is of a crate that kube doesn't show; its serde form is open.
            let given: AuthInfo = serde_json::from_value(serde_json::json!({ "token": token }))
                .map_err(|error| ConnectError::Kubeconfig(error.to_string()))?;
            *user = AuthInfo {
                token: given.token,
                token_file: None,
                exec: None,
                auth_provider: None,
                username: None,
                password: None,
                ..std::mem::take(user)
            };
        }
        if let Some(file) = &self.client_certificate {
            user.client_certificate = Some(file.clone());
            user.client_certificate_data = None;
        }
        if let Some(file) = &self.client_key {
            user.client_key = Some(file.clone());
            user.client_key_data = None;
        }
        self.impersonate(user);
        Ok(())
    }
}

fn context_namespace(namespace: Option<String>) -> Context {
    Context { namespace, ..Context::default() }
}

fn names<T>(entries: &[T], name: impl Fn(&T) -> &String) -> String {
    let names: Vec<_> = entries.iter().map(|entry| name(entry).as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// kubectl takes `0`, `30` (seconds) and Go's durations.
fn request_timeout(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; a duration is a number and a unit, such as 30s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"{"apiVersion":"v1","kind":"Config","current-context":"one",
        "contexts":[{"name":"one","context":{"cluster":"c1","user":"u1","namespace":"prod"}},
                    {"name":"two","context":{"cluster":"c2","user":"u1"}}],
        "clusters":[{"name":"c1","cluster":{"server":"https://one:6443"}},{"name":"c2","cluster":{"server":"https://two:6443"}}],
        "users":[{"name":"u1","user":{"token":"t"}}]}"#;

    fn flags(set: impl FnOnce(&mut ConnectionFlags)) -> (ConnectionFlags, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TWO).unwrap();
        let mut flags = ConnectionFlags { kubeconfig: file.path().to_str().map(str::to_owned), ..Default::default() };
        set(&mut flags);
        (flags, file)
    }

    #[tokio::test]
    async fn the_current_context_is_used() {
        let (flags, _file) = flags(|_| {});
        let config = flags.config().await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://one:6443/");
        assert_eq!(config.default_namespace, "prod");
    }

    #[tokio::test]
    async fn flags_override_the_context() {
        let (flags, _file) = flags(|f| {
            f.context = Some("two".into());
            f.as_user = Some("jane".into());
            f.as_groups = vec!["ops".into()];
            f.server = Some("https://three".into());
            f.token = Some("other".into());
        });
        let config = flags.config().await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("three"));
        assert_eq!(config.default_namespace, "default");
        assert_eq!(config.auth_info.impersonate.as_deref(), Some("jane"));
        assert_eq!(config.auth_info.impersonate_groups.as_deref(), Some(&["ops".to_owned()][..]));
    }

    #[tokio::test]
    async fn what_does_not_exist_is_named() {
        let (flags, _file) = flags(|f| f.context = Some("nope".into()));
        let error = flags.config().await.unwrap_err().to_string();
        assert!(error.contains("nope") && error.contains("one, two"), "{error}");
    }

    #[test]
    fn timeouts_are_kubectls() {
        assert_eq!(request_timeout("0"), Ok(Duration::ZERO));
        assert_eq!(request_timeout("5"), Ok(Duration::from_secs(5)));
        assert_eq!(request_timeout("1m30s"), Ok(Duration::from_secs(90)));
        assert!(request_timeout("soon").is_err());
    }
}
