//! One mistake is one error, hides no other, and its remedy can be pasted.

use super::*;

#[test]
fn a_misspelt_key_hides_no_error_in_what_is_spelt_right() {
    let text = "[[listener]]\naddress = \"0.0.0.0:80\"\n\n[[route]]\nupstream = \"app\"\n\n[[route]]\nname = \"b\"\npath = [\"/b\"]\n\n[[routes]]\nname = \"c\"\n\n[upstream.app]\n\n[upstreams.web]\nendpoints = [\"web:1\"]\n";
    let expected = [
        "flagstone.toml:4:1: route[0].name: is missing: give it a name",
        "flagstone.toml:7:1: route[1]: does nothing with its requests: give exactly one of upstream, files, redirect or respond",
        "flagstone.toml:11:1: routes: unknown key: did you mean \"route\"?",
        "flagstone.toml:14:1: upstream.app.endpoints: is missing: write endpoints = [\"app:3000\"]",
        "flagstone.toml:16:2: upstreams: unknown key: did you mean \"upstream\"?",
    ];
    assert_eq!(errors(text), expected.join("\n"));
}

#[test]
fn one_mistake_is_one_error() {
    let longest =
        "not a duration: write whole numbers with units, largest first, such as \"250ms\", \"10s\" or \"1h30m\"";
    let cases = [
        ("[upstream.b]\nendpoints = [\"b:1\"]\nejection = { max = \"soon\" }", "upstream.b.ejection.max = \"soon\": "),
        ("[upstream.b]\nendpoints = [\"b:1\"]\nejection = { base = \"9 m\" }", "upstream.b.ejection.base = \"9 m\": "),
        (
            "[upstream.b]\nendpoints = [\"b:1\"]\nbreaker = { max_open = \"soon\" }",
            "upstream.b.breaker.max_open = \"soon\": ",
        ),
    ];
    for (addition, start) in cases {
        assert_eq!(error_with(addition), format!("{start}{longest}"));
    }
    let burst = "[limit.a]\nrate = \"often\"\nburst = 4294967295";
    assert!(error_with(burst).starts_with("limit.a.rate = \"often\": not a rate: "));
    let addition = "[[listener]]\naddress = \"0.0.0.0:443\"\ntls = { certificates = [\"site.pem\"] }";
    let expected =
        "listener[1].tls.certificates[0] = \"site.pem\": must be a table: write { … } with \"cert\" or \"key\"";
    assert_eq!(error_with(addition), expected);
    let nameless = MINIMAL.replace("name = \"all\"\n", "")
        + "[[test]]\nname = \"t\"\nrequest = { url = \"http://a/\" }\nexpect = { route = \"all\" }\n";
    let problems = parsed(&nameless).expect_err("the route has no name");
    assert_eq!(problems.0.len(), 1, "{problems}");
}

#[test]
fn two_wrong_addresses_are_two_errors() {
    let problems =
        with("[[listener]]\naddress = \":80\"\n[[listener]]\naddress = \":443\"").expect_err("both are wrong");
    let paths: Vec<_> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["listener[1].address", "listener[2].address"]);
}

#[test]
fn a_route_without_a_name_is_called_by_its_place() {
    let text = MINIMAL.replace("name = \"all\"\n", "") + "[[route]]\nname = \"b\"\nrespond = {}\n";
    let told = errors(&text);
    assert!(
        told.contains("route[1].path[0] = \"/\": route[0] has this path already, for any host and any method: "),
        "{told}"
    );
}

#[test]
fn a_remedy_can_be_pasted() {
    let tls =
        "[[listener]]\naddress = \"0.0.0.0:443\"\n[listener.tls]\ncertificates = [{ cert = \"a\", key = \"b\" }]\n";
    let cases = [
        (
            format!("{tls}client_auth = [\"ca.pem\"]"),
            "must be a table: write [listener.tls.client_auth], with one pair of brackets",
        ),
        (
            tls.replace("[{", "{").replace("}]", "}"),
            "must be a list of tables: write [[listener.tls.certificates]], with two brackets",
        ),
        (
            "[upstream.b]\nendpoints = \"b:1\"".to_owned(),
            "must be a list in square brackets: write endpoints = [\"b:1\"]",
        ),
    ];
    for (addition, end) in cases {
        let told = error_with(&addition);
        assert!(told.ends_with(end), "{told}");
    }
}
