//! What the tests stand on. Read `docs/testing.md` first.
//!
//! | file | what it holds |
//! |---|---|
//! | `upstream`, `reply` | an upstream that can misbehave in every way, and what it answers |
//! | `client`, `websocket` | clients that speak bytes |
//! | `admin` | calls of the admin side |
//! | `blackhole` | an address that neither takes nor refuses connections |
//! | `dns` | a name server that says what a test wants, or nothing |
//! | `process` | the real binary, and any other program, with deadlines and signals |
//! | `frozen`, `stalled` | one thread of a process, stopped; a file that is not to be had for the moment |
//! | `files`, `certs` | folders and certificates for one test |
//! | `load`, `streams` | many requests at once, every failure told; the same over HTTP/2 |
//! | `lineage` | a process and its successors |
//! | `poll` | the only place that waits for a condition |
//! | `port` | a port that nobody else gets, whoever listens there or not |
//! | `redis` | a real one, of the test's own |
//! | `relay` | a connection that can be cut |
//! | `left_out`, `python`, `npm` | parts that a machine may lack |
//! | `wire`, `socket` | HTTP/1.1 as bytes; one type for every connection |

#![allow(dead_code, unused_macros, reason = "a toolbox: not every tool is in use at every time")]
#![allow(unreachable_pub, reason = "pub says here what a test may use; nothing leaves a test binary")]

pub mod admin;
pub mod blackhole;
pub mod certs;
pub mod client;
pub mod dns;
pub mod files;
pub mod frozen;
pub mod h2;
#[macro_use]
pub mod left_out;
pub mod lineage;
pub mod load;
pub mod npm;
pub mod poll;
pub mod port;
pub mod process;
pub mod proxy;
pub mod python;
pub mod redis;
pub mod relay;
pub mod reply;
pub mod socket;
pub mod stalled;
pub mod streams;
pub mod upstream;
mod upstream_connection;
pub mod websocket;
pub mod wire;
