//! What is read in a certificate: its serial number and end, its public key, and whom it names.

use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::base::config::UserField;

/// What INFO shows of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The serial number, hexadecimal.
    pub serial: String,
    /// When it expires, Unix seconds.
    pub expires_s: i64,
}

impl Facts {
    /// The facts of a certificate, if it can be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Facts> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let bytes = certificate.tbs_certificate().serial_number().as_bytes();
        let serial = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        let end = certificate.tbs_certificate().validity().not_after.to_unix_duration();
        Some(Facts { serial, expires_s: i64::try_from(end.as_secs()).unwrap_or(i64::MAX) })
    }
}

/// The public key of a certificate, as a key gives its own.
pub(super) fn public_key(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    certificate.tbs_certificate().subject_public_key_info().to_der().ok().map(SubjectPublicKeyInfoDer::from)
}

/// The names in this field of a client's certificate, in their order. They are those of users.
pub fn user_names(certificate: &CertificateDer<'_>, field: UserField) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let of = certificate.tbs_certificate();
    match field {
        UserField::Off => Vec::new(),
        UserField::CommonName => {
            let name = of.subject().common_name().ok().flatten();
            name.map(|name| name.value().into_owned()).into_iter().collect()
        }
        UserField::Uri => {
            let Ok(Some((_, SubjectAltName(names)))) = of.get_extension::<SubjectAltName>() else { return Vec::new() };
            let uri = |name: &GeneralName| match name {
                GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
                _ => None,
            };
            names.iter().filter_map(uri).collect()
        }
    }
}
