//! The load and the peers that no package brings, for `benches/peers.sh` and `benches/profile.sh`.
//!
//! | command | what it is |
//! |---|---|
//! | `http ADDRESS …` | requests on kept connections: a fixed number, as many as go, or at a constant rate |
//! | `relay ADDRESS TARGET` | copies bytes both ways and looks at none: the floor of every proxy on tokio |
//! | `echo ADDRESS` | an app that agrees to any upgrade and sends back what it gets |
//! | `streams ADDRESS …` | WebSocket streams to it, each with one message on its way |
//! | `handshakes ADDRESS …` | full handshakes of TLS 1.3, one after the other |
//! | `idle ADDRESS …` | connections that have had one answer each and stay open until standard input ends |
//!
//! Every command runs on one thread.

mod handshakes;
mod http;
mod idle;
mod relay;
mod streams;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Http {
        address: SocketAddr,
        #[arg(long, default_value_t = 64)]
        connections: usize,
        #[arg(long, default_value = "/")]
        path: String,
        /// Stop after so many.
        #[arg(long)]
        requests: Option<u64>,
        #[arg(long, default_value_t = 4.0)]
        seconds: f64,
        /// Requests per second, in all; without it, each answer is followed by the next request.
        #[arg(long)]
        rate: Option<f64>,
    },
    Relay {
        address: SocketAddr,
        target: SocketAddr,
    },
    Echo {
        address: SocketAddr,
    },
    Streams {
        address: SocketAddr,
        #[arg(long, default_value_t = 1000)]
        streams: usize,
        #[arg(long, default_value_t = 4.0)]
        seconds: f64,
    },
    Handshakes {
        address: SocketAddr,
        #[arg(long, default_value_t = 8)]
        connections: usize,
        #[arg(long, default_value_t = 4.0)]
        seconds: f64,
        /// Offer X25519MLKEM768 too, as browsers do.
        #[arg(long)]
        post_quantum: bool,
    },
    Idle {
        address: SocketAddr,
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
    },
}

fn main() -> std::io::Result<()> {
    let seconds = Duration::from_secs_f64;
    match Arguments::parse().command {
        Command::Http { address, connections, path, requests, seconds: time, rate } => {
            let plan = http::Plan { address, connections, path, requests, time: seconds(time), rate };
            http::run(&plan)
        }
        Command::Relay { address, target } => on_tokio(relay::run(address, target)),
        Command::Echo { address } => on_tokio(streams::echo(address)),
        Command::Streams { address, streams, seconds: time } => on_tokio(streams::run(address, streams, seconds(time))),
        Command::Handshakes { address, connections, seconds: time, post_quantum } => {
            on_tokio(handshakes::run(address, connections, seconds(time), post_quantum))
        }
        Command::Idle { address, connections } => on_tokio(idle::run(address, connections)),
    }
}

fn on_tokio<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop").block_on(work)
}
