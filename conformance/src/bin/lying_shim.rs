//! Shims that lie, for the runner's own test: `conformance/tests/runner.rs` shows that they fail.
//!
//! They say `ok` to every command, have every feature, and are good peers up to the secret stream. From there on one accepts
//! every channel and one rejects every channel; a third does not even shake hands.

#![allow(clippy::print_stdout)] // it speaks on standard output

use anyhow::{Context as _, Result};
use bytes::BytesMut;
use conformance::runner::Feature;
use party::{
    hash::hash,
    key::KeyPair,
    limits::Limits,
    mux::{Event, Mux},
    noise::{Handshake, HandshakeConfig, Progress},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Accepts,
    Rejects,
    Deaf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let manner = match std::env::args().nth(1).as_deref() {
        Some("accepts") => Manner::Accepts,
        Some("rejects") => Manner::Rejects,
        _ => Manner::Deaf,
    };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut key_pair = KeyPair::generate();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["hello", ..] => {
                let features: Vec<&str> = Feature::ALL.iter().map(|feature| feature.name()).collect();
                println!("ok 1 liar {}", features.join(" "));
            }
            ["quit"] => return Ok(println!("ok")),
            ["key", word] => {
                let seed = u8::from_str_radix(&word[..2], 16)?;
                key_pair = KeyPair::from_seed(&[seed; 32]);
                println!("ok {}", key_pair.public());
            }
            ["listen"] => {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
                println!("ok {}", listener.local_addr()?.port());
                let key_pair = key_pair.clone();
                tokio::spawn(async move {
                    while let Ok((io, _)) = listener.accept().await {
                        tokio::spawn(lie(io, false, key_pair.clone(), manner));
                    }
                });
            }
            ["dial", port] => {
                let io = TcpStream::connect(("127.0.0.1", port.parse()?)).await?;
                tokio::spawn(lie(io, true, key_pair.clone(), manner));
                println!("ok");
            }
            ["create", ..] => println!("ok {0} {0}", "07".repeat(32)),
            ["append", _, ref blocks @ ..] => println!("ok {}", blocks.len()),
            ["state", ..] => println!("ok 0 0"),
            ["get", ..] => println!("ok absent"),
            ["request" | "introduce", ..] => println!("ok 1"),
            _ => println!("ok"),
        }
    }
    Ok(())
}

async fn lie(mut io: TcpStream, is_initiator: bool, key_pair: KeyPair, manner: Manner) -> Result<()> {
    if manner == Manner::Deaf {
        let mut nowhere = vec![0; 1024];
        while io.read(&mut nowhere).await? > 0 {}
        return Ok(());
    }
    let limits = Limits::default();
    let seed = hash(&[io.peer_addr()?.to_string().as_bytes()]);
    let mut handshake = Handshake::new(HandshakeConfig::xx(is_initiator, key_pair, seed), &limits)?;
    let mut input = BytesMut::new();
    let mut stream = loop {
        if let Some(bytes) = handshake.poll_transmit() {
            io.write_all(&bytes).await?;
        }
        anyhow::ensure!(io.read_buf(&mut input).await? > 0);
        match handshake.handle_input(&mut input)? {
            Progress::Pending(next) => handshake = next,
            Progress::Established(stream) => break stream,
        }
    };
    println!("event connected {}", stream.session().remote);
    println!("event admitted a {}", stream.session().remote);
    let mut mux = Mux::new(&limits);
    loop {
        stream.handle_input(&mut input)?;
        while let Some(message) = stream.poll_message() {
            mux.handle_message(message);
            while let Some(event) = mux.poll_event()? {
                match event {
                    Event::Incoming { incoming, handshake, .. } if manner == Manner::Accepts => {
                        mux.accept(incoming, &handshake)?;
                    }
                    Event::Incoming { incoming, .. } => mux.reject(incoming),
                    Event::Message { channel, message_type, payload } => {
                        mux.send(channel, message_type, &payload)?;
                    }
                    _ => {}
                }
            }
        }
        while let Some(message) = mux.poll_transmit() {
            stream.seal(&message)?;
        }
        io.write_all(&stream.outgoing().split()).await.context("the runner is gone")?;
        if io.read_buf(&mut input).await? == 0 {
            return Ok(println!("event ended clean"));
        }
    }
}
