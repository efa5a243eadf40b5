//! What a tool shows and trusts when it asks a server under TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use super::{key, read_file};

/// Where systems keep the authorities that they trust, in one file.
const SYSTEM: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client that trusts the authorities of a file, or else those of the system, and shows a certificate if it has one.
///
/// # Errors
/// A text for the operator that says which file is at fault.
pub fn client(authorities: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, String> {
    let system = || SYSTEM.iter().map(Path::new).find(|path| path.is_file());
    let file = authorities.or_else(system).ok_or("this system trusts no authorities: --cacert is needed")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read_file("authorities", file)?) {
        let added = certificate.map_err(|error| error.to_string());
        let added = added.and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        // A system may trust one that this library cannot read.
        added.or_else(
            |error| if authorities.is_some() { Err(format!("{}: {error}", file.display())) } else { Ok(()) },
        )?;
    }
    if roots.is_empty() {
        return Err(format!("{}: there is no certificate in it", file.display()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.with_root_certificates(roots);
    let Some((certificate, private)) = own else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read_file("certificate", certificate)?).collect();
    let chain = chain.map_err(|error| format!("{}: {error}", certificate.display()))?;
    let pem = Zeroizing::new(read_file("private key", private)?);
    let key = key::read(&pem, b"").map_err(|problem| format!("{}: {problem}", private.display()))?;
    let config = builder.with_client_auth_cert(chain, key);
    config.map(Arc::new).map_err(|error| format!("{}: {error}", certificate.display()))
}
