//! The proxy forwards bytes and simulates network faults.

#![expect(clippy::unwrap_used, reason = "tests and their helpers")]

use std::{net::SocketAddr, time::Duration};

use devdb::Proxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

/// The maximum time to wait for data or for the end of a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a server that answers each byte with its name followed by the same byte.
async fn echo(name: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Ok(byte) = client.read_u8().await {
                    client.write_all(&[name, byte]).await.unwrap();
                }
            });
        }
    });
    address
}

async fn answer(client: &mut TcpStream) -> [u8; 2] {
    let mut answer = [0; 2];
    timeout(PATIENCE, client.read_exact(&mut answer)).await.unwrap().unwrap();
    answer
}

async fn asks(client: &mut TcpStream, byte: u8) -> [u8; 2] {
    client.write_u8(byte).await.unwrap();
    answer(client).await
}

#[tokio::test]
async fn another_target_is_for_new_connections() {
    let proxy = Proxy::start(echo(b'a').await).await.unwrap();
    let mut early = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(asks(&mut early, 1).await, [b'a', 1]);

    proxy.retarget(echo(b'b').await);
    let mut late = TcpStream::connect(proxy.address()).await.unwrap();

    assert_eq!(asks(&mut late, 2).await, [b'b', 2]);
    assert_eq!(asks(&mut early, 3).await, [b'a', 3]);
}

#[tokio::test]
async fn a_cut_ends_what_is_open_and_nothing_else() {
    let proxy = Proxy::start(echo(b'a').await).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(asks(&mut client, 1).await, [b'a', 1]);

    proxy.cut();

    assert_closed(&mut client).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(asks(&mut client, 2).await, [b'a', 2]);
    drop(proxy);
    assert_closed(&mut client).await;
}

#[tokio::test]
async fn a_black_hole_holds_everything_and_closes_nothing() {
    let proxy = Proxy::start(echo(b'a').await).await.unwrap();
    let mut open = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(asks(&mut open, 1).await, [b'a', 1]);

    proxy.black_hole(true);
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    for client in [&mut open, &mut new] {
        client.write_u8(2).await.unwrap();
        assert!(timeout(Duration::from_millis(100), client.read_u8()).await.is_err());
    }

    proxy.black_hole(false);
    for client in [&mut open, &mut new] {
        assert_eq!(answer(client).await, [b'a', 2]);
    }
}

#[tokio::test]
async fn a_connection_can_be_cut_inside_a_black_hole() {
    let proxy = Proxy::start(echo(b'a').await).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(asks(&mut client, 1).await, [b'a', 1]);

    proxy.black_hole(true);
    proxy.cut();

    assert_closed(&mut client).await;
}

#[tokio::test]
async fn a_delay_holds_up_each_piece_and_not_the_next_one_as_well() {
    const SENT: usize = 512 * 1024;
    let delay = Duration::from_millis(100);
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(server.local_addr().unwrap()).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut accepted, _) = server.accept().await.unwrap();
    proxy.delay(delay);

    let began = Instant::now();
    tokio::spawn(async move { client.write_all(&vec![7; SENT]).await });
    let mut received = Vec::new();
    timeout(PATIENCE, accepted.read_to_end(&mut received)).await.unwrap().unwrap();

    assert_eq!(received, vec![7; SENT]);
    assert!(began.elapsed() >= delay);
    assert!(began.elapsed() < 15 * delay, "the pieces waited for each other");
}

#[tokio::test]
async fn a_server_that_is_not_there_closes_the_connection() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(nobody).await.unwrap();

    assert_closed(&mut TcpStream::connect(proxy.address()).await.unwrap()).await;
}

async fn assert_closed(client: &mut TcpStream) {
    let read = timeout(PATIENCE, client.read_u8()).await.unwrap();
    assert!(read.is_err(), "the connection is open");
}
