//! Cookies of a request: RFC 6265, section 5.4; HTTP/2 may split the line (RFC 9113, section 8.2.3).

use http::HeaderMap;
use http::header::COOKIE;

/// Every value of the cookie `name`, in the order they came.
pub fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    pairs.filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn found(lines: &[&str], name: &str) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        values(&headers, name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    #[test]
    fn a_cookie_is_found_among_others_and_over_several_lines() {
        assert_eq!(found(&["a=1; sid=x;b=2"], "sid"), ["x"]);
        assert_eq!(found(&["a=1", "sid=x", "ü=3; sid=y=z"], "sid"), ["x", "y=z"]);
        assert_eq!(found(&["sid="], "sid"), [""]);
    }

    #[test]
    fn another_name_is_another_cookie() {
        for line in ["", "sid", "xsid=1", "sidx=1", "Sid=1", "a=sid=1", "sid =1"] {
            assert!(found(&[line], "sid").is_empty(), "{line}");
        }
    }
}
