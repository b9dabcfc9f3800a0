//! What can go wrong between the plugin and the API server, each with its remedy.

use std::{error::Error as _, path::PathBuf};

use kube::{client::AuthError, config::KubeconfigError};

/// No client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is nothing to connect to.
    #[error("no kubeconfig was found: set KUBECONFIG, pass --kubeconfig FILE, or put one at ~/.kube/config")]
    NoKubeconfig,
    /// A file can't be used.
    #[error("the kubeconfig {} can't be used: {why}: mend the file, or name another by --kubeconfig", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No context is chosen.
    #[error(
        "the kubeconfig has no current context: choose one by `kubectl config use-context NAME` or --context (it has: {known})"
    )]
    NoContext {
        /// The names that exist.
        known: String,
    },
    /// A name that isn't in the kubeconfig.
    #[error("the kubeconfig has no {what} {name:?} (it has: {known})")]
    NoSuch {
        /// `context`, `cluster` or `user`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// What the kubeconfig refers to can't be used.
    #[error("the kubeconfig can't be used: {0}: mend it, or name another by --kubeconfig")]
    Kubeconfig(String),
    /// The kubeconfig's way to credentials failed.
    #[error("getting credentials for {server}{}: {}: log in again, or check the user's entry in the kubeconfig", by(command.as_deref()), auth(error))]
    Credentials {
        /// The API server.
        server: String,
        /// The program that gives them.
        command: Option<String>,
        /// Why.
        error: AuthError,
    },
    /// Keys, certificates or a proxy that the client refuses.
    #[error("preparing the connection to {server}: {}: check the certificates, keys and proxy in the kubeconfig", chain(error.as_ref()))]
    Client {
        /// The API server.
        server: String,
        /// Why.
        error: Box<kube::Error>,
    },
}

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody answers there.
    #[error(
        "{doing}: the API server {server} can't be reached: {why}: check that it runs and that --context, --server and the network are right"
    )]
    Unreachable {
        /// What was being done.
        doing: String,
        /// Where.
        server: String,
        /// Why.
        why: String,
    },
    /// No answer in time.
    #[error("{doing}: the API server {server} gave no answer in time: try again, or allow more by --request-timeout")]
    Timeout {
        /// What was being done.
        doing: String,
        /// Where.
        server: String,
    },
    /// Someone answers, yet not with the certificate expected.
    #[error(
        "{doing}: the certificate of the API server {server} is not accepted: {why}: check certificate-authority in the kubeconfig, or --certificate-authority and --tls-server-name"
    )]
    Tls {
        /// What was being done.
        doing: String,
        /// Where.
        server: String,
        /// Why.
        why: String,
    },
    /// The kubeconfig's way to credentials failed.
    #[error("{doing}: getting credentials for {server}: {why}: log in again, or check the user's entry in the kubeconfig")]
    Credentials {
        /// What was being done.
        doing: String,
        /// Where.
        server: String,
        /// Why.
        why: String,
    },
    /// The API server doesn't know this user.
    #[error(
        "{doing}: the API server {server} does not accept the credentials (Unauthorized): log in again, or check the user's entry in the kubeconfig"
    )]
    Unauthorized {
        /// What was being done.
        doing: String,
        /// Where.
        server: String,
    },
    /// This user lacks a right.
    #[error("{doing}: {message}: `kubectl knark doctor --rbac` prints the smallest Role that has this right")]
    Forbidden {
        /// What was being done.
        doing: String,
        /// The API server's words: user, verb, resource, namespace.
        message: String,
    },
    /// PodSecurity admission refuses the tracer.
    #[error(
        "{doing}: the namespace {namespace} does not allow the tracer pod: {message}: choose another by --tracer-namespace, or allow it by `kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged --overwrite`"
    )]
    PodSecurity {
        /// What was being done.
        doing: String,
        /// Where.
        namespace: String,
        /// The API server's words.
        message: String,
    },
    /// A quota is used up, or demands what the tracer doesn't set.
    #[error(
        "{doing}: {message}: raise the quota (`kubectl describe resourcequota -n {namespace}`), or choose another namespace by --tracer-namespace"
    )]
    Quota {
        /// What was being done.
        doing: String,
        /// Where.
        namespace: String,
        /// The API server's words.
        message: String,
    },
    /// Another admission plugin or webhook refuses.
    #[error("{doing}: the cluster's admission refuses: {message}")]
    Denied {
        /// What was being done.
        doing: String,
        /// The API server's words.
        message: String,
    },
    /// No such thing.
    #[error("{doing}: {message}")]
    NotFound {
        /// What was being done.
        doing: String,
        /// The API server's words.
        message: String,
    },
    /// Any other answer.
    #[error("{doing}: {message}")]
    Other {
        /// What was being done.
        doing: String,
        /// What went wrong.
        message: String,
    },
}

impl From<KubeconfigError> for ConnectError {
    fn from(error: KubeconfigError) -> Self {
        Self::Kubeconfig(chain(&error))
    }
}

impl ApiError {
    /// Sorts a failure.
    pub fn new(doing: String, server: &str, error: kube::Error) -> Self {
        let server = server.to_owned();
        match error {
            kube::Error::Api(status) => Self::of_status(doing, server, status.code, status.message),
            kube::Error::Auth(error) => Self::Credentials { doing, server, why: auth(&error) },
            kube::Error::UpgradeConnection(_) | kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
                Self::Other { doing, message: chain(&error) }
            }
            error => {
                let why = chain(&error);
                if has_source::<tower::timeout::error::Elapsed>(&error) {
                    Self::Timeout { doing, server }
                } else if let Some(error) = source::<AuthError>(&error) {
                    Self::Credentials { doing, server, why: auth(error) }
                } else if why.contains("certificate") {
                    Self::Tls { doing, server, why }
                } else {
                    Self::Unreachable { doing, server, why }
                }
            }
        }
    }

    fn of_status(doing: String, server: String, code: u16, message: String) -> Self {
        match code {
            401 => Self::Unauthorized { doing, server },
            403 if message.contains("violates PodSecurity") => {
                Self::PodSecurity { doing, namespace: String::new(), message: after(&message, "is forbidden: ") }
            }
            403 if message.contains("exceeded quota") || message.contains("failed quota") => {
                Self::Quota { doing, namespace: String::new(), message: after(&message, "is forbidden: ") }
            }
            403 if message.contains(" cannot ") => Self::Forbidden { doing, message },
            403 => Self::Denied { doing, message },
            404 => Self::NotFound { doing, message },
            400 | 422 if message.contains("denied the request") => Self::Denied { doing, message },
            _ => Self::Other { doing, message },
        }
    }

    /// Says in which namespace it happened, where the remedy needs it.
    #[must_use]
    pub fn in_namespace(mut self, name: &str) -> Self {
        if let Self::PodSecurity { namespace, .. } | Self::Quota { namespace, .. } = &mut self {
            name.clone_into(namespace);
        }
        self
    }

    /// Whether the right was missing.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden { .. })
    }

    /// Whether the thing doesn't exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. } | Self::Other { .. })
    }
}

fn by(command: Option<&str>) -> String {
    command.map(|command| format!(" by the program {command:?}")).unwrap_or_default()
}

fn auth(error: &AuthError) -> String {
    match error {
        // Its own text has the program's whole output, which may hold a token.
        AuthError::AuthExecRun { cmd, out } => {
            format!("{cmd:?} failed ({}): {}", out.status, String::from_utf8_lossy(&out.stderr).trim())
        }
        error => error.to_string(),
    }
}

fn after(message: &str, mark: &str) -> String {
    message.split_once(mark).map_or(message, |(_, rest)| rest).to_owned()
}

/// The messages of an error and of its causes, without those that repeat the next one.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut messages: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        next = error.source();
        // Wrappers print their cause themselves: only the innermost of a repeating row says something new.
        while messages.last().is_some_and(|last| last.contains(&message)) {
            messages.pop();
        }
        messages.push(message);
    }
    messages.join(": ")
}

fn source<T: std::error::Error + 'static>(error: &kube::Error) -> Option<&T> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn has_source<T: std::error::Error + 'static>(error: &kube::Error) -> bool {
    source::<T>(error).is_some()
}
