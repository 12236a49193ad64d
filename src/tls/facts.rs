//! What one certificate says of itself, and how long that holds.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::TlsError;
use super::names::distinguished_name;

const DAY_SECS: i64 = 86_400;

/// Facts about one certificate, for the expiry watch and `flagstone certs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    pub file: PathBuf,
    /// DNS names and addresses, lower-case; wildcards included.
    pub names: Vec<String>,
    /// As RFC 4514 writes names.
    pub issuer: String,
    /// Seconds since the Unix epoch.
    pub not_before: i64,
    /// Seconds since the Unix epoch.
    pub not_after: i64,
}

/// How a certificate stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Ok,
    /// Fewer days are left than `certificates.warn_days`.
    Expiring,
    Expired,
    /// Cannot be used: not valid yet, or its files are broken.
    Invalid,
}

impl Standing {
    /// The word that the admin side and `flagstone certs` have for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Expiring => "EXPIRING",
            Self::Expired => "EXPIRED",
            Self::Invalid => "INVALID",
        }
    }
}

impl CertificateFacts {
    pub(super) fn read(file: &Path, certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| TlsError::Unusable { file: file.to_path_buf(), reason: error.to_string() })?;
        let mut names: Vec<String> = match parsed.subject_alternative_name() {
            Ok(Some(extension)) => extension.value.general_names.iter().filter_map(general_name).collect(),
            _ => Vec::new(),
        };
        if names.is_empty() {
            // Old certificates name their host in the subject alone.
            let subject = parsed.subject().iter_common_name();
            names.extend(subject.filter_map(|name| Some(name.as_str().ok()?.to_lowercase())));
        }
        Ok(Self {
            file: file.to_path_buf(),
            names,
            issuer: distinguished_name(parsed.issuer()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    /// The name it goes by: its first, or that of its file when it has none.
    pub fn domain(&self) -> String {
        self.names.first().cloned().unwrap_or_else(|| self.file.display().to_string())
    }

    /// Whole days until it ends, rounded down: negative once it has. `now` is in seconds since the Unix epoch.
    pub fn days_left(&self, now: i64) -> i64 {
        (self.not_after - now).div_euclid(DAY_SECS)
    }

    /// How it stands at `now`, in seconds since the Unix epoch.
    pub fn standing(&self, now: i64, warn_days: u32) -> Standing {
        match self.days_left(now) {
            // "Not after" is the last second that it is good for (RFC 5280, section 4.1.2.5).
            _ if now > self.not_after => Standing::Expired,
            _ if now < self.not_before => Standing::Invalid,
            days if days < i64::from(warn_days) => Standing::Expiring,
            _ => Standing::Ok,
        }
    }

    /// Its end, as RFC 3339 writes it.
    pub fn until(&self) -> String {
        jiff::Timestamp::from_second(self.not_after).map(|at| at.to_string()).unwrap_or_default()
    }
}

fn general_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress([a, b, c, d]) => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
        GeneralName::IPAddress(bytes) => Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(not_before: i64, not_after: i64) -> CertificateFacts {
        let (file, issuer) = ("a.pem".into(), String::new());
        CertificateFacts { file, names: Vec::new(), issuer, not_before, not_after }
    }

    #[test]
    fn a_certificate_is_good_from_its_first_second_to_its_last() {
        let facts = facts(1000, 1000 + 40 * DAY_SECS);
        assert_eq!(facts.standing(999, 30), Standing::Invalid);
        assert_eq!(facts.standing(1000, 30), Standing::Ok);
        assert_eq!(facts.standing(1000 + 10 * DAY_SECS, 30), Standing::Ok);
        assert_eq!(facts.standing(1001 + 10 * DAY_SECS, 30), Standing::Expiring);
        assert_eq!(facts.standing(1000 + 40 * DAY_SECS, 30), Standing::Expiring);
        assert_eq!(facts.standing(1001 + 40 * DAY_SECS, 30), Standing::Expired);
        assert_eq!(facts.days_left(1001 + 40 * DAY_SECS), -1);
    }

    #[test]
    fn without_a_name_it_goes_by_its_file() {
        assert_eq!(facts(0, 0).domain(), "a.pem");
    }
}
