//! TLS: what a new connection is offered, made of the `tls-*` directives and the files that they name.
//!
//! ```text
//! settings ─▶ files ─▶ Offer { certificates, who must show one, suites, sessions } ─▶ Tls.current ─▶ new connections
//! ```
//!
//! Invariants:
//! - An offer is made whole or not at all: a missing, broken or mismatched file leaves the current one as it is.
//! - A connection keeps what it began with. Sessions are resumed only under the offer that began them, so that a
//!   withdrawn authority or certificate is not trusted by way of an old session.
//! - Private keys and pass phrases are wiped from memory once they are read; no message contains one.

mod certificate;
mod client;
mod key;
mod names;
mod sessions;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use crate::base::config::{ClientCertificates, Settings, UserField};
use crate::base::lock::{Rank, RwLock};

pub use certificate::{Facts, user_names};
pub use client::client;
use sessions::Sessions;

/// The largest file of certificates or keys, in bytes.
const FILE_MAX_BYTES: u64 = 16 << 20;

/// What new connections are offered.
pub struct Offer {
    /// What the library needs to know.
    pub config: Arc<ServerConfig>,
    /// Which part of a client's certificate names its user.
    pub user_field: UserField,
    /// The server's own certificate, or the one of two that expires first.
    pub server: Facts,
    /// The authority for clients that expires first.
    pub authority: Option<Facts>,
    /// A digest of all the files.
    digest: [u8; 20],
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("server", &self.server).finish_non_exhaustive()
    }
}

/// The files, as read.
struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    /// A second certificate and its key.
    second: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    authorities: Option<Vec<u8>>,
    /// Each file of the directory of authorities.
    more_authorities: Vec<Vec<u8>>,
}

impl Files {
    fn read(settings: &Settings) -> Result<Files, String> {
        let given = |path: &Path| !path.as_os_str().is_empty();
        if !given(&settings.tls_cert_file) {
            return Err("No tls-cert-file configured!".into());
        }
        if !given(&settings.tls_key_file) {
            return Err("No tls-key-file configured!".into());
        }
        let (ca_file, ca_dir) = (&settings.tls_ca_cert_file, &settings.tls_ca_cert_dir);
        if settings.tls_auth_clients != ClientCertificates::Refused && !given(ca_file) && !given(ca_dir) {
            return Err("Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, \
                        tls-replication or tls-auth-clients are enabled!"
                .into());
        }
        let second = match (&settings.tls_alt_cert_file, &settings.tls_alt_key_file) {
            (certificate, key) if given(certificate) && given(key) => {
                Some((read_file("certificate", certificate)?, Zeroizing::new(read_file("private key", key)?)))
            }
            (certificate, key) if !given(certificate) && !given(key) => None,
            _ => return Err("tls-alt-cert-file and tls-alt-key-file belong together: one of them is missing".into()),
        };
        Ok(Files {
            certificate: read_file("certificate", &settings.tls_cert_file)?,
            key: Zeroizing::new(read_file("private key", &settings.tls_key_file)?),
            second,
            authorities: given(ca_file).then(|| read_file("CA certificate(s) file", ca_file)).transpose()?,
            more_authorities: if given(ca_dir) { read_directory(ca_dir)? } else { Vec::new() },
        })
    }

    fn digest(&self) -> [u8; 20] {
        let second = self.second.iter().flat_map(|(certificate, key)| [&certificate[..], &key[..]]);
        let more = self.authorities.iter().chain(&self.more_authorities).map(|file| &file[..]);
        let mut sum = Sha1::new();
        for file in [&self.certificate[..], &self.key[..]].into_iter().chain(second).chain(more) {
            sum.update((file.len() as u64).to_le_bytes());
            sum.update(file);
        }
        sum.finalize().into()
    }
}

fn read_file(what: &str, path: &Path) -> Result<Vec<u8>, String> {
    let failed = |cause: &dyn fmt::Display| format!("Failed to load {what}: {}: {cause}", path.display());
    match std::fs::metadata(path) {
        Ok(facts) if facts.len() > FILE_MAX_BYTES => Err(failed(&"the file is too large")),
        Ok(facts) if !facts.is_file() => Err(failed(&"not a file")),
        Ok(_) => std::fs::read(path).map_err(|error| failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

/// The files of a directory, in the order of their names.
fn read_directory(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let failed = |error| format!("Failed to configure CA certificate(s) file/directory: {}: {error}", path.display());
    let entries = std::fs::read_dir(path).map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.iter().map(|path| read_file("CA certificate(s) file", path)).collect()
}

impl Offer {
    /// Makes the offer that the settings ask for.
    ///
    /// # Errors
    /// A text for the operator that says which file or directive is at fault.
    pub fn of(settings: &Settings) -> Result<Offer, String> {
        Offer::from_files(settings, &Files::read(settings)?)
    }

    fn from_files(settings: &Settings, files: &Files) -> Result<Offer, String> {
        let mut provider = rustls::crypto::ring::default_provider();
        let versions = names::protocols(&settings.tls_protocols)?;
        provider.cipher_suites = names::suites(&settings.tls_ciphers, &settings.tls_ciphersuites)?;
        let provider = Arc::new(provider);
        let load = |path: &Path, certificate: &[u8], key: &[u8], pass: &[u8]| {
            certified(certificate, key, pass, &provider).map_err(|problem| format!("{}: {problem}", path.display()))
        };
        let pass = &settings.tls_key_file_pass;
        let mut certificates = vec![load(&settings.tls_cert_file, &files.certificate, &files.key, pass)?];
        if let Some((certificate, key)) = &files.second {
            certificates.push(load(&settings.tls_alt_cert_file, certificate, key, &settings.tls_alt_key_file_pass)?);
        }
        let facts = certificates.iter().filter_map(|certified| Facts::of(certified.cert.first()?));
        let server = facts.min_by_key(|facts| facts.expires_s).ok_or("The certificate cannot be read")?;
        let (roots, authority) = authorities(files)?;
        let verifier: Arc<dyn ClientCertVerifier> = match settings.tls_auth_clients {
            ClientCertificates::Refused => WebPkiClientVerifier::no_client_auth(),
            which => {
                let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
                let optional = which == ClientCertificates::Optional;
                let builder = if optional { builder.allow_unauthenticated() } else { builder };
                builder.build().map_err(|error| format!("Failed to configure CA certificate(s): {error}"))?
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| format!("Failed to configure protocols and ciphers: {error}"))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Certificates(certificates)));
        config.ignore_client_order = settings.tls_prefer_server_ciphers;
        match settings.tls_session_caching {
            true => {
                let (size, seconds) = (settings.tls_session_cache_size, settings.tls_session_cache_timeout_seconds);
                config.session_storage = Arc::new(Sessions::new(size, seconds));
                config.send_tls13_tickets = 1;
            }
            false => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
        }
        let (user_field, digest) = (settings.tls_auth_clients_user, files.digest());
        Ok(Offer { config: Arc::new(config), user_field, server, authority, digest })
    }
}

/// A chain of certificates with the private key of the first.
fn certified(
    certificates: &[u8],
    key: &[u8],
    pass: &[u8],
    provider: &rustls::crypto::CryptoProvider,
) -> Result<Arc<CertifiedKey>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
    let chain = chain.map_err(|error| format!("Failed to load certificate: {error}"))?;
    let first = chain.first().ok_or("Failed to load certificate: the file has none")?;
    let public = certificate::public_key(first).ok_or("Failed to load certificate: it cannot be read")?;
    let key = key::read(key, pass).map_err(|problem| format!("Failed to load private key: {problem}"))?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|error| format!("Failed to load private key: {error}"))?;
    if key.public_key().is_some_and(|of_key| *of_key != *public) {
        return Err("Failed to load private key: it does not belong to the certificate".into());
    }
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

/// The authorities that vouch for clients, and which of them expires first.
fn authorities(files: &Files) -> Result<(RootCertStore, Option<Facts>), String> {
    let mut roots = RootCertStore::empty();
    let mut first: Option<Facts> = None;
    let named = files.authorities.iter().map(|file| (true, file));
    for (is_named, file) in named.chain(files.more_authorities.iter().map(|file| (false, file))) {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(file) {
            let added = certificate.map_err(|error| error.to_string()).and_then(|certificate| {
                let facts = Facts::of(&certificate);
                roots.add(certificate).map_err(|error| error.to_string()).map(|()| facts)
            });
            match added {
                Ok(facts) => first = first.into_iter().chain(facts).min_by_key(|facts| facts.expires_s),
                // A directory may hold other things, too.
                Err(_) if !is_named => {}
                Err(error) => return Err(format!("Failed to configure CA certificate(s) file/directory: {error}")),
            }
        }
        if is_named && roots.len() == before {
            return Err("Failed to configure CA certificate(s) file/directory: the file has no certificate".into());
        }
    }
    Ok((roots, first))
}

/// The server's certificates: which one a client gets is for the client's signature schemes to say.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |scheme| self.0.iter().find(|certified| certified.key.choose_scheme(&[scheme]).is_some());
        hello.signature_schemes().iter().find_map(|scheme| fits(*scheme)).cloned()
    }
}

/// The offer of the running server.
#[derive(Debug)]
pub struct Tls {
    current: RwLock<Option<Arc<Offer>>>,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls { current: RwLock::new(Rank::Settings, None) }
    }
}

impl Tls {
    /// What a connection that begins now is offered; `None` while TLS is off.
    pub fn current(&self) -> Option<Arc<Offer>> {
        self.current.read().clone()
    }

    /// Offers this from now on.
    pub fn set(&self, offer: Option<Offer>) {
        *self.current.write() = offer.map(Arc::new);
    }

    /// Reads the files of the current offer again and takes them over if they have changed. Returns whether they have.
    ///
    /// # Errors
    /// As [`Offer::of`]. The current offer stays.
    pub fn reload(&self, settings: &Settings) -> Result<bool, String> {
        let files = Files::read(settings)?;
        if self.current().is_some_and(|offer| offer.digest == files.digest()) {
            return Ok(false);
        }
        self.set(Some(Offer::from_files(settings, &files)?));
        Ok(true)
    }
}
