//! Limits shared over a Redis Cluster: keys spread over nodes, slots that move, a master that dies.

use std::time::Duration;

use crate::redis::{DEADLINE, get, proxy, reachable};
use crate::support::poll::eventually_async;
use crate::support::port::Port;
use crate::support::proxy::TestProxy;
use crate::support::redis::{Make, Redis};

/// `CLUSTER` gossip takes its time.
const GOSSIP: Duration = Duration::from_secs(30);

/// One node that belongs to no cluster yet, and the port of its bus.
async fn node(make: Make, further: &[&str]) -> Result<(Redis, String), String> {
    let kept = Port::reserve();
    let bus = kept.number().to_string();
    let usual = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-require-full-coverage", "no"];
    Ok((Redis::start_with(make, &[&usual, further].concat()).await?, bus))
}

/// Two masters with half of the slots each, and `replicas` that serve nothing yet.
async fn cluster(make: Make, replicas: usize) -> Result<Vec<Redis>, String> {
    cluster_with(make, replicas, &[]).await
}

async fn cluster_with(make: Make, replicas: usize, further: &[&str]) -> Result<Vec<Redis>, String> {
    let mut nodes = vec![node(make, further).await?];
    for epoch in 2..2 + 1 + replicas {
        let (other, bus) = node(make, further).await?;
        assert_eq!(other.ask(&format!("CLUSTER SET-CONFIG-EPOCH {epoch}"), "\r\n").await, "+OK\r\n");
        let meet = format!("CLUSTER MEET 127.0.0.1 {} {bus}", other.port);
        assert_eq!(nodes[0].0.ask(&meet, "\r\n").await, "+OK\r\n");
        nodes.push((other, bus));
    }
    for ((node, _), range) in nodes.iter().zip(["0 8191", "8192 16383"]) {
        assert_eq!(node.ask(&format!("CLUSTER ADDSLOTSRANGE {range}"), "\r\n").await, "+OK\r\n");
    }
    let size = format!("cluster_known_nodes:{}", nodes.len());
    for (node, _) in &nodes {
        let whole = async || {
            let info = node.ask("CLUSTER INFO", "\r\n\r\n").await;
            let wanted = ["cluster_state:ok", "cluster_slots_ok:16384", &size];
            wanted.iter().all(|fact| info.contains(fact))
        };
        assert!(eventually_async(GOSSIP, whole).await);
    }
    Ok(nodes.into_iter().map(|(node, _)| node).collect())
}

async fn id(node: &Redis) -> String {
    let answer = node.ask("CLUSTER MYID", "\r\n").await;
    // A bulk string: its length on one line, itself on the next.
    match answer.strip_prefix("$40\r\n") {
        Some(rest) if !rest.is_empty() => rest.trim().to_owned(),
        _ => node.ask("CLUSTER NODES", "myself").await.lines().last().unwrap()[..40].to_owned(),
    }
}

async fn dbsize(node: &Redis) -> usize {
    node.ask("DBSIZE", "\r\n").await.trim_start_matches(':').trim().parse().unwrap()
}

async fn replication(node: &Redis) -> String {
    node.ask("INFO replication", "\r\n\r\n").await
}

/// Two requests an hour and path; a store that does not answer refuses.
async fn strict_proxy(seed: &Redis) -> TestProxy {
    let proxy = proxy(&seed.url(), "timeout = \"5s\"\non_error = \"deny\"", "rate = \"2/1h\"\nkey = \"path\"").await;
    assert!(eventually_async(DEADLINE, async || every_fresh_key_is_counted(&proxy).await).await);
    proxy
}

/// Whether keys on all nodes are counted: once the map is known they are.
async fn every_fresh_key_is_counted(proxy: &TestProxy) -> bool {
    let mut all = true;
    for number in 0..8 {
        all &= get(proxy, &format!("/warm-{}-{number}", fastrand::u32(..))).await.status == 200;
    }
    all
}

#[tokio::test]
async fn in_a_cluster_each_key_goes_to_the_node_that_has_it() {
    keys_go_to_their_nodes(Make::Redis).await;
}

#[tokio::test]
async fn in_a_cluster_of_valkey_too() {
    keys_go_to_their_nodes(Make::Valkey).await;
}

async fn keys_go_to_their_nodes(make: Make) {
    let nodes = or_left_out!(cluster(make, 0).await);
    let proxy = strict_proxy(&nodes[0]).await;
    for number in 0..40 {
        for expected in [200, 200, 429] {
            assert_eq!(get(&proxy, &format!("/key-{number}")).await.status, expected);
        }
    }
    for node in &nodes {
        let keys = dbsize(node).await;
        assert!(keys > 5, "{keys} keys on one of two nodes");
    }
}

#[tokio::test]
async fn keys_are_counted_while_their_slots_are_on_the_way() {
    counted_on_the_way(&[]).await;
}

/// As behind a load balancer: who is sent elsewhere goes to another port of the same host.
#[tokio::test]
async fn they_are_where_nodes_tell_their_ports_alone() {
    counted_on_the_way(&["--cluster-preferred-endpoint-type", "unknown-endpoint"]).await;
}

async fn counted_on_the_way(further: &[&str]) {
    let nodes = or_left_out!(cluster_with(Make::Redis, 0, further).await);
    let (from, to) = (&nodes[0], &nodes[1]);
    let proxy = strict_proxy(from).await;
    let (from_id, to_id) = (id(from).await, id(to).await);
    // Every slot of a thousand is on the way: what is not there any more is asked for at the other with ASKING.
    for slot in 0..1_000 {
        let import = format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}");
        assert_eq!(to.ask(&import, "\r\n").await, "+OK\r\n");
        let migrate = format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}");
        assert_eq!(from.ask(&migrate, "\r\n").await, "+OK\r\n");
    }
    let before = dbsize(to).await;
    for number in 0..200 {
        for expected in [200, 200, 429] {
            assert_eq!(get(&proxy, &format!("/moving-{number}")).await.status, expected);
        }
    }
    let asked = to.ask("INFO commandstats", "\r\n\r\n").await;
    assert!(asked.contains("cmdstat_asking:calls="), "{asked}");
    assert!(dbsize(to).await > before);
    // And when one has arrived, by the new owner.
    for slot in 0..1_000 {
        for node in [to, from] {
            let arrived = format!("CLUSTER SETSLOT {slot} NODE {to_id}");
            let answer = node.ask(&arrived, "\r\n").await;
            // The old owner refuses as long as it has keys there of its own; none of ours need it to agree.
            assert!(answer.starts_with("+OK") || answer.contains("still hold"), "{answer}");
        }
    }
    assert!(eventually_async(DEADLINE, async || every_fresh_key_is_counted(&proxy).await).await);
}

#[tokio::test]
async fn a_node_that_was_taken_out_makes_nobody_forget_the_others() {
    let mut nodes = or_left_out!(cluster(Make::Redis, 0).await);
    // The one that is asked for the map first.
    nodes.sort_by_key(|node| node.port.to_string());
    let (seed, heir) = (&nodes[0], &nodes[1]);
    let proxy = strict_proxy(seed).await;
    let seed_id = id(seed).await;
    let takes_all = async || {
        for node in [seed, heir] {
            let _may_be_done: String = node.ask("FLUSHALL", "\r\n").await;
            for range in ["0 8191", "8192 16383"] {
                let _may_be_done: String = node.ask(&format!("CLUSTER DELSLOTSRANGE {range}"), "\r\n").await;
            }
        }
        heir.ask("CLUSTER ADDSLOTSRANGE 0 16383", "\r\n").await == "+OK\r\n"
    };
    assert!(eventually_async(GOSSIP, takes_all).await);
    let knows = async || seed.ask("CLUSTER INFO", "\r\n\r\n").await.contains("cluster_slots_ok:16384");
    assert!(eventually_async(GOSSIP, knows).await);
    let asked = async || {
        let stats = seed.ask("INFO commandstats", "\r\n\r\n").await;
        stats.lines().find(|line| line.starts_with("cmdstat_evalsha")).map(str::to_owned)
    };
    // It answers, and nobody asks it any more: the map is known.
    let is_left_alone = async || {
        let before = asked().await;
        every_fresh_key_is_counted(&proxy).await && asked().await == before
    };
    assert!(eventually_async(DEADLINE, is_left_alone).await);
    let is_connected = async || seed.ask("CLIENT LIST", "cmd=client").await.contains("cmd=evalsha");
    assert!(eventually_async(DEADLINE, is_connected).await);
    assert_eq!(seed.ask("CLUSTER RESET SOFT", "\r\n").await, "+OK\r\n");
    assert_eq!(heir.ask(&format!("CLUSTER FORGET {seed_id}"), "\r\n").await, "+OK\r\n");
    // A reason to look at the map.
    assert_eq!(heir.ask("CLIENT KILL TYPE normal", "\r\n").await.get(..1), Some(":"));
    let _lost_with_its_connection = get(&proxy, "/lost").await;
    assert!(eventually_async(DEADLINE, async || every_fresh_key_is_counted(&proxy).await).await);
}

#[tokio::test]
async fn a_replica_that_takes_over_is_asked_with_what_it_knows() {
    let mut nodes = or_left_out!(cluster(Make::Redis, 1).await);
    let replica = nodes.pop().unwrap();
    let master = nodes.pop().unwrap();
    let replicate = format!("CLUSTER REPLICATE {}", id(&master).await);
    assert_eq!(replica.ask(&replicate, "\r\n").await, "+OK\r\n");
    let in_step = async || {
        let info = replication(&replica).await;
        info.contains("role:slave") && info.contains("master_link_status:up")
    };
    assert!(eventually_async(GOSSIP, in_step).await);
    let proxy = strict_proxy(&nodes[0]).await;
    for number in 0..20 {
        for _ in 0..2 {
            assert_eq!(get(&proxy, &format!("/kept-{number}")).await.status, 200);
        }
    }
    let caught_up = eventually_async(GOSSIP, async || dbsize(&replica).await == dbsize(&master).await).await;
    assert!(caught_up, "{}{}", replication(&master).await, replication(&replica).await);
    drop(master);
    // Two masters are no majority without each other: the operator decides.
    assert_eq!(replica.ask("CLUSTER FAILOVER TAKEOVER", "\r\n").await, "+OK\r\n");
    assert!(eventually_async(GOSSIP, async || every_fresh_key_is_counted(&proxy).await).await);
    assert!(reachable(&proxy, true).await);
    for number in 0..20 {
        assert_eq!(get(&proxy, &format!("/kept-{number}")).await.status, 429);
    }
}
