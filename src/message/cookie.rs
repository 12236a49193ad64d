//! Cookies of a request: RFC 6265, section 5.4; HTTP/2 may split the line (RFC 9113, section 8.2.3).

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// Every value of the cookie `name`, in the order they came.
pub fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    pairs.filter_map(move |pair| value(pair, name))
}

/// Takes the cookie `name` out, and leaves the others as they came.
pub fn remove(headers: &mut HeaderMap, name: &str) {
    let lines: Vec<_> = headers.get_all(COOKIE).iter().filter_map(|line| without(line, name)).collect();
    headers.remove(COOKIE);
    for line in lines {
        headers.append(COOKIE, line);
    }
}

/// `None` where the line says nothing more.
fn without(line: &HeaderValue, name: &str) -> Option<HeaderValue> {
    let pairs = line.as_bytes().split(|&byte| byte == b';');
    let others: Vec<_> = pairs.filter(|pair| value(pair, name).is_none()).collect();
    HeaderValue::from_bytes(others.join(&b';').trim_ascii()).ok().filter(|line| !line.is_empty())
}

fn value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    fn found(lines: &[&str], name: &str) -> Vec<String> {
        values(&with(lines), name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    #[test]
    fn a_cookie_is_found_among_others_and_over_several_lines() {
        assert_eq!(found(&["a=1; sid=x;b=2"], "sid"), ["x"]);
        assert_eq!(found(&["a=1", "sid=x", "ü=3; sid=y=z"], "sid"), ["x", "y=z"]);
        assert_eq!(found(&["sid="], "sid"), [""]);
    }

    #[test]
    fn the_others_stay_as_they_came() {
        for (lines, left) in [
            (vec!["a=1; sid=x;b=2"], vec!["a=1;b=2"]),
            (vec!["sid=x; a=1", "b=2;  c=ü"], vec!["a=1", "b=2;  c=ü"]),
            (vec!["a=1", "sid=x; sid=y"], vec!["a=1"]),
            (vec!["a; sid; xsid=1; sid=", "sid=1;"], vec!["a; sid; xsid=1"]),
        ] {
            let mut headers = with(&lines);
            remove(&mut headers, "sid");
            assert_eq!(headers, with(&left), "{lines:?}");
        }
    }

    #[test]
    fn another_name_is_another_cookie() {
        for line in ["", "sid", "xsid=1", "sidx=1", "Sid=1", "a=sid=1", "sid =1"] {
            assert!(found(&[line], "sid").is_empty(), "{line}");
        }
    }
}
