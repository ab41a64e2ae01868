//! The network between a host and an engine, which can be cut.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct Network {
    address: SocketAddr,
    engine: String,
    is_cut: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Network {
    /// `engine`: the address of one server, as a host's settings have it.
    pub async fn to(engine: &str) -> Self {
        let place = engine.rsplit('@').next().unwrap_or(engine);
        let place = place.rsplit("//").next().unwrap_or(place);
        let engine = place.split('/').next().unwrap_or(place).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let is_cut = watch::Sender::new(false);
        let accepting = tokio::spawn({
            let (engine, is_cut) = (engine.clone(), is_cut.clone());
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(pass(client, engine.clone(), is_cut.subscribe()));
                }
            }
        });
        Self { address, engine, is_cut, accepting }
    }

    /// The same address of the engine, by this network.
    pub fn through(&self, engine: &str) -> String {
        engine.replacen(&self.engine, &self.address.to_string(), 1)
    }

    /// Nothing passes, and nobody is told: connections stay open, what was sent arrives when the network is whole again.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, engine: String, is_cut: watch::Receiver<bool>) {
    if whole(&mut is_cut.clone()).await.is_none() {
        return;
    }
    let Ok(engine) = TcpStream::connect(engine).await else { return };
    let ((from_client, to_client), (from_engine, to_engine)) = (client.into_split(), engine.into_split());
    // Whichever side ends first takes the other along.
    tokio::select! {
        () = carry(from_client, to_engine, is_cut.clone()) => {}
        () = carry(from_engine, to_client, is_cut) => {}
    }
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut is_cut: watch::Receiver<bool>) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if whole(&mut is_cut).await.is_none() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Waits until the network is whole. None: the test is over.
async fn whole(is_cut: &mut watch::Receiver<bool>) -> Option<()> {
    is_cut.wait_for(|is_cut| !is_cut).await.ok().map(drop)
}
