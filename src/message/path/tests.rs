use proptest::prelude::*;

use super::*;

#[test]
fn a_normal_path_is_borrowed() {
    for path in ["/", "/a", "/a/b.html", "/a.b/c..d/", "/@x/$y;z=1,2:3+4!'()*&~_-", "/.well-known/x", "/a%20b"] {
        assert!(matches!(normalise(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
    }
}

#[test]
fn paths_take_their_normal_form() {
    let cases = [
        // Slashes.
        ("//", "/"),
        ("//a", "/a"),
        ("/a//b", "/a/b"),
        ("/a///", "/a/"),
        ("//evil.example/x", "/evil.example/x"),
        // Dot segments, raw and encoded.
        ("/.", "/"),
        ("/./", "/"),
        ("/a/.", "/a/"),
        ("/a/./b", "/a/b"),
        ("/a/..", "/"),
        ("/a/../", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/../c", "/a/c"),
        ("/a//../b", "/b"),
        ("/static/../admin", "/admin"),
        ("/static/%2e%2e/admin", "/admin"),
        ("/static/.%2E/admin", "/admin"),
        ("/static/%2e./admin", "/admin"),
        ("/a/%2e/b", "/a/b"),
        // These only look like dot segments.
        ("/...", "/..."),
        ("/.hidden", "/.hidden"),
        ("/..x/y", "/..x/y"),
        ("/a/.well-known/x", "/a/.well-known/x"),
        ("/x..;/y", "/x..;/y"),
        // Escapes.
        ("/%61dmin", "/admin"),
        ("/%41%5a%7e%2D%5f", "/AZ~-_"),
        ("/a%20b", "/a%20b"),
        ("/%c3%a9", "/%C3%A9"),
        ("/a%3bb%3f%23", "/a%3Bb%3F%23"),
        // Double encoding is data, decoded not even once.
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/%25%32%65", "/%252e"),
        // One spelling for what may not stand in a path.
        ("/{x}|\"<>[]^`", "/%7Bx%7D%7C%22%3C%3E%5B%5D%5E%60"),
        ("/%7bx%7D", "/%7Bx%7D"),
        ("/é/日", "/%C3%A9/%E6%97%A5"),
        // A parameter elsewhere is left alone.
        ("/a;v=1/b", "/a;v=1/b"),
    ];
    for (raw, expected) in cases {
        assert_eq!(normalise(raw).as_deref(), Ok(expected), "{raw}");
    }
}

#[test]
fn what_upstreams_read_differently_is_refused() {
    use PathError as E;
    let cases = [
        ("", E::NoSlash),
        ("*", E::NoSlash),
        ("a/b", E::NoSlash),
        ("http://a/b", E::NoSlash),
        ("/..", E::AboveRoot),
        ("/../etc/passwd", E::AboveRoot),
        ("/a/../../b", E::AboveRoot),
        ("/a/%2e%2e/%2E%2e/b", E::AboveRoot),
        ("//../a", E::AboveRoot),
        ("/./../a", E::AboveRoot),
        ("/a%2fb", E::RefusedEscape),
        ("/a%2Fb", E::RefusedEscape),
        ("/..%2fadmin", E::RefusedEscape),
        ("/..%5cadmin", E::RefusedEscape),
        ("/a%5Cb", E::RefusedEscape),
        ("/a%00.html", E::RefusedEscape),
        ("/a\\b", E::InvalidByte),
        ("/..\\admin", E::InvalidByte),
        ("/a\0", E::InvalidByte),
        ("/a\nb", E::InvalidByte),
        ("/a\x7fb", E::InvalidByte),
        ("/a b", E::InvalidByte),
        ("/a#b", E::InvalidByte),
        ("/a?b", E::InvalidByte),
        ("/a%", E::BadEscape),
        ("/a%2", E::BadEscape),
        ("/a%/b", E::BadEscape),
        ("/a%g0", E::BadEscape),
        ("/a%+1", E::BadEscape),
        ("/a/..;/admin", E::DotParameter),
        ("/..;/admin", E::DotParameter),
        ("/a/..;x=1", E::DotParameter),
        ("/a/.;/admin", E::DotParameter),
        ("/a/%2e%2e;/admin", E::DotParameter),
        ("/a/..%3b/admin", E::DotParameter),
        ("/a/%2e%2E%3B/admin", E::DotParameter),
    ];
    for (raw, error) in cases {
        assert_eq!(normalise(raw), Err(error), "{raw:?}");
    }
}

#[test]
fn a_query_is_only_looked_over() {
    for good in ["", "a=b&c=%2e%2e/%00//..", "x=\\{}é", "next=/../.."] {
        assert_eq!(check_query(good), Ok(()), "{good}");
    }
    for bad in ["a b", "a\r\n", "\0", "\x7f", "a#b"] {
        assert_eq!(check_query(bad), Err(PathError::InvalidByte), "{bad:?}");
    }
}

/// The pieces that matter, in any order.
fn a_raw_path() -> impl Strategy<Value = String> {
    let pieces = vec![
        "/", "/", ".", "..", "%2e", "%2E", ";", "%3b", "a", "B", "%61", "%7e", "%20", "%25", "2e", "%2f", "%5c", "%00",
        "{", "\\", "#", "%", "é",
    ];
    proptest::collection::vec(proptest::sample::select(pieces), 0..14)
        .prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #[test]
    fn normal_form_is_final_and_unambiguous(raw in a_raw_path()) {
        if let Ok(path) = normalise(&raw) {
            let again = normalise(&path);
            prop_assert_eq!(again.as_deref(), Ok(&*path));
            prop_assert!(path.starts_with('/') && path.is_ascii() && !path.contains("//"));
            for segment in path.split('/') {
                prop_assert!(segment != "." && segment != ".." && !segment.starts_with("..;") && !segment.starts_with("..%3B"));
            }
            let lower = path.to_ascii_lowercase();
            for never in ["%2f", "%5c", "%00", "%2e", "%61", "\\", "#", "{"] {
                prop_assert!(!lower.contains(never), "{} in {}", never, path);
            }
        }
    }

    #[test]
    fn any_text_is_normalised_or_refused(raw in "\\PC{0,40}") {
        let _ = normalise(&raw);
    }

    /// What is borrowed is what the long way comes to.
    #[test]
    fn the_short_way_and_the_long_way_agree(raw in "/[a-c./;]{0,12}") {
        if is_normal(raw.as_bytes()) {
            prop_assert_eq!(rewrite(raw.as_bytes()), Ok(raw));
        }
    }
}
