//! Every default is the one of the contract.

use std::collections::BTreeMap;

use super::*;

#[test]
fn defaults_of_the_process_are_the_contracts() {
    let config = parsed(MINIMAL).unwrap().config;
    assert_eq!(
        config.server,
        Server {
            workers: None,
            state_dir: "/run/flagstone".into(),
            shutdown_delay: Duration::ZERO,
            shutdown_grace: secs(30),
            max_connections: 16384.try_into().unwrap(),
        }
    );
    let listen = Some(Address::Socket("127.0.0.1:9900".parse().unwrap()));
    assert_eq!(config.admin, Admin { listen, token: None, allowed_hosts: vec![] });
    assert_eq!(
        config.log,
        Log {
            level: "info".to_owned(),
            format: LogFormat::Text,
            access: AccessLogTarget::Stdout,
            access_format: AccessFormat::Combined,
        }
    );
    assert_eq!(config.client_ip, ClientIp { trusted_proxies: vec![], header: ClientIpHeader::XForwardedFor });
}

#[test]
fn defaults_of_timeouts_bounds_and_maintenance_are_the_contracts() {
    let config = parsed(MINIMAL).unwrap().config;
    assert_eq!(
        config.timeouts,
        Timeouts {
            tls_handshake: secs(10),
            request_head: secs(10),
            request_body: secs(30),
            idle: secs(75),
            connect: secs(3),
            response_head: secs(60),
            response_body: secs(60),
            stream_idle: secs(3600),
        }
    );
    assert_eq!(
        config.bounds,
        Bounds {
            header_bytes_max: 32 << 10,
            headers_max: 100,
            uri_bytes_max: 8 << 10,
            body_bytes_max: Some(16 << 20),
            h2_streams_max: 128.try_into().unwrap(),
        }
    );
    assert_eq!(config.certificates, Certificates { warn_days: 30 });
    assert_eq!(config.trace, Trace { otlp: None, sample: 0.01 });
    assert_eq!(config.host, Host { memory_percent: Some(85), disk_percent: Some(80), cpu_percent: Some(90) });
    let redis = Redis { url: None, ca: None, timeout: Duration::from_millis(50), on_error: RedisOnError::Local };
    assert_eq!(config.redis, redis);
    assert_eq!(
        config.maintenance,
        Maintenance {
            flag: "/run/flagstone/maintenance.flag".into(),
            page: None,
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            retry_after: secs(300),
            exempt_paths: vec![],
            allow: vec![],
            bypass_token: None,
            announce: secs(86_400),
            windows: vec![],
        }
    );
}

#[test]
fn defaults_of_a_listener_and_a_route_are_the_contracts() {
    let config = parsed(MINIMAL).unwrap().config;
    assert_eq!(
        config.listeners,
        [Listener {
            name: "0.0.0.0:8080".to_owned(),
            address: Address::Socket("0.0.0.0:8080".parse().unwrap()),
            proxy_protocol: false,
            http2: true,
            redirect_https: false,
            tls: None,
        }]
    );
    assert_eq!(
        config.routes,
        [Route {
            name: "all".to_owned(),
            hosts: vec![],
            paths: vec!["/".to_owned()],
            methods: vec![],
            action: Action::Upstream("app".to_owned()),
            strip_prefix: None,
            preserve_host: true,
            limits: vec![],
            feature: None,
            maintenance_exempt: false,
            allow: vec![],
            deny: vec![],
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            timeouts: config.timeouts.clone(),
            body_bytes_max: Some(16 << 20),
        }]
    );
}

#[test]
fn defaults_of_an_upstream_are_the_contracts() {
    let config = parsed(MINIMAL).unwrap().config;
    let methods = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"].map(|name| name.parse().unwrap());
    let one = 1.try_into().unwrap();
    let upstream = Upstream {
        endpoints: vec![Endpoint {
            address: Address::Socket("127.0.0.1:3000".parse().unwrap()),
            weight: one,
            backup: false,
        }],
        critical: true,
        tls: None,
        http2: false,
        balance: Balance::LeastRequests,
        affinity_cookie: None,
        dns_refresh: secs(30),
        max_idle: 256,
        idle_timeout: secs(4),
        max_in_flight: None,
        hold: Duration::ZERO,
        slow_start: Duration::ZERO,
        health: None,
        ejection: Ejection { failures: 5.try_into().ok(), base: secs(30), max: secs(300) },
        breaker: Breaker {
            enabled: true,
            failures: 5.try_into().ok(),
            failure_ratio: Some(0.5),
            min_requests: 20.try_into().unwrap(),
            window: secs(10),
            slow_call: None,
            open: secs(30),
            max_open: secs(300),
            probes: one,
            ramp: Duration::ZERO,
            count: FailureClasses {
                connect: true,
                timeout: true,
                reset: true,
                statuses: StatusRanges(vec![(500, 599)]),
            },
            shadow: false,
            fallback: None,
        },
        retry: Retry {
            attempts: 1,
            on: FailureClasses { connect: true, timeout: false, reset: true, statuses: StatusRanges::default() },
            methods: methods.to_vec(),
            budget: 0.2,
            replay_bytes_max: 64 << 10,
        },
    };
    assert_eq!(config.upstreams, BTreeMap::from([("app".to_owned(), upstream)]));
}

#[test]
fn defaults_of_optional_tables_are_the_contracts() {
    let text = "[limit.a]\nrate = \"100/1m\"\n[upstream.app.health]\n[probe.db]\ntcp = \"db:5432\"\n[[notify]]\nurl = \"https://example.com/\"\n";
    let config = with(text).unwrap().config;
    let limit = &config.limits["a"];
    assert_eq!((limit.burst.get(), limit.queue, limit.concurrency), (100, 0, None));
    assert_eq!((limit.ipv6_prefix, limit.keys_max.get(), limit.status.as_u16()), (64, 100_000, 429));
    assert_eq!((&limit.key, limit.store, limit.shadow), (&vec![LimitKey::ClientIp], LimitStore::Local, false));
    let health = config.upstreams["app"].health.as_ref().unwrap();
    let expect = StatusRanges(vec![(200, 399)]);
    assert_eq!(health.kind, HealthKind::Http { path: "/api/health".to_owned(), expect });
    assert_eq!((health.interval, health.timeout), (secs(5), secs(2)));
    assert_eq!((health.healthy_after.get(), health.unhealthy_after.get()), (2, 3));
    let probe = &config.probes["db"];
    assert_eq!((probe.critical, probe.interval, probe.timeout), (true, secs(10), secs(2)));
    assert_eq!((config.notify[0].format, config.notify[0].events.len()), (NotifyFormat::Slack, 5));
}
