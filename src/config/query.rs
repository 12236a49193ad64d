//! A query as it may be shown: what sounds like a secret is none there.

/// What stands where a secret stood. The word is the one of the semantic conventions (`url.query`).
pub(super) const REDACTED: &str = "REDACTED";

/// Parts of names whose values are credentials.
const SECRET_PARTS: [&str; 11] =
    ["auth", "bypass", "code", "credential", "key", "pass", "pwd", "secret", "session", "sig", "token"];

/// The query with the values of such names, and of names that are hidden by escapes, taken out. A word without `=` may
/// itself be a key; it stays where it is short and plain. Pairs end at `;` too, as some apps read them.
#[must_use]
pub fn redacted(query: &str) -> String {
    let mut shown = String::with_capacity(query.len());
    for piece in query.split_inclusive(['&', ';']) {
        let pair = piece.trim_end_matches(['&', ';']);
        match pair.split_once('=') {
            Some((name, value)) => {
                let is_secret = !value.is_empty() && is_secret(name);
                shown.extend([name, "=", if is_secret { REDACTED } else { value }]);
            }
            None if pair.len() > WORD_BYTES_MAX => shown.push_str(REDACTED),
            None => shown.push_str(pair),
        }
        shown.push_str(&piece[pair.len()..]);
    }
    shown
}

/// Longer words may be keys.
const WORD_BYTES_MAX: usize = 16;

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains('%') || SECRET_PARTS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sounds_like_a_secret_is_not_shown() {
        for (query, shown) in [
            ("", ""),
            ("page=2&sort=name", "page=2&sort=name"),
            ("maintenance_bypass=s3cret&a=b", "maintenance_bypass=REDACTED&a=b"),
            ("access_token=s3cret", "access_token=REDACTED"),
            ("API_KEY=s3cret&x", "API_KEY=REDACTED&x"),
            (
                "X-Goog-Signature=s3cret&AWSAccessKeyId=s3cret&sig=s3cret",
                "X-Goog-Signature=REDACTED&AWSAccessKeyId=REDACTED&sig=REDACTED",
            ),
            ("code=s3cret&state=1", "code=REDACTED&state=1"),
            ("%74oken=s3cret", "%74oken=REDACTED"),
            ("token=s3cret=more&token=", "token=REDACTED&token="),
            ("eyJhbGciOiJIUzI1NiJ9.s3cret", "REDACTED"),
            ("sixteen-are-kept&seventeen-are-not", "sixteen-are-kept&REDACTED"),
            ("a=1;token=s3cret;password=s3cret&b", "a=1;token=REDACTED;password=REDACTED&b"),
            ("&;&=", "&;&="),
        ] {
            assert_eq!(redacted(query), shown);
        }
    }
}
