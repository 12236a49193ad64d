use proptest::prelude::*;

use super::super::access::canonical;
use super::*;

const CLIENT: &str = "203.0.113.9";

fn facts() -> Facts<'static> {
    Facts {
        route: Some("api"),
        host: "example.com",
        path: "/api/orders",
        method_is_safe: false,
        client_ip: CLIENT.parse().unwrap(),
        allow: &[],
        exempt: false,
    }
}

fn global(text: &str) -> State {
    let switch = Switch::default();
    let (flag, _) = Flag::parse(text.as_bytes());
    State { global: Some(switch.activate(Scope::Global, flag, Timestamp::UNIX_EPOCH)), ..State::default() }
}

fn blocks(text: &str, facts: Facts<'_>) -> bool {
    global(text).check(&facts).is_some()
}

#[test]
fn an_empty_flag_covers_everything_also_what_no_route_matches() {
    assert!(blocks("", facts()));
    assert!(blocks("", Facts { route: None, ..facts() }));
}

#[test]
fn each_scope_that_is_given_must_match() {
    assert!(blocks("routes = [\"web\", \"api\"]", facts()));
    assert!(!blocks("routes = [\"web\"]", facts()));
    assert!(!blocks("routes = [\"api\"]", Facts { route: None, ..facts() }));
    assert!(blocks("hosts = [\"example.com\"]\npaths = [\"/api\"]", facts()));
    assert!(!blocks("hosts = [\"example.org\"]\npaths = [\"/api\"]", facts()));
    assert!(!blocks("hosts = [\"example.com\"]\npaths = [\"=/api\"]", facts()));
}

#[test]
fn a_scope_without_one_usable_entry_covers_everything() {
    assert!(blocks("paths = [\"no-slash\"]", facts()));
}

#[test]
fn allowed_clients_and_exempt_requests_pass() {
    let list = ["203.0.113.0/24".parse().unwrap()];
    assert!(!blocks("allow = [\"203.0.113.0/24\"]", facts()));
    assert!(blocks("allow = [\"198.51.100.0/24\"]", facts()));
    assert!(!blocks("", Facts { allow: &list, ..facts() }));
    assert!(!blocks("mode = \"emergency\"", Facts { exempt: true, ..facts() }));
}

#[test]
fn an_ipv4_client_on_an_ipv6_socket_is_the_same_client() {
    let client_ip = "::ffff:203.0.113.9".parse().unwrap();
    assert!(!blocks("allow = [\"203.0.113.9\"]", Facts { client_ip, ..facts() }));
}

#[test]
fn read_only_passes_what_only_reads() {
    assert!(blocks("mode = \"read_only\"", facts()));
    assert!(!blocks("mode = \"read_only\"", Facts { method_is_safe: true, ..facts() }));
    assert!(blocks("mode = \"emergency\"", Facts { method_is_safe: true, ..facts() }));
}

#[test]
fn a_routes_flag_blocks_that_route_after_the_global_one_let_pass() {
    let switch = Switch::default();
    let mut state = global("mode = \"read_only\"");
    let scope = Scope::Route("api".to_owned());
    let active = switch.activate(scope.clone(), Flag::default(), Timestamp::UNIX_EPOCH);
    state.routes.insert("api".to_owned(), active);
    let read = Facts { method_is_safe: true, ..facts() };
    assert_eq!(state.check(&read).unwrap().scope, scope);
    assert_eq!(state.check(&facts()).unwrap().scope, Scope::Global);
    assert!(state.check(&Facts { route: Some("web"), ..read }).is_none());
}

#[test]
fn retry_after_is_whole_seconds_to_the_end_and_at_least_one() {
    let default = Duration::from_millis(299_500);
    let state = global("until = \"1970-01-01T00:00:10.5Z\"");
    let active = state.global.as_ref().unwrap();
    let at = |ms| active.retry_after(Timestamp::from_millisecond(ms).unwrap(), default);
    assert_eq!((at(0), at(500), at(10_499), at(10_500), at(99_000)), (11, 10, 1, 1, 1));
    let endless = global("").global.unwrap();
    assert_eq!(endless.retry_after(Timestamp::UNIX_EPOCH, default), 300);
    assert_eq!(endless.retry_after(Timestamp::UNIX_EPOCH, Duration::ZERO), 1);
}

#[test]
fn overdue_is_what_is_past_its_end() {
    let active = global("until = \"1970-01-01T00:01:00Z\"").global.unwrap();
    assert_eq!(active.overdue(Timestamp::UNIX_EPOCH), None);
    assert_eq!(active.overdue(Timestamp::from_second(60).unwrap()), None);
    assert_eq!(active.overdue(Timestamp::from_second(90).unwrap()), Some(Duration::from_secs(30)));
    assert_eq!(global("").global.unwrap().overdue(Timestamp::MAX), None);
    // One that ends by itself is about to.
    let active = global("until = \"1970-01-01T00:01:00Z\"\nauto_end = true").global.unwrap();
    assert_eq!(active.overdue(Timestamp::from_second(62).unwrap()), None);
    assert_eq!(active.overdue(Timestamp::from_second(90).unwrap()), Some(Duration::from_secs(30)));
}

#[test]
fn only_terminate_cuts_and_without_a_grace_at_once() {
    let cut_after = |text| global(text).global.unwrap().cut_after();
    assert_eq!(cut_after("grace = 30"), None);
    assert_eq!(cut_after("grace = 30\nterminate = true"), Some(Duration::from_secs(30)));
    assert_eq!(cut_after("terminate = true"), Some(Duration::ZERO));
}

#[test]
fn only_a_maintenance_that_cuts_and_blocks_cuts_a_request() {
    let mut state = global("");
    let own = Switch::default().activate(Scope::Route("api".to_owned()), Flag::default(), Timestamp::UNIX_EPOCH);
    state.routes.insert("api".to_owned(), own);
    let cutting = |facts| state.cutting(&facts).map(|active| active.scope.to_string());
    assert_eq!(cutting(facts()), None, "both only block");
    state.routes["api"].begin_cutting();
    assert_eq!(cutting(facts()).as_deref(), Some("api"), "the global one, asked first, does not");
    assert_eq!(cutting(Facts { route: Some("web"), ..facts() }), None);
    assert_eq!(cutting(Facts { exempt: true, ..facts() }), None);
    state.global.as_ref().unwrap().begin_cutting();
    assert_eq!(cutting(facts()).as_deref(), Some("global"));
    assert_eq!(state.all().map(|active| active.scope.to_string()).collect::<Vec<_>>(), ["global", "api"]);
}

#[test]
fn a_flag_with_any_scope_does_not_cover_everything() {
    for (text, everything) in [
        ("", true),
        ("mode = \"read_only\"\nallow = [\"10.0.0.0/8\"]", true),
        ("routes = [\"api\"]", false),
        ("hosts = [\"example.com\"]", false),
        ("paths = [\"/api\"]", false),
    ] {
        assert_eq!(Flag::parse(text.as_bytes()).0.covers_everything(), everything, "{text}");
    }
}

#[test]
fn switch_and_state_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Switch>();
    shared::<Loaded<State>>();
}

#[test]
fn the_switch_shows_what_was_stored_last() {
    let switch = Switch::default();
    assert!(switch.load().is_none());
    switch.store(global("reason = \"x\""));
    assert!(switch.load().unwrap().check(&facts()).is_some());
    switch.store(State::default());
    assert!(switch.load().is_none());
}

#[test]
fn counts_start_anew_with_each_maintenance_and_totals_do_not() {
    let switch = Switch::default();
    let begin = || switch.activate(Scope::Global, Flag::default(), Timestamp::UNIX_EPOCH);
    let first = begin();
    first.count_blocked();
    let amended = switch.amend(&first, Flag::default(), Timestamp::UNIX_EPOCH);
    assert_ne!(amended.id, first.id);
    amended.count_blocked();
    assert_eq!(amended.blocked_requests(), 2);
    let second = begin();
    second.count_blocked();
    assert_eq!(second.blocked_requests(), 1);
    assert_eq!(switch.blocked_totals(), [(Scope::Global, 3)]);
}

#[test]
fn totals_outlive_their_maintenance_until_there_are_too_many() {
    let switch = Switch::default();
    let begin = |number| {
        let active = switch.activate(Scope::Route(format!("{number:05}")), Flag::default(), Timestamp::UNIX_EPOCH);
        active.count_blocked();
        active
    };
    let on = [begin(0), begin(1)];
    (2..TOTALS_MAX).for_each(|number| drop(begin(number)));
    assert_eq!(switch.blocked_totals().len(), TOTALS_MAX);
    assert_eq!(begin(TOTALS_MAX).blocked_requests(), 1);
    let told = |number: usize| (Scope::Route(format!("{number:05}")), 1);
    assert_eq!(switch.blocked_totals(), [told(0), told(1), told(TOTALS_MAX)], "what is on keeps its count");
    assert_eq!(on.map(|active| active.blocked_requests()), [1, 1]);
}

proptest! {
    /// The one promise of the flag file: whatever is in it, it is on. Only its own scope, mode and list let
    /// anything pass, and random bytes do not say any of these.
    #[test]
    fn any_bytes_in_the_flag_mean_maintenance_is_on(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let (flag, _) = Flag::parse(&bytes);
        let switch = Switch::default();
        let unscoped = flag.routes.is_empty() && flag.hosts.is_empty() && flag.paths.is_empty();
        prop_assume!(unscoped && flag.allow.is_empty() && flag.mode != Mode::ReadOnly);
        let state = State {
            global: Some(switch.activate(Scope::Global, flag, Timestamp::UNIX_EPOCH)),
            ..State::default()
        };
        switch.store(state);
        prop_assert!(switch.load().expect("on").check(&facts()).is_some());
    }
}

#[test]
fn an_allowed_network_of_mapped_addresses_is_that_of_ipv4() {
    assert!(!blocks("allow = [\"::ffff:203.0.113.0/120\"]", facts()));
    assert!(blocks("allow = [\"::ffff:203.0.112.0/120\"]", facts()));
    let allow = [canonical("::ffff:203.0.113.9/128".parse().unwrap())];
    assert!(!blocks("", Facts { allow: &allow, ..facts() }));
}
