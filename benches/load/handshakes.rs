//! Full handshakes of TLS 1.3: no tickets are used, and each connection ends with its handshake and one read.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;

/// Prints how many there were.
pub(crate) async fn run(address: SocketAddr, connections: usize, time: Duration, post_quantum: bool) -> io::Result<()> {
    let connector = TlsConnector::from(Arc::new(config(post_quantum)));
    let count = Rc::new(Cell::new(0u64));
    let local = LocalSet::new();
    for _ in 0..connections {
        let (connector, count) = (connector.clone(), Rc::clone(&count));
        local.spawn_local(async move {
            loop {
                if let Err(error) = shake(&connector, address).await {
                    eprintln!("handshakes: {error}");
                    return;
                }
                count.set(count.get() + 1);
            }
        });
    }
    let _ = tokio::time::timeout(time, local).await;
    println!("handshakes={}", count.get());
    Ok(())
}

async fn shake(connector: &TlsConnector, address: SocketAddr) -> io::Result<()> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = connector.connect(name, socket).await?;
    // Closed hard, so that the load's own ports do not run out.
    socket2::SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO))
}

fn config(post_quantum: bool) -> ClientConfig {
    let mut provider = aws_lc_rs::default_provider();
    if !post_quantum {
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is there")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(aws_lc_rs::default_provider())))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

/// The client's own work is not what is measured.
#[derive(Debug)]
struct Unverified(CryptoProvider);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
