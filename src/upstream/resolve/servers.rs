//! Asking name servers (RFC 1035): which, when, and over what. How messages are written is the library's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name, Question, Ttl};
use domain::rdata::{A, Aaaa};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use super::{Answer, Missing};

/// After so long without an answer the next server is asked as well; where there is one only, that one again.
const STAGGER: Duration = Duration::from_secs(1);
/// What a server is told that an answer over UDP may have, so that none is cut into fragments (RFC 9715).
const UDP_BYTES: u16 = 1232;
/// What one that does not keep to that may send.
const UDP_BYTES_MAX: usize = 4096;

type Wire = Message<Vec<u8>>;

/// Whom to ask, and how long.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) addresses: Vec<SocketAddr>,
    /// How long one is waited for.
    pub(super) patience: Duration,
    /// How often each is asked.
    pub(super) rounds: usize,
    /// Whether they are told how long an answer over UDP may be (EDNS, RFC 6891).
    pub(super) says_size: bool,
}

/// As resolv.conf(5) has it.
impl Default for Servers {
    fn default() -> Self {
        Self { addresses: Vec::new(), patience: Duration::from_secs(5), rounds: 2, says_size: false }
    }
}

/// Why a server's answer is none.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no name server is configured")]
    NoServer,
    #[error("not a name that DNS could have")]
    BadName,
    #[error("{server} says {code}")]
    Code { server: SocketAddr, code: Rcode },
    #[error("{server} sends what is no answer")]
    Garbage { server: SocketAddr },
    #[error("{server} does not answer")]
    Silent { server: SocketAddr },
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        let kind = match refused {
            Refused::NoServer => io::ErrorKind::Unsupported,
            Refused::BadName => io::ErrorKind::InvalidInput,
            Refused::Code { .. } | Refused::Garbage { .. } => io::ErrorKind::InvalidData,
            Refused::Silent { .. } => io::ErrorKind::TimedOut,
        };
        Self::new(kind, refused)
    }
}

impl Servers {
    /// Every address of an absolute name, of both families.
    ///
    /// # Errors
    /// The name does not exist, has no address, or no server answers.
    pub(super) async fn addresses(&self, name: &str) -> io::Result<Answer> {
        let name: Name<Vec<u8>> = name.parse().map_err(|_| Refused::BadName)?;
        let (v4, v6) = tokio::join!(self.ask(&name, Rtype::A), self.ask(&name, Rtype::AAAA));
        match (v4, v6) {
            // One family will do.
            (Ok(found), Err(error)) if !found.addresses.is_empty() => Ok(without(found, false, error)),
            (Err(error), Ok(found)) if !found.addresses.is_empty() => Ok(without(found, true, error)),
            (v4, v6) => {
                let (mut found, v6) = (v4?, v6?);
                found.addresses.extend(v6.addresses);
                if found.addresses.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
                }
                found.valid_until = found.valid_until.min(v6.valid_until);
                Ok(found)
            }
        }
    }

    /// The first answer of any of them.
    async fn ask(&self, name: &Name<Vec<u8>>, kind: Rtype) -> io::Result<Answer> {
        let mut next = std::iter::repeat_n(&self.addresses, self.rounds).flatten();
        let mut asked = FuturesUnordered::new();
        let mut last = Err(Refused::NoServer.into());
        loop {
            let server = next.next();
            if let Some(&server) = server {
                asked.push(self.ask_one(server, name, kind));
            } else if asked.is_empty() {
                return last;
            }
            tokio::select! {
                Some(outcome) = asked.next() => match outcome {
                    Ok(answer) => return Ok(answer),
                    // There is nothing to be had by asking others.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                    Err(error) => last = Err(error),
                },
                () = sleep(STAGGER), if server.is_some() => {}
            }
        }
    }

    async fn ask_one(&self, server: SocketAddr, name: &Name<Vec<u8>>, kind: Rtype) -> io::Result<Answer> {
        let query = self.query(name, kind);
        let exchange = async {
            let answer = over_udp(server, &query).await?;
            if answer.header().tc() { over_tcp(server, &query).await } else { Ok(answer) }
        };
        let answer = timeout(self.patience, exchange).await.map_err(|_| Refused::Silent { server })??;
        match answer.header().rcode() {
            Rcode::NOERROR => found(&answer, kind).ok_or_else(|| Refused::Garbage { server }.into()),
            Rcode::NXDOMAIN => Err(io::Error::new(io::ErrorKind::NotFound, "there is no such name")),
            code => Err(Refused::Code { server, code }.into()),
        }
    }

    /// With a number that nobody guesses: it is half of what keeps answers of others out; the other half is our port.
    fn query(&self, name: &Name<Vec<u8>>, kind: Rtype) -> Wire {
        let mut id = [0; 2];
        aws_lc_rs::rand::fill(&mut id).expect("the system gives random bytes");
        let mut message = MessageBuilder::new_vec();
        message.header_mut().set_id(u16::from_ne_bytes(id));
        message.header_mut().set_rd(true);
        let mut message = message.question();
        message.push(Question::new_in(name, kind)).expect("there is room for one name");
        let mut message = message.additional();
        if self.says_size {
            let size = message.opt(|option| {
                option.set_udp_payload_size(UDP_BYTES);
                Ok(())
            });
            size.expect("there is room for one option");
        }
        message.into_message()
    }
}

/// That there is no address of a family is an answer; that nobody could say is none.
fn without(mut found: Answer, is_ipv4: bool, error: io::Error) -> Answer {
    found.missing = (error.kind() != io::ErrorKind::NotFound).then_some(Missing { is_ipv4, error });
    found
}

/// Anything that is not the answer is not listened to: it may come from anybody.
async fn over_udp(server: SocketAddr, query: &Wire) -> io::Result<Wire> {
    let unspecified: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((unspecified, 0)).await?;
    // From now on it takes packets of nobody else.
    socket.connect(server).await?;
    socket.send(query.as_slice()).await?;
    let mut packet = vec![0; UDP_BYTES_MAX];
    loop {
        let length = socket.recv(&mut packet).await?;
        if let Ok(answer) = Message::from_octets(&packet[..length])
            && answer.is_answer(query)
        {
            return Ok(Message::from_octets(packet[..length].to_vec()).expect("it has been one"));
        }
    }
}

/// Each message comes with its length before it (RFC 1035, section 4.2.2).
async fn over_tcp(server: SocketAddr, query: &Wire) -> io::Result<Wire> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.as_slice().len()).expect("one question is short");
    stream.write_all(&[&length.to_be_bytes(), query.as_slice()].concat()).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    let answer = Message::from_octets(answer).ok().filter(|answer| answer.is_answer(query));
    answer.ok_or_else(|| Refused::Garbage { server }.into())
}

/// The addresses of what was asked for, or of what it is an alias of; none is an answer too. `None`: it makes no sense.
fn found(answer: &Wire, kind: Rtype) -> Option<Answer> {
    let name = answer.canonical_name()?;
    let (mut addresses, mut ttl) = (Vec::new(), Ttl::MAX);
    for record in answer.answer().ok()? {
        let record = record.ok()?;
        // That of an alias counts as well.
        ttl = ttl.min(record.ttl());
        if record.rtype() != kind || record.owner() != name {
            continue;
        }
        addresses.push(match kind {
            Rtype::A => IpAddr::V4(record.to_record::<A>().ok()??.data().addr()),
            _ => IpAddr::V6(record.to_record::<Aaaa>().ok()??.data().addr()),
        });
    }
    let valid_until = Instant::now() + Duration::from_secs(ttl.as_secs().into());
    Some(Answer { addresses, valid_until, missing: None })
}
