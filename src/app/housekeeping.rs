//! The thread beside the workers: the admin side, and what happens every second.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Control, flag_settings};
use crate::admin;
use crate::config::model::{Config, Notify, Secret};
use crate::policy::maintenance::{Stray, Strays};
use crate::reload::windows;
use crate::telemetry::events::{Event, LossWatch};
use crate::telemetry::notify::Notifier;
use crate::telemetry::traces::Exporter;
use crate::worker::Phases;

/// Housekeeping: rates, sampled events.
const TICK: Duration = Duration::from_secs(1);
/// Watching over upstreams.
const BEAT: Duration = Duration::from_millis(200);
/// How long webhooks and traces may still take at the end of a drain.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long the end waits for what is under way on threads of their own.
const BLOCKED_LAST: Duration = Duration::from_secs(1);

/// Starts the thread, which ends once everything is cut.
pub(super) fn keep_house(control: &Arc<Control>, phases: Phases) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let control = Arc::clone(control);
    std::thread::Builder::new().name("housekeeping".into()).spawn(move || {
        runtime.block_on(async move {
            let mut cutting = phases.cutting;
            let (mut webhooks, mut exporter) = (webhooks(&control), exporter(&control));
            tokio::select! {
                _ = cutting.wait_for(|cutting| *cutting) => {}
                () = tick(Ticker::new(&control)) => {}
                () = control.shared.cuts.run() => {}
                () = webhooks.run() => {}
                () = exporter.run() => {}
                () = beat(&control) => {}
                () = serve_admin(&control) => {}
                () = control.tell_that_alive() => {}
            }
            if control.says_farewell.load(Relaxed) {
                tokio::join!(webhooks.farewell(FAREWELL), exporter.farewell(FAREWELL));
            }
        });
        // A tick, or a reload that was asked for by a call, may be waiting for a disk.
        runtime.shutdown_timeout(BLOCKED_LAST);
    })
}

fn webhooks(control: &Arc<Control>) -> Notifier<impl Fn() -> (u64, Vec<Notify>) + use<>> {
    let of = Arc::clone(control);
    let current = move || {
        let live = of.live.load_full();
        (live.generation, live.config.notify.clone())
    };
    Notifier::new(&control.shared.events, control.shared.resolver.clone(), current)
}

fn exporter(control: &Arc<Control>) -> Exporter<impl Fn() -> Option<Secret> + use<>> {
    let (of, shared) = (Arc::clone(control), &control.shared);
    let current = move || of.live.load_full().config.trace.otlp.clone();
    Exporter::new(
        Arc::clone(&shared.traces),
        Arc::clone(&shared.events),
        shared.resolver.clone(),
        &shared.instance,
        current,
    )
}

/// Watches over upstreams, and begins what a new generation wants begun.
async fn beat(control: &Control) {
    let mut interval = tokio::time::interval(BEAT);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    control.shared.begin_to_beat();
    loop {
        interval.tick().await;
        let live = control.live.load_full();
        live.watch(&tokio::runtime::Handle::current());
        control.shared.beat(&live);
    }
}

/// Serves the admin side, as soon as what is changed there is this process's to change.
async fn serve_admin(control: &Arc<Control>) {
    control.shared.comes_into_charge().await;
    admin::serve(Arc::clone(control)).await;
}

/// Beside this thread, for a tick reads and writes files: a disk that hangs is to keep neither the admin side waiting
/// nor the beat, by which a pause of the process is known.
async fn tick(mut ticker: Ticker) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        let ticked = tokio::task::spawn_blocking(move || {
            ticker.tick();
            ticker
        });
        ticker = ticked.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
}

/// What happens every second.
struct Ticker {
    control: Arc<Control>,
    strays: Strays,
    losses: LossWatch,
    windows: Option<windows::Keeper>,
}

impl Ticker {
    fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control), strays: Strays::default(), losses: LossWatch::default(), windows: None }
    }

    fn tick(&mut self) {
        let control = &self.control;
        control.shared.tick();
        self.losses.look();
        let config = Arc::clone(&control.live.load_full().config);
        tell_strays(&mut self.strays, control, &config);
        control.shared.host.tick(&config.host, &config.server.state_dir);
        control.follow_successor();
        // After the tick: an override that is over gives way. Also what a reload could not know when it was built.
        control.follow_overrides();
        control.settle();
        // Of two processes, one begins planned maintenance, and remembers what the other one has begun.
        if control.shared.is_in_charge() {
            let keeper = || windows::Keeper::new(Arc::clone(&control.live), Arc::clone(&control.shared));
            self.windows.get_or_insert_with(keeper).tick(jiff::Timestamp::now());
        }
    }
}

/// Tells of flags that are for a route which there is not.
fn tell_strays(strays: &mut Strays, control: &Control, config: &Config) {
    let news = strays.news(control.shared.switch.load().as_deref(), |name| config.has_route(name));
    for Stray { scope, route } in news {
        let file = flag_settings(config).path_of(&scope).display().to_string();
        let error = config.no_route(&route);
        control.shared.tell(Event::MaintenanceRouteUnknown { route, file, error });
    }
}
