//! TLS to receivers: whom to trust, and who we are.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use hyper_rustls::ConfigBuilderExt as _;
use knark_specs::alert::receiver::Receiver;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::exit::UsageError;

/// The configuration that a receiver's files make.
///
/// # Errors
/// A file can't be read, or holds no certificate or key that can be used.
pub fn config(receiver: &Receiver) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().context("setting up TLS")?;
    let builder = match &receiver.ca_file {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).with_context(|| format!("using the certificates in {file}"))?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_native_roots().context("reading the certificates that this system trusts: name some by caFile")?,
    };
    match (&receiver.cert_file, &receiver.key_file) {
        (Some(certificate), Some(key)) => {
            let read =
                PrivateKeyDer::from_pem_file(Path::new(key)).with_context(|| format!("reading the private key in {key}"))?;
            let config = builder.with_client_auth_cert(certificates(certificate)?, read);
            config.with_context(|| format!("using the client certificate in {certificate} with the key in {key}"))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(UsageError::because("certFile and keyFile belong together: give both")),
    }
}

fn certificates(file: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let doing = || format!("reading the certificates in {file}");
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(Path::new(file)).with_context(doing)?.collect();
    let certificates = read.with_context(doing)?;
    anyhow::ensure!(!certificates.is_empty(), "{file} holds no certificate: one in PEM begins with -----BEGIN CERTIFICATE-----");
    Ok(certificates)
}
