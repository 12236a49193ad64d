//! Distinguished names as text (RFC 4514), in visible ASCII.
//!
//! Everything that could be taken for the end of a value or the beginning of another is escaped, so that a name
//! `x,O=Admin` stays one name. The last attribute comes first, as nginx's `$ssl_client_s_dn` has it.

use std::fmt::Write;

use x509_parser::prelude::{AttributeTypeAndValue, X509Name};

/// `CN=me,O=Example,C=DE`; empty when there is no attribute.
pub(super) fn distinguished_name(name: &X509Name<'_>) -> String {
    let sets: Vec<_> = name.iter().collect();
    let sets = sets.iter().rev().map(|set| set.iter().map(attribute).collect::<Vec<_>>().join("+"));
    sets.collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    match (short_name(&oid), attribute.as_str()) {
        (Some(name), Ok(value)) => format!("{name}={}", escaped(value)),
        (name, _) => {
            // Section 2.4: what is no string, or of an unknown kind, is written as its bytes.
            let value = attribute.attr_value();
            let mut text = format!("{}=#", name.unwrap_or(&oid));
            for byte in value.data {
                let _ = write!(text, "{byte:02X}");
            }
            text
        }
    }
}

/// Section 3, and the two further ones that client certificates have.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// Section 2.4; bytes that are not visible ASCII as `\XX`.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b'#' if at == 0 => text.push_str("\\#"),
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' ' | 0x21..=0x7e => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    fn subject(parts: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        distinguished_name(X509Certificate::from_der(certificate.der()).unwrap().1.subject())
    }

    #[test]
    fn the_last_attribute_comes_first() {
        let parts = [(DnType::CountryName, "DE"), (DnType::OrganizationName, "Example"), (DnType::CommonName, "me")];
        assert_eq!(subject(&parts), "CN=me,O=Example,C=DE");
        assert_eq!(subject(&[]), "");
    }

    #[test]
    fn no_value_can_pass_for_another_attribute() {
        let hostile = "x,O=Admin + <\"y\">;\\";
        assert_eq!(subject(&[(DnType::CommonName, hostile)]), r#"CN=x\,O\=Admin \+ \<\"y\"\>\;\\"#);
        assert_eq!(subject(&[(DnType::CommonName, " # ")]), r"CN=\ #\ ");
        assert_eq!(subject(&[(DnType::CommonName, "#1")]), r"CN=\#1");
        assert_eq!(subject(&[(DnType::CommonName, "Jürgen\r\nX: y")]), r"CN=J\C3\BCrgen\0D\0AX: y");
    }

    #[test]
    fn an_unknown_kind_is_written_as_bytes() {
        assert_eq!(subject(&[(DnType::CustomDnType(vec![1, 2, 3, 4]), "ab")]), "1.2.3.4=#6162");
    }

    proptest! {
        #[test]
        fn whatever_the_name_it_is_one_line_of_visible_ascii(value in "\\PC{1,40}") {
            let text = subject(&[(DnType::CommonName, &value)]);
            prop_assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{}", text);
        }
    }
}
