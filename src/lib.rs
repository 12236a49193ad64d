//! Flagstone, a sidecar reverse proxy: it stands in front of an app where nginx and a folder of shell scripts
//! stood before.
//!
//! # Map
//! Each room is a module. `engine.rs` and `shell.rs` are the roots of packages that hold those built alike; the last
//! three rooms are packages of their own.
//! ```text
//! main.rs        CLI in, exit code out
//!
//! shell: what stands around the engine. Built for size
//! app            composition: load, bind, start workers, reload, drain
//! cli            one file per command family
//! reload         the configuration file and the flag files, followed
//! admin          probes, metrics, status
//! explain        what a request would meet, without sending it; runs every [[test]]
//! upgrade        another process takes over
//! systemd        sd_notify
//!
//! engine: what a request passes through. Built for speed
//!  -- pure rooms: no tokio, no I/O, no clock; `now` and randomness are arguments --
//! message        hop-by-hop fields, forwarding fields, host, path, trace context, negotiation
//! route          (host, path, method) -> route
//! policy         maintenance, access lists, client address, limits
//! balance        which endpoint
//! breaker        closed, open, half-open
//!  -- state --
//! snapshot       one immutable generation
//! live           the pointer to the one that serves
//! shared         what outlives generations
//! runtime        what operators change while it runs: overrides, the block list
//! secret         the key that signs cookies
//! allocator      mimalloc, asked plainly
//!  -- I/O rooms --
//! worker         one thread and event loop per core
//! listener       bind, accept, judge heads, serve
//! proxy          the way of a request
//! upstream       groups, endpoints, pools, connecting, names
//! tls            PEM -> rustls
//! shared_limit   limits that several instances count together, in Redis
//! telemetry      access log, events, webhooks, metrics, traces
//! alarm          a timer that is set often and seldom goes off
//! pieces         a message in pieces, to a socket
//! pipe           a large answer, from socket to socket in the kernel
//!
//! config         raw TOML -> proven values (model), every error at once; and `error`, how errors read aloud
//! assets         what is below static/, packed
//! demo           the sample app of `flagstone demo`
//! ```
//!
//! # Words
//! *Downstream* is the client side, *upstream* a named group of *endpoints* (one address each). A *listener*
//! accepts, a *route* decides, a *limit* bounds rate or concurrency, a *breaker* is a circuit breaker, a *flag
//! file* is the maintenance switch, a *snapshot* is one loaded generation of the configuration.
//!
//! # Invariants
//! - No pure room mentions tokio, and none imports another; but a flag's hosts and paths are route's patterns.
//! - No type of ours is (de)serialised by serde outside `config::raw` and what describes calls (`admin::*::schema`).
//! - Nothing on the request path reads a file, takes a lock that another request can hold for long, or looks at
//!   the configuration's text.
//! - A request sees exactly one snapshot.
//! - A panic under a lock leaves what is under it whole: locks are `parking_lot`'s, which do not know of poison.
//! - Every queue, key table, retry, wait and buffer has a bound.
//! - Whatever must happen when a client disconnects is in `Drop`.

pub use flagstone_engine::{
    balance, breaker, listener, message, policy, proxy, route, snapshot, telemetry, upstream, worker,
};
pub use flagstone_shell::{admin, app, cli, config, demo, reload};
