//! The parameters of a call's query, with what is wrong in them told as a problem.

use std::collections::BTreeMap;

use http::{StatusCode, Uri};
use percent_encoding::percent_decode_str;

use super::view::{Problem, problem};

/// The parameters of `?a=b&c=d`.
#[derive(Debug, Default)]
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// # Errors
    /// One that is none of `known`, comes twice or is no text.
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        Self::parse(uri.query().unwrap_or_default(), known).map_err(|text| problem(StatusCode::BAD_REQUEST, &text))
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn parse(query: &str, known: &[&str]) -> Result<Self, String> {
        let mut parameters = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = text(key).filter(|key| known.contains(&key.as_str()));
            let key = key.ok_or_else(|| match known {
                [] => "this call takes no parameters".to_owned(),
                known => format!("this call has no such parameter: it takes {}", known.join(", ")),
            })?;
            let value = text(value).ok_or_else(|| format!("{key} is no text in UTF-8"))?;
            if parameters.0.insert(key.clone(), value).is_some() {
                return Err(format!("{key} is given twice"));
            }
        }
        Ok(parameters)
    }
}

/// As forms encode it.
fn text(encoded: &str) -> Option<String> {
    let spaced = encoded.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_as_in_forms() {
        let parameters = Parameters::parse("a=x%20y+z&b&", &["a", "b"]).unwrap();
        assert_eq!((parameters.get("a"), parameters.get("b"), parameters.get("c")), (Some("x y z"), Some(""), None));
    }

    #[test]
    fn what_nobody_asked_for_is_refused() {
        for query in ["c=1", "a=1&a=2", "a=%ff", "%ff=1"] {
            assert!(Parameters::parse(query, &["a"]).is_err(), "{query}");
        }
        assert_eq!(Parameters::parse("a=1", &[]).unwrap_err(), "this call takes no parameters");
    }
}
