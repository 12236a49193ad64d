//! Flags that speak of routes which there are not: maintenance is on, and nobody sees it.

use std::collections::BTreeSet;

use super::{Scope, State};

/// Those that were told of: each once, and again when meanwhile it was no stray.
#[derive(Debug, Default)]
pub struct Strays(BTreeSet<Stray>);

/// Whose flag it is, and the name that no route has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stray {
    pub scope: Scope,
    pub route: String,
}

impl Strays {
    /// Those in `state` that are to be told of now.
    pub fn news(&mut self, state: Option<&State>, is_route: impl Fn(&str) -> bool) -> Vec<Stray> {
        let Some(state) = state else {
            self.0.clear();
            return Vec::new();
        };
        let all = state.all().flat_map(|active| {
            active.routes().iter().map(|name| Stray { scope: active.scope.clone(), route: name.clone() })
        });
        let strays: BTreeSet<_> = all.filter(|stray| !is_route(&stray.route)).collect();
        let news = strays.difference(&self.0).cloned().collect();
        self.0 = strays;
        news
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::{Flag, Switch};
    use super::*;

    fn state(global: &[&str], routes: &[&str]) -> State {
        let switch = Switch::default();
        let on = |scope, flag| switch.activate(scope, flag, Timestamp::UNIX_EPOCH);
        let flag = Flag { routes: global.iter().map(|&name| name.to_owned()).collect(), ..Flag::default() };
        let own = |name: &str| (name.to_owned(), on(Scope::Route(name.to_owned()), Flag::default()));
        State { global: Some(on(Scope::Global, flag)), routes: routes.iter().map(|name| own(name)).collect() }
    }

    fn stray(scope: Scope, route: &str) -> Stray {
        Stray { scope, route: route.to_owned() }
    }

    #[test]
    fn each_is_told_once_and_again_when_it_comes_back() {
        let mut strays = Strays::default();
        let is_route = |name: &str| name == "api";
        let both = state(&["api", "ap"], &["api", "wbe"]);
        let told = [stray(Scope::Global, "ap"), stray(Scope::Route("wbe".to_owned()), "wbe")];
        assert_eq!(strays.news(Some(&both), is_route), told);
        assert_eq!(strays.news(Some(&both), is_route), [], "told before");
        assert_eq!(strays.news(Some(&state(&[], &["wbe"])), is_route), []);
        assert_eq!(strays.news(None, is_route), []);
        assert_eq!(strays.news(Some(&both), is_route), told, "all flags were gone");
    }

    #[test]
    fn a_flag_becomes_a_stray_when_its_route_goes() {
        let (mut strays, own) = (Strays::default(), state(&[], &["api"]));
        assert_eq!(strays.news(Some(&own), |_| true), []);
        assert_eq!(strays.news(Some(&own), |_| false), [stray(Scope::Route("api".to_owned()), "api")]);
    }
}
