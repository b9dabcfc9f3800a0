//! Reading kubeconfig files as kubectl does.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use kube::config::{AuthInfo, Cluster, Context, Kubeconfig, KubeconfigError, NamedAuthInfo, NamedCluster, NamedContext};

use super::error::ConnectError;

/// Loads what `--kubeconfig`, else `KUBECONFIG`, else the home folder gives; empty where there is no file.
///
/// Of several files in `KUBECONFIG` those that don't exist are passed over, as kubectl does.
pub fn load(flag: Option<&str>) -> Result<Kubeconfig, ConnectError> {
    if let Some(path) = flag {
        return read(Path::new(path));
    }
    let paths: Vec<PathBuf> = match std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
        Some(value) => std::env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => std::env::home_dir().map(|home| home.join(".kube").join("config")).into_iter().collect(),
    };
    paths
        .iter()
        .filter(|path| path.exists())
        .try_fold(Kubeconfig::default(), |merged, path| merged.merge(read(path)?).map_err(|error| broken(path, &error)))
}

/// In a pod without a kubeconfig: what its service account gives, so that flags override it like anything else.
///
/// Where it lies is part of Kubernetes' interface, see "Accessing the Kubernetes API from a Pod" in its documentation.
pub fn of_service_account() -> Option<Kubeconfig> {
    let [host, port] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"].map(|name| std::env::var(name).ok());
    Some(service_account(&host?, &port?, Path::new("/var/run/secrets/kubernetes.io/serviceaccount")))
}

fn service_account(host: &str, port: &str, folder: &Path) -> Kubeconfig {
    let name = "service-account".to_owned();
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let file = |name| folder.join(name).to_str().map(str::to_owned);
    let cluster =
        Cluster { server: Some(format!("https://{host}:{port}")), certificate_authority: file("ca.crt"), ..Cluster::default() };
    let user = AuthInfo { token_file: file("token"), ..AuthInfo::default() };
    let namespace = std::fs::read_to_string(folder.join("namespace")).ok().map(|text| text.trim().to_owned());
    let context = Context { cluster: name.clone(), user: Some(name.clone()), namespace, ..Context::default() };
    Kubeconfig {
        current_context: Some(name.clone()),
        contexts: vec![NamedContext { name: name.clone(), context: Some(context), ..NamedContext::default() }],
        clusters: vec![NamedCluster { name: name.clone(), cluster: Some(cluster), ..NamedCluster::default() }],
        auth_infos: vec![NamedAuthInfo { name, auth_info: Some(user), ..NamedAuthInfo::default() }],
        ..Kubeconfig::default()
    }
}

fn read(path: &Path) -> Result<Kubeconfig, ConnectError> {
    Kubeconfig::read_from(path).map_err(|error| broken(path, &error))
}

fn broken(path: &Path, error: &KubeconfigError) -> ConnectError {
    let why = match error {
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        // The rest of this message quotes the file, which may hold tokens and keys.
        KubeconfigError::Parse(error) => {
            error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
        error => error.to_string(),
    };
    ConnectError::Broken { path: path.to_owned(), why }
}

/// Whether `NO_PROXY` (or being this very machine) keeps a host from being reached through `HTTPS_PROXY`, by Go's rules.
pub fn is_exempt_from_proxy(host: &str) -> bool {
    let list = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy")).unwrap_or_default();
    exempt(host, &list)
}

fn exempt(host: &str, list: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    list.split(',').map(|rule| rule.trim().to_ascii_lowercase()).filter(|rule| !rule.is_empty()).any(|rule| {
        if rule == "*" {
            return true;
        }
        if let (Some(address), Some((base, bits))) = (address, rule.split_once('/')) {
            return in_network(address, base, bits);
        }
        let suffix = rule.trim_start_matches('*');
        host == suffix.trim_start_matches('.') || host.ends_with(&format!(".{}", suffix.trim_start_matches('.')))
    })
}

fn in_network(address: IpAddr, base: &str, bits: &str) -> bool {
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (address, base) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(32u32.saturating_sub(bits)).unwrap_or(0) == 0,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(128u32.saturating_sub(bits)).unwrap_or(0) == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_files_are_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "contexts: [\n").unwrap();
        let error = load(file.path().to_str()).unwrap_err().to_string();
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
        let error = load(Some("/does/not/exist")).unwrap_err().to_string();
        assert!(error.contains("/does/not/exist"), "{error}");
    }

    #[test]
    fn a_service_account_is_a_kubeconfig() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("namespace"), "prod\n").unwrap();
        let config = service_account("fd00::1", "443", folder.path());
        assert_eq!(config.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://[fd00::1]:443"));
        assert_eq!(config.contexts[0].context.as_ref().unwrap().namespace.as_deref(), Some("prod"));
        let token = config.auth_infos[0].auth_info.as_ref().unwrap().token_file.as_deref();
        assert_eq!(token, folder.path().join("token").to_str());
    }

    #[test]
    fn no_proxy_follows_gos_rules() {
        for (host, list, want) in [
            ("127.0.0.1", "", true),
            ("localhost", "", true),
            ("api.example.com", "example.com", true),
            ("api.example.com", ".example.com", true),
            ("api.example.com", "*.example.com", true),
            ("notexample.com", "example.com", false),
            ("10.1.2.3", "192.168.0.0/16, 10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8", false),
            ("fd00::1", "fd00::/8", true),
            ("api.example.com", "*", true),
            ("api.example.com", "", false),
        ] {
            assert_eq!(exempt(host, list), want, "{host} in {list:?}");
        }
    }
}
