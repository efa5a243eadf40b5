//! Private keys: PEM, plain or encrypted under a pass phrase (PKCS#8).

use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END_OF_ENCRYPTED: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// Reads the first private key of a PEM file. A pass phrase is needed only if it is encrypted.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(pem: &[u8], pass: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let text = std::str::from_utf8(pem).map_err(|_| "the file is not text".to_owned())?;
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err("it is encrypted in an old form; convert it: openssl pkcs8 -topk8 -in OLD -out NEW".into());
    }
    let Some(start) = text.find(ENCRYPTED) else {
        return PrivateKeyDer::from_pem_slice(pem).map_err(|error| error.to_string());
    };
    if pass.is_empty() {
        return Err("it is encrypted, and no pass phrase is configured".into());
    }
    let end = text[start..].find(END_OF_ENCRYPTED).ok_or("its end is missing")?;
    let section = &text[start..start + end + END_OF_ENCRYPTED.len()];
    let (_, encrypted) = SecretDocument::from_pem(section).map_err(|error| error.to_string())?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(encrypted.as_bytes());
    let encrypted = encrypted.map_err(|error| format!("it cannot be read: {error}"))?;
    let key = encrypted.decrypt(pass).map_err(
        |_| "it cannot be decrypted: the pass phrase is wrong, or the cipher is none of PBES2 (AES, PBKDF2 or scrypt)",
    )?;
    Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec())))
}
