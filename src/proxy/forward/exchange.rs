//! One request on its way: which endpoint, which connection, whether it goes on after a failure, and the wait for an
//! endpoint when none can take it.
//!
//! | what happened | it goes on | costs an attempt |
//! |---|---|---|
//! | a kept connection closed before anything was sent | on the next connection | no |
//! | a kept connection closed as it was used | once, on a new connection, if it may be repeated | no |
//! | the endpoint says that it did not look at it | on the next connection, a few times | no |
//! | no connection, `hold` is set | at another endpoint, or when one returns, until `hold` is over | no |
//! | a connection refused, another endpoint is left | there, if `retry.on` has `connect` and `retry.attempts` is not 0; any method | no |
//! | no connection | at another endpoint, if `retry.on` has `connect`; any method | yes |
//! | the connection broke before a head | if `retry.on` has `reset_before_response` and it may be repeated | yes |
//! | an answer with a status of `retry.on` | if it may be repeated; the last answer stands | yes |
//! | no head in time | never: the app may be at work on it | |
//! | no descriptor is left for a connection | never | |
//!
//! It may be repeated when its method is one of `retry.methods`, it asks for no upgrade, and its body is still at hand.
//! A try at an endpoint that had one already comes after a pause with full jitter; at another endpoint, at once.
//!
//! | file | what it is |
//! |---|---|
//! | `attempt` | one try: at one endpoint, over its connections |
//! | `again` | whether there is a further one, and when |

mod again;
mod attempt;

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;

use super::super::body::{Delivery, Fault};
use super::super::context::Context;
use super::super::decide::Verdict;
use super::super::waiting::unless_turned_away;
use super::Answered;
use super::failure::{Failure, Kind};
use super::outbound::Outbound;
use crate::balance::{Retry, hash_of};
use crate::config::model::{Balance, HashKey};
use crate::message::cookie;
use crate::snapshot::Route;
use crate::upstream::Wish;
use crate::upstream::affinity::Token;
use crate::upstream::connection::RequestHead;
use crate::upstream::endpoint::InFlight;
use crate::upstream::group::Group;
use crate::upstream::hold::{self, Ticket, Turn};

/// One request on its way, over as many endpoints and connections as it takes.
pub(super) struct Exchange<'a> {
    group: &'a Arc<Group>,
    route: &'a Route,
    context: &'a mut Context,
    outbound: Box<Outbound>,
    /// Keys of endpoints that failed this request.
    tried: Vec<u64>,
    wish: Wish,
    attempts_left: u32,
    attempts_made: u32,
    /// Where requests are held, the endpoint before reset this one: it may be on its way out.
    was_reset: bool,
    /// Its share of the budget while a further try is on its way, and not in the queue.
    retry: Option<Retry>,
    /// Its place in the queue and since when it has it.
    queued: Option<(Ticket, Instant)>,
    /// Held from leaving the queue to the answer's head, for a while.
    turn: Option<Turn>,
    /// Why it is in the queue.
    last: Option<Failure>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        group: &'a Arc<Group>,
        route: &'a Route,
        context: &'a mut Context,
        outbound: Box<Outbound>,
        home: Option<Token>,
    ) -> Self {
        // Made where it stays: it is large.
        Self {
            wish: Wish { hash: hash(outbound.head(), group, context), home, asks_ejected: false },
            attempts_left: group.settings.retry.attempts,
            group,
            route,
            context,
            outbound,
            tried: Vec::new(),
            attempts_made: 0,
            was_reset: false,
            retry: None,
            queued: None,
            turn: None,
            last: None,
        }
    }

    /// Sends it until there is an answer or nothing more to try.
    ///
    /// # Errors
    /// The last failure.
    pub(super) async fn run(&mut self) -> Result<Answered, Failure> {
        let mut now = self.context.admitted;
        if let Some((home, patience)) = self.wish.home.and_then(|home| Some((home, self.group.patience_for(home)?))) {
            let is_known = || self.group.patience_for(home).is_none();
            let watching = self.group.hold.watch(now + patience, is_known);
            Box::pin(unless_turned_away(self.context, watching)).await.map_err(turned_away)?;
            now = Instant::now();
        }
        // One that another is wanted in place of. It is kept until that can be asked for.
        let mut unwanted: Option<Box<Answered>> = None;
        loop {
            let free = !self.group.hold.is_anyone_waiting() || self.turn.is_some();
            let claimed = if free { self.group.claim(self.wish, &self.tried, now) } else { None };
            let place = match (claimed, unwanted.take()) {
                (Some(place), None) => place,
                (None, None) => {
                    let place = Box::pin(self.wait()).await?;
                    now = Instant::now();
                    place
                }
                (claimed, Some(answered)) => {
                    let place = match Box::pin(self.instead_of(*answered, claimed, now)).await {
                        Ok(place) => place,
                        Err(end) => return end,
                    };
                    now = Instant::now();
                    place
                }
            };
            let key = place.endpoint().key;
            let result = match self.turn.take() {
                None => self.on_endpoint(place, now).await,
                Some(turn) => Box::pin(self.on_turn(turn, place, now)).await,
            };
            self.retry = None;
            match result {
                Ok(answered) => {
                    if !self.wants_another(&answered) || !self.another(key, false) {
                        return Ok(answered);
                    }
                    unwanted = Some(Box::new(answered));
                }
                Err(failure) => {
                    if !self.goes_on(&failure, key) {
                        let waited_in_vain = self.queued.is_some() && matches!(failure.kind, Kind::Connect(_));
                        return Err(if waited_in_vain { self.turned_away().unwrap_or(failure) } else { failure });
                    }
                    self.last = Some(failure);
                }
            }
            Box::pin(self.back_off()).await;
            now = Instant::now();
        }
    }

    /// As [`Self::on_endpoint`], and the turn goes on to others when there is an answer or when it has lasted.
    async fn on_turn(&mut self, turn: Turn, place: InFlight, now: Instant) -> Result<Answered, Failure> {
        let mut sending = pin!(self.on_endpoint(place, now));
        match tokio::time::timeout(hold::TURN_MAX, &mut sending).await {
            Ok(Err(failure)) => Err(failure),
            Ok(Ok(answered)) => {
                turn.went_well();
                Ok(answered)
            }
            Err(_) => {
                turn.went_well();
                sending.await
            }
        }
    }

    /// How the client failed to deliver its body, if it did.
    pub(super) fn client_fault(&self) -> Option<Fault> {
        self.outbound.delivery.as_ref().and_then(|delivery| delivery.fault())
    }

    /// How the client's body comes, for whoever waits for the rest of the answer.
    pub(super) fn take_delivery(&mut self) -> Option<Arc<Delivery>> {
        self.outbound.delivery.take()
    }

    /// The cookie that makes the endpoint of this answer the client's home. None while its home merely has no room: the
    /// next request may find it there.
    pub(super) fn new_home(&self, answered: &Answered, came_by_https: bool) -> Option<HeaderValue> {
        let affinity = self.group.affinity.as_ref()?;
        let token = answered.lease.endpoint().token?;
        let home = self.wish.home.and_then(|token| self.group.home(token));
        let stays = home.is_some_and(|home| {
            home.token == Some(token) || (home.standing.takes(answered.at()) && !self.tried.contains(&home.key))
        });
        (!stays).then(|| affinity.set_cookie(token, came_by_https))
    }

    /// Waits in line until an endpoint can take the request, as long as the upstream's patience lasts.
    async fn wait(&mut self) -> Result<InFlight, Failure> {
        // Others may try once more meanwhile. It is let go in its turn, whether or not the budget has a place by then.
        let is_retry = self.retry.take().is_some();
        let waited = self.wait_in_line().await;
        self.retry = if is_retry { self.group.retry() } else { None };
        self.turned_away().map_or(waited, Err)
    }

    /// Where maintenance has begun, say: the app is to be sent nothing any more, and if it did not come back, this is
    /// what its visitors are to read.
    fn turned_away(&self) -> Option<Failure> {
        self.context.turned_away().map(turned_away)
    }

    async fn wait_in_line(&mut self) -> Result<InFlight, Failure> {
        self.turn = None;
        let began = Instant::now();
        let hold = &self.group.hold;
        if self.group.rally(began)
            && !hold.is_anyone_waiting()
            && let Some(place) = self.group.claim(self.wish, &self.tried, began)
        {
            return Ok(place);
        }
        let (ticket, since) = *self.queued.get_or_insert_with(|| (hold.ticket(), began));
        loop {
            let (patience, now) = (self.group.patience(), Instant::now());
            let deadline = since + patience;
            if now >= deadline {
                let place = self.group.claim(self.wish, &self.tried, now);
                return place.ok_or_else(|| self.gives_up(began));
            }
            let waiting = hold.wait(ticket, self.outbound.weight(), deadline, || self.group.has_room());
            match unless_turned_away(self.context, waiting).await.map_err(turned_away)? {
                Ok(turn) => match self.group.claim(self.wish, &self.tried, Instant::now()) {
                    Some(place) => {
                        self.turn = Some(turn);
                        return Ok(place);
                    }
                    // There is nothing to wait for any more, as the others are to find out as well.
                    None if since + self.group.patience() <= Instant::now() => return Err(self.gives_up(began)),
                    None => turn.in_vain(),
                },
                Err(_) => return Err(self.gives_up(began)),
            }
        }
    }

    fn gives_up(&mut self, began: Instant) -> Failure {
        self.last.take().unwrap_or_else(|| Failure::new(Kind::NoEndpoint, began))
    }
}

fn turned_away(verdict: Verdict<'static>) -> Failure {
    Failure::new(Kind::TurnedAway(Box::new(verdict)), Instant::now())
}

/// Its key, for `balance = "hash"`.
fn hash(head: RequestHead<'_>, group: &Group, context: &Context) -> u64 {
    let Balance::Hash(key) = &group.settings.balance else { return 0 };
    let hash = match key {
        HashKey::ClientIp => Some(match context.client_ip {
            IpAddr::V4(ip) => hash_of(&ip.octets()),
            IpAddr::V6(ip) => hash_of(&ip.octets()),
        }),
        HashKey::Header(name) => head.field(name).map(|value| hash_of(value.as_bytes())),
        HashKey::Cookie(name) => cookie::values(&head.parts.headers, name).next().map(hash_of),
        HashKey::Uri => Some(hash_of(head.parts.uri.path().as_bytes())),
    };
    // Requests without a key would else all go to one endpoint.
    hash.unwrap_or_else(|| fastrand::u64(..))
}
