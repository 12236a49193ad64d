use proptest::prelude::*;

use super::*;

type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [Method], &'static str);

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn table(rows: &[Row<'_>]) -> Table<&'static str> {
    let mut table = Table::new();
    for (hosts, paths, methods, value) in rows {
        table.add(&strings(hosts), &strings(paths), methods, *value).unwrap();
    }
    table
}

fn route<'a>(table: &'a Table<&'static str>, host: &str, path: &str, method: Method) -> Option<&'a str> {
    match table.find(host, path, &method) {
        Found::Route(value) => Some(value),
        _ => None,
    }
}

#[test]
fn hosts_win_from_exact_over_the_longest_wildcard_to_any() {
    let table = table(&[
        (&[], &["/"], &[], "any"),
        (&["*.com"], &["/"], &[], "com"),
        (&["*.example.com"], &["/"], &[], "wild"),
        (&["a.example.com"], &["/"], &[], "exact"),
    ]);
    let cases = [
        ("a.example.com", "exact"),
        ("b.example.com", "wild"),
        ("a.a.example.com", "wild"),
        ("example.com", "com"),
        ("com", "any"),
        ("example.org", "any"),
        ("", "any"),
    ];
    for (host, expected) in cases {
        assert_eq!(route(&table, host, "/x", Method::GET), Some(expected), "{host}");
    }
}

#[test]
fn paths_win_from_exact_over_the_longest_prefix() {
    let table = table(&[
        (&[], &["/"], &[], "root"),
        (&[], &["/api"], &[], "api"),
        (&[], &["/api/v1"], &[], "v1"),
        (&[], &["=/api/v1"], &[], "exact"),
    ]);
    let cases = [
        ("/", "root"),
        ("/apix", "root"),
        ("/api", "api"),
        ("/api/v2", "api"),
        ("/api/v1", "exact"),
        ("/api/v1/", "v1"),
    ];
    for (path, expected) in cases {
        assert_eq!(route(&table, "h", path, Method::GET), Some(expected), "{path}");
    }
}

#[test]
fn the_host_weighs_more_than_the_path() {
    let table = table(&[(&["a.com"], &["/"], &[], "host"), (&[], &["=/x"], &[], "path")]);
    assert_eq!(route(&table, "a.com", "/x", Method::GET), Some("host"));
}

#[test]
fn a_host_without_the_path_leaves_it_to_less_specific_hosts() {
    let table = table(&[(&["a.com"], &["/app"], &[], "host"), (&[], &["/"], &[], "any")]);
    assert_eq!(route(&table, "a.com", "/x", Method::GET), Some("any"));
}

#[test]
fn a_named_method_beats_any_method() {
    let table = table(&[(&[], &["/"], &[], "any"), (&[], &["/"], &[Method::POST], "post")]);
    assert_eq!(route(&table, "h", "/", Method::POST), Some("post"));
    assert_eq!(route(&table, "h", "/", Method::GET), Some("any"));
}

#[test]
fn a_route_without_the_method_leaves_it_to_the_next_best() {
    let table = table(&[
        (&[], &["/"], &[], "root"),
        (&["a.com"], &["/api"], &[Method::POST], "post"),
        (&["a.com"], &["=/api"], &[Method::PUT], "put"),
    ]);
    assert_eq!(route(&table, "a.com", "/api", Method::PUT), Some("put"));
    assert_eq!(route(&table, "a.com", "/api", Method::POST), Some("post"));
    assert_eq!(route(&table, "a.com", "/api", Method::DELETE), Some("root"));
}

#[test]
fn head_is_served_where_get_is_unless_named() {
    let get = table(&[(&[], &["/"], &[Method::GET], "get"), (&[], &["=/x"], &[Method::HEAD], "head")]);
    assert_eq!(route(&get, "h", "/", Method::HEAD), Some("get"));
    assert_eq!(route(&get, "h", "/x", Method::HEAD), Some("head"));
}

#[test]
fn a_method_that_no_route_takes_names_those_that_do() {
    let table = table(&[
        (&[], &["/api"], &[Method::POST, Method::PUT], "write"),
        (&["a.com"], &["=/api"], &[Method::GET, Method::POST], "read"),
    ]);
    assert_eq!(
        table.find("a.com", "/api", &Method::DELETE),
        Found::MethodNotAllowed(vec![Method::GET, Method::HEAD, Method::POST, Method::PUT])
    );
    assert_eq!(table.find("a.com", "/other", &Method::DELETE), Found::NotFound);
}

#[test]
fn duplicates_are_refused_and_leave_nothing_behind() {
    let mut table = table(&[(&["a.com"], &["/x"], &[Method::GET], "first"), (&[], &["/"], &[], "second")]);
    let error = table.add(&strings(&["b.com", "A.com"]), &strings(&["/%78"]), &[Method::GET], "again").unwrap_err();
    assert_eq!(error, AddError::Duplicate { what: "/x on a.com, GET,".to_owned(), earlier: 0 });
    assert_eq!(table.value(0), Some(&"first"));
    assert_eq!(route(&table, "b.com", "/x", Method::GET), Some("second"));
    assert!(matches!(table.add(&[], &strings(&["/"]), &[], "again"), Err(AddError::Duplicate { earlier: 1, .. })));
    assert_eq!(table.values().count(), 2);
    // Not duplicates: another method, another kind of path, and a route that repeats itself.
    table.add(&strings(&["a.com"]), &strings(&["/x", "=/x", "/x"]), &[Method::PUT, Method::PUT], "third").unwrap();
}

#[test]
fn bad_patterns_are_named() {
    let mut table = Table::new();
    assert!(matches!(table.add(&strings(&["a:1"]), &strings(&["/"]), &[], ()), Err(AddError::Host { .. })));
    assert!(matches!(table.add(&[], &strings(&["x"]), &[], ()), Err(AddError::Path { .. })));
    assert_eq!(table.add(&[], &[], &[], ()), Err(AddError::NoPath));
}

/// The reference: look at every route and keep the best.
struct Naive {
    host: Option<HostPattern>,
    path: PathPattern,
    methods: Vec<Method>,
}

impl Naive {
    fn covers(&self, host: &str, path: &str) -> bool {
        self.host.as_ref().is_none_or(|pattern| pattern.matches(host)) && self.path.matches(path)
    }

    /// Greater is more specific; `None` when the method does not fit.
    fn rank(&self, method: &Method) -> Option<(u8, usize, bool, usize, u8)> {
        let (host_kind, host_len) = match &self.host {
            None => (0, 0),
            Some(HostPattern::Wildcard(suffix)) => (1, suffix.len()),
            Some(HostPattern::Exact(_)) => (2, 0),
        };
        let method_kind = if self.methods.is_empty() {
            0
        } else if self.methods.contains(method) {
            2
        } else if *method == Method::HEAD && self.methods.contains(&Method::GET) {
            1
        } else {
            return None;
        };
        Some((host_kind, host_len, self.path.is_exact(), self.path.as_str().len(), method_kind))
    }
}

fn a_path() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(vec!["a", "b", "ab", "abc", "%20"]), 0..4).prop_flat_map(
        |segments| {
            any::<bool>().prop_map(move |slash| {
                let mut path = format!("/{}", segments.join("/"));
                if slash && path != "/" {
                    path.push('/');
                }
                path
            })
        },
    )
}

fn a_method() -> impl Strategy<Value = Method> {
    proptest::sample::select(vec![Method::GET, Method::HEAD, Method::POST, Method::PUT])
}

proptest! {
    #[test]
    fn finds_what_a_linear_search_finds(
        rows in proptest::collection::vec(
            (
                proptest::option::of(proptest::sample::select(vec!["a.com", "b.a.com", "*.com", "*.a.com", "*.b.a.com"])),
                a_path(),
                any::<bool>(),
                proptest::collection::vec(a_method(), 0..3),
            ),
            0..24,
        ),
        host in proptest::sample::select(vec!["", "com", "a.com", "b.a.com", "c.a.com", "x.b.a.com", "org"]),
        path in a_path(),
        method in a_method(),
    ) {
        let mut table = Table::new();
        let mut naive = Vec::new();
        for (host, path, exact, methods) in rows {
            let hosts: Vec<String> = host.iter().map(|host| (*host).to_owned()).collect();
            let path = format!("{}{path}", if exact { "=" } else { "" });
            if table.add(&hosts, std::slice::from_ref(&path), &methods, naive.len()).is_ok() {
                naive.push(Naive {
                    host: host.map(|host| HostPattern::parse(host).unwrap()),
                    path: PathPattern::parse(&path).unwrap(),
                    methods,
                });
            }
        }
        let covering: Vec<usize> = (0..naive.len()).filter(|&i| naive[i].covers(host, &path)).collect();
        let best = covering.iter().copied().filter(|&i| naive[i].rank(&method).is_some()).max_by_key(|&i| naive[i].rank(&method));
        match table.find(host, &path, &method) {
            Found::Route(&found) => prop_assert_eq!(Some(found), best),
            Found::NotFound => prop_assert!(covering.is_empty()),
            Found::MethodNotAllowed(allow) => {
                prop_assert!(best.is_none() && !covering.is_empty());
                prop_assert!(!allow.contains(&method));
                for i in covering {
                    prop_assert!(naive[i].methods.iter().all(|method| allow.contains(method)));
                }
            }
        }
    }
}
