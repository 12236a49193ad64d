//! How a running Flagstone comes to its end, and how another process takes over from it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::listening::Listening;
use super::{App, Control, in_short};
use crate::admin::{self, Place};
use crate::config::Problems;
use crate::config::model::Config;
use crate::listener::bind::Bound;
use crate::telemetry::events::Event;
use crate::upgrade::{self, Inheritance, Offer, Passed, SPARE, UpgradeError, Upgraded};

/// How long the last answers of the admin side may take; the streams of a dashboard do not end by themselves.
const ADMIN_LAST: Duration = Duration::from_secs(2);
/// How long a reload waits until the address is free that the admin side has left.
const ADMIN_FREE_MAX: Duration = Duration::from_secs(1);
/// How long an admin connection without a request stays open for one, once another process has taken over.
const ADMIN_IDLE_LAST: Duration = Duration::from_secs(1);
/// How long a new process that was called off takes to go, at most.
const SUCCESSOR_LAST: Duration = Duration::from_secs(1);

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(1);

/// How far a process is on the way to another one in its place.
///
/// | from | to | when |
/// |---|---|---|
/// | `Serves` | `Waits` | somebody asks for an upgrade, of which there is one at a time |
/// | `Waits` | `HasSuccessor` | no reload is under way any more |
/// | `HasSuccessor` | `HandedOver` | the new process accepts, and this one no longer |
/// | `HasSuccessor` | `Serves` | it came to nothing, and the new process has gone |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Serves,
    Waits,
    /// There may be a new process, which may have to go again.
    HasSuccessor,
    HandedOver,
}

impl Stage {
    fn begin(&mut self) -> Result<(), UpgradeError> {
        match self {
            Self::Serves => *self = Self::Waits,
            Self::Waits | Self::HasSuccessor => return Err(UpgradeError::Busy),
            Self::HandedOver => return Err(UpgradeError::Leaving),
        }
        Ok(())
    }
}

/// How to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Somebody asked for a drain.
    Drain,
    /// Another process accepts already.
    HandedOver,
}

impl App {
    /// After [`Control::upgrade`]: finishes what is open and stops; whether everything finished in time.
    ///
    /// Nobody waits for this end, so connections without a request get most of `grace` for another one, which is
    /// answered with `Connection: close`.
    pub(crate) fn finish_handed_over(mut self, grace: Duration) -> bool {
        // The file is the other process's business now.
        self.config_watcher = None;
        self.finish(grace.mul_f64(0.75), grace)
    }
}

impl Control {
    /// Asks whoever runs this process to drain it and end. From now on it is not ready.
    pub(crate) fn ask_to_leave(&self) {
        self.is_ready.store(false, Relaxed);
        self.leaving.send_replace(true);
    }

    /// Ready when this process is to leave.
    pub(crate) async fn asked_to_leave(&self) -> Leave {
        let (mut leaving, mut stage) = (self.leaving.subscribe(), self.stage.subscribe());
        // The senders live as long as `self`.
        tokio::select! {
            _ = stage.wait_for(|stage| *stage == Stage::HandedOver) => Leave::HandedOver,
            _ = leaving.wait_for(|it| *it) => Leave::Drain,
        }
    }

    /// Lets the admin side answer what it was asked: the drain itself may have been. It answers until the end, or until
    /// everything is cut.
    pub(super) fn finish_admin(&self, cutting: &watch::Sender<bool>) {
        let admin = self.admin();
        if !self.has_handed_over() {
            admin.close(Duration::ZERO);
        }
        wait_for(&admin, cutting, ADMIN_LAST);
    }

    /// Whether another process has taken over.
    pub(crate) fn has_handed_over(&self) -> bool {
        *self.stage.borrow() == Stage::HandedOver
    }

    /// Where the admin side is now.
    pub(super) fn admin(&self) -> Arc<Place> {
        Arc::clone(&self.admin.borrow())
    }

    /// Where the admin side is, and when it moves.
    pub(crate) fn admin_places(&self) -> watch::Receiver<Arc<Place>> {
        self.admin.subscribe()
    }

    /// A place for the admin side, bound, where the configuration names another address than the one that it has. None
    /// while this process is on its way out.
    pub(super) fn elsewhere(&self, config: &Config, listening: &Listening) -> Option<Result<Place, Problems>> {
        let place = self.admin();
        let moves = listening.workers.is_some() && config.admin.listen != place.configured;
        moves.then(|| admin::bind(&config.admin, &mut Inheritance::default(), place.socket().as_deref()))
    }

    /// The admin side is there from now on. What is under way where it was is answered.
    pub(super) fn move_admin(&self, place: Place) {
        begin(&place);
        match place.socket().map(|socket| socket.address()) {
            Some(Ok(address)) => tracing::info!(%address, "admin listening"),
            _ => tracing::info!("the admin side is closed"),
        }
        let before = self.admin.send_replace(Arc::new(place));
        before.close(Duration::ZERO);
        // The next reload may want it back.
        wait_until(|| before.is_free(), ADMIN_FREE_MAX);
    }

    /// Starts the program of this process anew and hands over to it. Takes as long as the new process takes to build,
    /// and half a second more; from then on this one accepts nothing and is to be drained.
    ///
    /// # Errors
    /// The new process did not come to serve. This one serves on.
    pub(crate) fn upgrade(&self) -> Result<Upgraded, UpgradeError> {
        let mut begun = Ok(());
        self.stage.send_modify(|stage| begun = stage.begin());
        begun?;
        // A reload that has begun comes to its end first, one that comes now waits.
        let _turn = self.turn.lock();
        tracing::info!("upgrading");
        self.stage.send_replace(Stage::HasSuccessor);
        let result = self.try_upgrade();
        match &result {
            Ok(Upgraded { pid, version }) => {
                let (pid, version) = (i64::from(*pid), version.clone());
                self.shared.events.emit(Event::UpgradeFinished { pid, version });
            }
            Err(error) => self.tell_of_failed_upgrade(error),
        }
        if result.is_ok() {
            // One that has just connected has not asked yet, and cannot know.
            self.admin().close(ADMIN_IDLE_LAST);
        } else {
            *self.are_breakers_told.lock() = false;
        }
        self.stage.send_replace(if result.is_ok() { Stage::HandedOver } else { Stage::Serves });
        result
    }

    /// As of a reload that is refused: the event has the first reason, and each of several has a line of its own. The new
    /// process says nothing itself, for both write to one stderr, and it need not know the format of the log.
    fn tell_of_failed_upgrade(&self, error: &UpgradeError) {
        let text = error.to_string();
        let (first, more) = text.split_once('\n').map_or((&*text, 0), |(first, rest)| (first, rest.lines().count()));
        self.shared.events.emit(Event::UpgradeFailed { error: in_short(first, more) });
        if let UpgradeError::Refused(reasons) = error
            && more > 0
        {
            reasons.lines().for_each(|reason| tracing::error!("{reason}"));
        }
    }

    fn try_upgrade(&self) -> Result<Upgraded, UpgradeError> {
        if !self.is_ready() {
            return Err(UpgradeError::Leaving);
        }
        let offer = self.offer().map_err(UpgradeError::Spawn)?;
        let state = || {
            *self.are_breakers_told.lock() = true;
            upgrade::state::of(&self.live.load_full(), &self.shared)
        };
        upgrade::run(offer, state, || !self.is_ready(), |unwanted| self.step_back(unwanted))
    }

    /// Waits until a new process has gone that was called off. Left alone it would take this one for dead and serve on,
    /// with sockets that are closed for everybody. To be called when this one is not ready any more.
    pub(super) fn outlive_successor(&self) {
        wait_until(|| *self.stage.borrow() != Stage::HasSuccessor, SUCCESSOR_LAST);
    }

    fn offer(&self) -> std::io::Result<Offer> {
        let pass = |listener: Option<&String>, address: String, socket: &Bound| {
            let passed = Passed { listener: listener.cloned(), address, is_owned: socket.is_ours() };
            socket.as_fd().try_clone_to_owned().map(|descriptor| (passed, descriptor))
        };
        let mut sockets = Vec::new();
        let listening = self.listening.lock();
        for (name, open) in &listening.open {
            sockets.push(pass(Some(name), open.at.address.to_string(), &open.socket)?);
        }
        for (_, socket) in listening.spares() {
            sockets.push(pass(Some(&SPARE.to_owned()), socket.address()?.to_string(), socket)?);
        }
        drop(listening);
        let admin = self.admin();
        if let (Some(configured), Some(socket)) = (&admin.configured, admin.socket()) {
            sockets.push(pass(None, configured.to_string(), &socket)?);
        }
        Ok(Offer { sockets })
    }

    /// Leaves the sockets, and what is to be told, to the new process; those of `unwanted` listeners are emptied and
    /// closed. The scopes of the maintenance that this one has told of; `None` when a drain was faster, and has closed
    /// the sockets for everybody.
    fn step_back(&self, unwanted: &[String]) -> Option<Vec<String>> {
        let mut listening = self.listening.lock();
        if listening.workers.is_none() || !self.is_ready() {
            return None;
        }
        listening.leave(unwanted);
        self.is_ready.store(false, Relaxed);
        self.shared.runtime.hand_over();
        if let Some(socket) = self.admin().socket() {
            socket.leave();
        }
        self.shared.set_in_charge(false);
        Some(self.shared.scopes_in_maintenance())
    }

    /// The process before has stepped back, or has gone: what it would have told and removed is ours to tell and
    /// remove. `told` are the scopes of the maintenance that it has told of, where it says so.
    pub(crate) fn take_charge(&self, told: Option<&[String]>) {
        self.shared.runtime.take_over();
        self.follow_overrides();
        self.shared.set_in_charge(true);
        if let Some(told) = told {
            self.shared.catch_up(told);
        }
        self.listening.lock().open.values().for_each(|open| open.socket.own());
        if let Some(socket) = self.admin().socket() {
            socket.own();
        }
    }

    /// False as long as the process before may serve on without this one.
    pub(crate) fn is_in_charge(&self) -> bool {
        self.shared.is_in_charge()
    }

    /// Once a second: what is changed in the process that has taken over holds for what is still open here, too. Flag
    /// files are followed by both anyway.
    pub(super) fn follow_successor(&self) {
        if self.has_handed_over() && self.shared.runtime.follow() {
            self.shared.switched.notify_waiters();
        }
    }

    /// Before anything is accepted: where the process before stood, and what nobody wants of its sockets. Ours may
    /// overlap with them.
    pub(super) fn go_on_from(&self, inheritance: &mut Inheritance) {
        let (unwanted, of_units) = inheritance.rest();
        self.listening.lock().spare(of_units);
        if let Some(state) = inheritance.predecessor.as_mut().and_then(|predecessor| predecessor.state(unwanted)) {
            upgrade::state::recall(&state, &self.live.load_full(), &self.shared);
        }
        begin(&self.admin());
    }
}

fn begin(admin: &Place) {
    if let Some(Err(error)) = admin.socket().map(|socket| socket.begin()) {
        tracing::error!(%error, "the admin side cannot listen");
    }
}

/// Until this place has answered all it was asked, or is cut as all else is: then it says nothing any more.
fn wait_for(admin: &Place, cutting: &watch::Sender<bool>, patience: Duration) {
    wait_until(|| admin.is_done() || *cutting.borrow(), patience);
}

/// Until that is so, or for as long as `patience`.
pub(super) fn wait_until(mut is_so: impl FnMut() -> bool, patience: Duration) {
    let deadline = Instant::now() + patience;
    while !is_so() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waiting, these would not end.
    const LONG: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn of_upgrades_there_is_one_at_a_time_and_none_after_the_last() {
        let mut stage = Stage::Serves;
        assert!(stage.begin().is_ok());
        assert_eq!(stage, Stage::Waits);
        for under_way in [Stage::Waits, Stage::HasSuccessor] {
            stage = under_way;
            assert!(matches!(stage.begin(), Err(UpgradeError::Busy)));
        }
        stage = Stage::HandedOver;
        assert!(matches!(stage.begin(), Err(UpgradeError::Leaving)));
        assert_eq!(stage, Stage::HandedOver);
    }

    #[test]
    fn an_admin_side_that_has_been_cut_is_not_waited_for() {
        let admin = Place::new(None, None);
        wait_for(&admin, &watch::Sender::new(true), LONG);
        let cutting = watch::Sender::new(false);
        let hurry = cutting.clone();
        let waiting = std::thread::spawn(move || wait_for(&admin, &cutting, LONG));
        hurry.send_replace(true);
        waiting.join().unwrap();
    }

    #[test]
    fn an_admin_side_that_has_not_answered_is_waited_for() {
        let begun = Instant::now();
        wait_for(&Place::new(None, None), &watch::Sender::new(false), Duration::from_millis(20));
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }
}
