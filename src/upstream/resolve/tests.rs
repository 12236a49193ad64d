use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use domain::base::iana::{Rcode, Rtype};
use domain::base::message_builder::AnswerBuilder;
use domain::base::{Message, MessageBuilder, Name, Ttl};
use domain::rdata::{A, Aaaa, Cname};
use rustix::net::netdevice;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;

const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

type Question<'a> = &'a Message<[u8]>;
type Reply = AnswerBuilder<Vec<u8>>;

/// Answers over UDP with what `answers` makes of a question, packet by packet.
async fn server<F>(answers: F) -> (SocketAddr, JoinHandle<()>)
where
    F: Fn(Question<'_>) -> Vec<Vec<u8>> + Send + 'static,
{
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            for answer in answers(Message::from_slice(&packet[..length]).unwrap()) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    (address, task)
}

fn reply(question: Question<'_>, code: Rcode) -> Reply {
    MessageBuilder::new_vec().start_answer(question, code).unwrap()
}

fn kind(question: Question<'_>) -> Rtype {
    question.sole_question().unwrap().qtype()
}

fn name(text: &str) -> Name<Vec<u8>> {
    text.parse().unwrap()
}

/// The address of its family.
fn address_of(question: Question<'_>, owner: &str, ttl: u32) -> Vec<u8> {
    let mut reply = reply(question, Rcode::NOERROR);
    let (owner, ttl) = (name(owner), Ttl::from_secs(ttl));
    match kind(question) {
        Rtype::A => reply.push((owner, ttl, A::new(V4))).unwrap(),
        _ => reply.push((owner, ttl, Aaaa::new(V6))).unwrap(),
    }
    reply.finish()
}

async fn lookup(servers: &[SocketAddr], host: &str) -> io::Result<Answer> {
    tokio::time::timeout(Duration::from_secs(30), Resolver::from_servers(servers).lookup(host)).await.unwrap()
}

fn kind_of(outcome: &io::Result<Answer>) -> io::ErrorKind {
    outcome.as_ref().unwrap_err().kind()
}

#[tokio::test]
async fn addresses_of_both_families_are_found() {
    let (server, _task) = server(|question| vec![address_of(question, "app.test", 60)]).await;
    let answer = lookup(&[server], "app.test").await.unwrap();
    assert_eq!(answer.addresses, [IpAddr::V4(V4), IpAddr::V6(V6)]);
}

#[tokio::test]
async fn an_alias_is_followed_and_the_shortest_ttl_counts() {
    let (server, _task) = server(|question| {
        let mut reply = reply(question, Rcode::NOERROR);
        reply.push((name("app.test"), Ttl::from_secs(3), Cname::new(name("one.test")))).unwrap();
        reply.push((name("one.test"), Ttl::from_secs(300), Cname::new(name("two.test")))).unwrap();
        if kind(question) == Rtype::A {
            reply.push((name("two.test"), Ttl::from_secs(300), A::new(V4))).unwrap();
            // Of nobody who was asked for.
            reply.push((name("other.test"), Ttl::from_secs(300), A::new(Ipv4Addr::LOCALHOST))).unwrap();
        }
        vec![reply.finish()]
    })
    .await;
    let before = Instant::now();
    let answer = lookup(&[server], "app.test").await.unwrap();
    assert_eq!(answer.addresses, [IpAddr::V4(V4)]);
    let ttl = Duration::from_secs(3);
    assert!(answer.valid_until >= before + ttl && answer.valid_until <= Instant::now() + ttl);
}

#[tokio::test]
async fn of_both_families_the_shorter_ttl_counts() {
    for short in [Rtype::A, Rtype::AAAA] {
        let ttl = move |question: Question<'_>| if kind(question) == short { 3 } else { 300 };
        let (server, _task) = server(move |question| vec![address_of(question, "app.test", ttl(question))]).await;
        let answer = lookup(&[server], "app.test").await.unwrap();
        assert!(answer.valid_until <= Instant::now() + Duration::from_secs(3), "{short}");
    }
}

#[tokio::test]
async fn a_circle_of_aliases_is_no_answer() {
    let (server, _task) = server(|question| {
        let mut reply = reply(question, Rcode::NOERROR);
        reply.push((name("app.test"), Ttl::from_secs(3), Cname::new(name("one.test")))).unwrap();
        reply.push((name("one.test"), Ttl::from_secs(3), Cname::new(name("app.test")))).unwrap();
        vec![reply.finish()]
    })
    .await;
    assert_eq!(kind_of(&lookup(&[server], "app.test").await), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn what_does_not_answer_the_question_is_not_listened_to() {
    let (server, _task) = server(|question| {
        let forged = |change: fn(&mut Reply)| {
            let mut reply = reply(question, Rcode::NXDOMAIN);
            change(&mut reply);
            reply.finish()
        };
        let other_name = {
            let mut asked = MessageBuilder::new_vec();
            asked.header_mut().set_id(question.header().id());
            let mut asked = asked.question();
            asked.push((name("other.test"), kind(question))).unwrap();
            reply(asked.into_message().for_slice(), Rcode::NXDOMAIN).finish()
        };
        vec![
            b"no message".to_vec(),
            forged(|reply| {
                let id = reply.header().id();
                reply.header_mut().set_id(id.wrapping_add(1));
            }),
            forged(|reply| reply.header_mut().set_qr(false)),
            other_name,
            address_of(question, "app.test", 60),
        ]
    })
    .await;
    assert_eq!(lookup(&[server], "app.test").await.unwrap().addresses.len(), 2);
}

#[tokio::test]
async fn an_answer_from_elsewhere_is_not_listened_to() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            let question = Message::from_slice(&packet[..length]).unwrap();
            other.send_to(&reply(question, Rcode::NXDOMAIN).finish(), from).await.unwrap();
            socket.send_to(&address_of(question, "app.test", 60), from).await.unwrap();
        }
    });
    assert_eq!(lookup(&[server], "app.test").await.unwrap().addresses.len(), 2);
    serving.abort();
}

#[tokio::test]
async fn an_answer_that_is_cut_is_asked_for_over_tcp() {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let server = udp.local_addr().unwrap();
    let cutting = tokio::spawn(async move {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = udp.recv_from(&mut packet).await {
            let mut reply = reply(Message::from_slice(&packet[..length]).unwrap(), Rcode::NOERROR);
            reply.header_mut().set_tc(true);
            udp.send_to(&reply.finish(), from).await.unwrap();
        }
    });
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut question = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut question).await.unwrap();
            let answer = address_of(Message::from_slice(&question).unwrap(), "app.test", 60);
            // In pieces, as TCP may bring it.
            stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
            for byte in answer {
                stream.write_u8(byte).await.unwrap();
            }
        }
    });
    assert_eq!(lookup(&[server], "app.test").await.unwrap().addresses.len(), 2);
    cutting.abort();
    serving.abort();
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_refuses_fails_or_is_silent() {
    let (good, _task) = server(|question| vec![address_of(question, "app.test", 60)]).await;
    let (failing, _task) = server(|question| vec![reply(question, Rcode::SERVFAIL).finish()]).await;
    let (silent, _task) = server(|_| Vec::new()).await;
    // Nobody listens there any more.
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for bad in [failing, silent, closed] {
        assert_eq!(lookup(&[bad, good], "app.test").await.unwrap().addresses.len(), 2);
    }
    let outcome = lookup(&[failing], "app.test").await;
    assert_eq!(kind_of(&outcome), io::ErrorKind::InvalidData);
    assert_eq!(outcome.unwrap_err().to_string(), format!("{failing} says SERVFAIL"));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_not_asked_for_twice() {
    let (asked, mut questions) = mpsc::unbounded_channel();
    let (sure, _task) = server(|question| vec![reply(question, Rcode::NXDOMAIN).finish()]).await;
    let (other, _task) = server(move |_| {
        asked.send(()).unwrap();
        Vec::new()
    })
    .await;
    assert_eq!(kind_of(&lookup(&[sure, other], "app.test").await), io::ErrorKind::NotFound);
    assert!(questions.try_recv().is_err());
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    let (server, _task) = server(|question| vec![reply(question, Rcode::NOERROR).finish()]).await;
    let outcome = lookup(&[server], "app.test").await;
    assert_eq!(kind_of(&outcome), io::ErrorKind::NotFound);
    assert_eq!(outcome.unwrap_err().to_string(), "the name has no address");
}

#[tokio::test]
async fn one_family_is_enough_and_whether_the_other_one_failed_is_told() {
    for good in [Rtype::A, Rtype::AAAA] {
        for (code, is_failure) in [(Rcode::REFUSED, true), (Rcode::NXDOMAIN, false), (Rcode::NOERROR, false)] {
            let (server, _task) = server(move |question| {
                let is_good = kind(question) == good;
                vec![if is_good { address_of(question, "app.test", 60) } else { reply(question, code).finish() }]
            })
            .await;
            let answer = lookup(&[server], "app.test").await.unwrap();
            let is_ipv4 = good == Rtype::A;
            assert_eq!(answer.addresses, [if is_ipv4 { IpAddr::V4(V4) } else { IpAddr::V6(V6) }]);
            let missing = answer.missing.map(|missing| (missing.is_ipv4, missing.to_string()));
            let family = if is_ipv4 { "IPv6" } else { "IPv4" };
            let wanted = is_failure.then(|| (!is_ipv4, format!("{family}: {server} says REFUSED")));
            assert_eq!(missing, wanted, "{good} {code}");
        }
    }
}

#[tokio::test]
async fn a_short_name_is_looked_for_in_the_domains() {
    let (server, _task) = server(|question| {
        let asked = question.sole_question().unwrap().qname().to_string();
        match asked.as_str() {
            "app.two.test" => vec![address_of(question, &asked, 60)],
            _ => vec![reply(question, Rcode::NXDOMAIN).finish()],
        }
    })
    .await;
    let (search, _) = system::parse_resolv_conf(b"search one.test two.test");
    let servers = Servers { addresses: vec![server], ..Servers::default() };
    let resolver = Resolver::of(Settings { hosts: Hosts::default(), search, servers });
    assert_eq!(resolver.lookup("app").await.unwrap().addresses.len(), 2);
    assert_eq!(kind_of(&resolver.lookup("app.").await), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn the_hosts_file_goes_first_and_needs_no_server() {
    let hosts = Hosts::parse(b"# the file\n192.0.2.1 App.test app # here\n2001:db8::1\tapp.test\nnonsense app\n");
    let settings = Settings { hosts, search: Search::default(), servers: Servers::default() };
    let resolver = Resolver::of(settings);
    assert_eq!(resolver.lookup("app.TEST.").await.unwrap().addresses, [IpAddr::V4(V4), IpAddr::V6(V6)]);
    assert_eq!(resolver.resolve("app", 80).await.unwrap(), [(V4, 80).into()]);
    assert_eq!(kind_of(&resolver.lookup("other.test").await), io::ErrorKind::Unsupported);
}

#[tokio::test]
async fn the_files_of_the_system_are_read_again_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let (hosts, resolv_conf) = (folder.path().join("hosts"), folder.path().join("resolv.conf"));
    std::fs::write(&hosts, "192.0.2.1 app\n").unwrap();
    let resolver = Resolver(Source::System(Arc::new(Files::read(hosts.clone(), resolv_conf.clone()))));
    let answer = resolver.lookup("app").await.unwrap();
    assert_eq!(answer.addresses, [IpAddr::V4(V4)]);
    assert!(
        answer.valid_until <= Instant::now() + Duration::from_secs(5),
        "a change of the file would be followed late"
    );
    // Written in place, as container runtimes do.
    std::fs::write(&hosts, "2001:db8::1 app\n").unwrap();
    assert_eq!(resolver.lookup("app").await.unwrap().addresses, [IpAddr::V6(V6)]);
    // Replaced, as editors do.
    let other = folder.path().join("other");
    std::fs::write(&other, "2001:db8::1 app.test\n").unwrap();
    std::fs::rename(&other, &hosts).unwrap();
    assert_eq!(kind_of(&resolver.lookup("app").await), io::ErrorKind::Unsupported);
    assert_eq!(resolver.lookup("app.test").await.unwrap().addresses, [IpAddr::V6(V6)]);
    // Servers that come while we run, and go.
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\noptions attempts:1\n").unwrap();
    let Source::System(files) = &resolver.0 else { unreachable!("it was made of files") };
    assert_eq!(files.settings().servers.addresses, ["127.0.0.1:53".parse().unwrap()]);
    std::fs::remove_file(&resolv_conf).unwrap();
    assert_eq!(kind_of(&resolver.lookup("other.test").await), io::ErrorKind::Unsupported);
}

#[tokio::test]
async fn what_is_no_name_is_not_asked_for() {
    let long = "a".repeat(64);
    for host in ["", "a..b", &long] {
        assert_eq!(
            kind_of(&lookup(&["127.0.0.1:9".parse().unwrap()], host).await),
            io::ErrorKind::InvalidInput,
            "{host}"
        );
    }
}

#[test]
fn resolv_conf_says_whom_to_ask_and_how() {
    let (search, servers) = system::parse_resolv_conf(
        b"nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch a.test b.test.\noptions ndots:2 timeout:3 attempts:4 edns0\n",
    );
    assert_eq!(servers.addresses, ["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()]);
    assert_eq!((servers.patience, servers.rounds, servers.says_size), (Duration::from_secs(3), 4, true));
    assert_eq!(search.names("x.y"), ["x.y.a.test", "x.y.b.test", "x.y"]);
    assert_eq!(search.names("x.y.z"), ["x.y.z", "x.y.z.a.test", "x.y.z.b.test"]);
    assert_eq!(search.names("x."), ["x"]);
}

#[test]
fn a_server_on_the_link_is_asked_through_its_interface() {
    let index = |name| netdevice::name_to_index(UnixDatagram::unbound().unwrap(), name).unwrap();
    for (zone, expected) in [("lo", index("lo")), ("7", 7), ("nowhere0", 0)] {
        let (_, servers) = system::parse_resolv_conf(format!("nameserver fe80::1%{zone}\n").as_bytes());
        let expected = SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, expected);
        assert_eq!(servers.addresses, [SocketAddr::V6(expected)], "{zone}");
    }
}

#[test]
fn resolv_conf_out_of_bounds_is_brought_into_them() {
    let (_, servers) = system::parse_resolv_conf(b"nameserver 192.0.2.53\noptions timeout:0 attempts:99\nnonsense\n");
    assert_eq!((servers.patience, servers.rounds), (Duration::from_secs(1), 5));
    assert_eq!(servers.addresses.len(), 1);
}
