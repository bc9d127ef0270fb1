//! The cluster's certificate authority: of servers, of clients and of what the controller manager signs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// Certificates and keys are `certificates/NAME.crt` and `.key` in the cluster's folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Its own certificate is where clients of a test cluster look for it.
    pub fn make(folder: &Path) -> Result<Self, String> {
        let folder = folder.join("certificates");
        fs::create_dir(&folder).map_err(|error| error.to_string())?;
        let made = || -> Result<_, rcgen::Error> {
            let params = own_params()?;
            let key = KeyPair::generate()?;
            let certificate = params.self_signed(&key)?.pem();
            let private = key.serialize_pem();
            Ok((certificate, private, Issuer::new(params, key)))
        };
        let (certificate, private, issuer) = made().map_err(|error| error.to_string())?;
        write(&folder, "apiserver.crt", &certificate)?;
        write(&folder, "ca.key", &private)?;
        Ok(Self { folder, issuer })
    }

    /// The one that was made in the cluster's folder.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let folder = folder.join("certificates");
        let private = fs::read_to_string(folder.join("ca.key")).map_err(|error| error.to_string())?;
        let opened = || Ok::<_, rcgen::Error>(Issuer::new(own_params()?, KeyPair::from_pem(&private)?));
        let issuer = opened().map_err(|error| error.to_string())?;
        Ok(Self { folder, issuer })
    }

    /// A certificate for both ends of a connection. `names` are of the server.
    pub fn issue(&self, file: &str, user: &str, group: Option<&str>, names: &[&str]) -> Result<(), String> {
        let made = || -> Result<_, rcgen::Error> {
            let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
            params.distinguished_name.push(DnType::CommonName, user);
            if let Some(group) = group {
                params.distinguished_name.push(DnType::OrganizationName, group);
            }
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate()?;
            Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
        };
        let (certificate, private) = made().map_err(|error| error.to_string())?;
        write(&self.folder, &format!("{file}.crt"), &certificate)?;
        write(&self.folder, &format!("{file}.key"), &private)
    }
}

fn own_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "test cluster");
    Ok(params)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    fs::write(folder.join(name), text).map_err(|error| error.to_string())
}
