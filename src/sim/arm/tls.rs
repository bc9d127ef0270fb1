//! A certificate authority for one process's life, and the server's certificate by it.

use std::{fs, io, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// Makes both, and writes the authority's certificate where clients are told to look for it.
pub(super) fn acceptor(ca_path: &Path, known_as: Option<&str>) -> io::Result<TlsAcceptor> {
    let (ca, leaf, key) = certificates(known_as).map_err(io::Error::other)?;
    fs::write(ca_path, ca)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![leaf], key))
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type Made = (String, rustls_pki_types::CertificateDer<'static>, PrivateKeyDer<'static>);

fn certificates(known_as: Option<&str>) -> Result<Made, rcgen::Error> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "kamino-wf simulated Azure");
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let names = ["127.0.0.1", "localhost"].into_iter().chain(known_as).map(str::to_owned).collect::<Vec<String>>();
    let leaf = CertificateParams::new(names)?;
    let leaf_key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&leaf_key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    Ok((ca_pem, certificate.der().clone(), key))
}
