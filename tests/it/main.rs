//! The integration tests: one binary, one file per subject, `support` below them all.

#[macro_use]
mod support;

mod access_log;
mod admin;
mod bad_upstreams;
mod balancing;
mod block_list;
mod bodies;
mod bounds;
mod breaker;
mod command_line;
mod concurrency;
mod departures;
mod docs;
mod early_answers;
mod ejection;
mod files;
mod first_request;
mod foreign;
mod forwarding;
mod health;
mod hold;
mod http1;
mod limits;
mod limits_and_breaker;
mod listeners;
mod live;
mod maintenance;
mod maintenance_flag;
mod names;
mod proxy_protocol;
mod queue;
mod redis;
mod redis_cluster;
mod refused_requests;
mod reload;
mod retries;
mod routes;
mod signals;
mod support_itself;
mod timeouts;
mod tls;
mod upgrades;
mod webhooks;
mod wire;
