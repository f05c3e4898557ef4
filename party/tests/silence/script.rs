//! What a probe says: a random play of everything that it could say, made of what it knows.

use std::time::Duration;

use party::{
    admission::{self, Hello, membership},
    encoding::Writer as _,
    key::{DiscoveryKey, FeedKey, PartyKey},
    replication,
    session::Session,
};

use crate::{common::random::Random, prober::Prober};

/// What a probe knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    /// Of the party that it wants to find.
    pub(crate) discovery_key: Option<DiscoveryKey>,
    pub(crate) party_key: Option<PartyKey>,
    pub(crate) feed_discovery_keys: Vec<DiscoveryKey>,
    pub(crate) feed_keys: Vec<FeedKey>,
    /// Names of channels and what was said in their handshakes, on other connections.
    pub(crate) recordings: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One thing that is said, on a channel of ours or on none.
#[derive(Clone, Debug)]
enum Said {
    Open { protocol: String, name: Vec<u8>, handshake: Vec<u8> },
    Message { channel: u64, message_type: u64, payload: Vec<u8> },
    Close { channel: u64 },
    Reject { channel: u64 },
}

impl Said {
    /// On which channel it travels, 0 for those that are about channels; and its bytes.
    fn encode(&self, next_channel: &mut u64) -> (u64, Vec<u8>) {
        let mut bytes = Vec::new();
        match self {
            Self::Open { protocol, name, handshake } => {
                bytes.push(1);
                bytes.put_uint(*next_channel);
                *next_channel += 1;
                bytes.put_string(protocol);
                bytes.put_optional_buffer((!name.is_empty()).then_some(name));
                bytes.extend_from_slice(handshake);
                (0, bytes)
            }
            Self::Message { channel, message_type, payload } => {
                bytes.put_uint(*message_type);
                bytes.extend_from_slice(payload);
                (*channel, bytes)
            }
            Self::Close { channel } => {
                bytes.push(3);
                bytes.put_uint(*channel);
                (0, bytes)
            }
            Self::Reject { channel } => {
                bytes.push(2);
                bytes.put_uint(*channel);
                (0, bytes)
            }
        }
    }
}

/// Whether a probe waits for an answer before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Settled,
    Crossing,
}

/// Plays a random script to its end. `next_channel` is the number of the probe's next channel.
pub(crate) async fn play(
    prober: &mut Prober,
    knowledge: &Knowledge,
    mut next_channel: u64,
    pace: Pace,
    random: &mut Random,
) {
    for _ in 0..1 + random.below(6) {
        let together = if random.below(3) == 0 { 2 + random.below(5) } else { 1 };
        let said: Vec<Said> =
            (0..together).map(|_| say(prober.session(), knowledge, next_channel, random)).collect();
        let message = encode(&said, &mut next_channel);
        prober.say(&message).await;
        match random.below(4) {
            // The next one crosses the answer.
            0 if pace == Pace::Crossing => {}
            0 | 1 => prober.listen(Duration::from_millis(1 + random.below(20))).await,
            2 => prober.listen(Duration::from_secs(1 + random.below(8))).await,
            _ => {
                let heard = prober.heard();
                for _ in 0..50 {
                    if prober.heard() > heard {
                        break;
                    }
                    prober.listen(Duration::from_millis(1)).await;
                }
            }
        }
    }
    match random.below(12) {
        0 => prober.say(&[]).await,
        // What can't be decrypted, and half a frame.
        1 => prober.say_raw(&[17, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]).await,
        2 => prober.say_raw(&[100, 0, 0, 1, 2, 3]).await,
        // What is no message.
        3 => prober.say(&[0, 0, 1, 200, 7]).await,
        4 => prober.say(&[0, 1, 0xfd, 0xff, 0xff, 1, b'x', 0]).await,
        5 => prober.say(&[0, 2, 99]).await,
        6 => prober.shut_down().await,
        _ => {}
    }
}

fn encode(said: &[Said], next_channel: &mut u64) -> Vec<u8> {
    let mut message = Vec::new();
    if let [alone] = said {
        let (channel, bytes) = alone.encode(next_channel);
        message.put_uint(channel);
        message.extend_from_slice(&bytes);
        return message;
    }
    message.extend_from_slice(&[0, 0]);
    let mut now_on = None;
    for said in said {
        let (channel, bytes) = said.encode(next_channel);
        if now_on != Some(channel) {
            if now_on.is_some() {
                message.put_uint(0);
            }
            message.put_uint(channel);
            now_on = Some(channel);
        }
        message.put_buffer(&bytes);
    }
    message
}

fn say(session: &Session, knowledge: &Knowledge, next_channel: u64, random: &mut Random) -> Said {
    let a_channel = |random: &mut Random| 1 + random.below(next_channel + 1);
    match random.below(10) {
        0 => Said::Message {
            channel: a_channel(random),
            message_type: random.below(12),
            payload: some_bytes(random, 200),
        },
        1 => Said::Close { channel: a_channel(random) },
        2 if random.below(20) == 0 => Said::Reject { channel: a_channel(random) },
        _ => {
            let protocol = match random.below(12) {
                0..5 => admission::PROTOCOL.to_owned(),
                5..9 => replication::PROTOCOL.to_owned(),
                9 => "hypercore".to_owned(),
                10 => String::new(),
                _ => "another/1".to_owned(),
            };
            let (name, handshake) = name_and_handshake(session, knowledge, random);
            Said::Open { protocol, name, handshake }
        }
    }
}

fn name_and_handshake(session: &Session, knowledge: &Knowledge, random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    // Now and then what belongs together, else anything with anything.
    if random.below(3) > 0 {
        if let Some(party) = &knowledge.party_key
            && random.below(2) == 0
        {
            let hello = Hello::new(membership::prove(session, party)).encode();
            return (membership::channel_id(session, party).to_vec(), hello);
        }
        if let Some(key) = pick(&knowledge.feed_keys, random) {
            return (key.discovery_key().as_bytes().to_vec(), replication::handshake(session, key));
        }
        if let Some(recording) = pick(&knowledge.recordings, random) {
            return recording.clone();
        }
    }
    let mut names = vec![a_hash(random), some_bytes(random, 40), vec![], session.remote.as_bytes().to_vec()];
    let mut handshakes = vec![
        Hello::new(a_hash(random).try_into().unwrap()).encode(),
        some_bytes(random, 80),
        vec![],
        replication::handshake(session, &FeedKey::from_bytes(a_hash(random).try_into().unwrap())),
        vec![0; 33],
    ];
    // As if a discovery key were the key.
    if let Some(discovery_key) = &knowledge.discovery_key {
        let key = PartyKey::from_bytes(*discovery_key.as_bytes());
        names.extend([discovery_key.as_bytes().to_vec(), membership::channel_id(session, &key).to_vec()]);
        handshakes.extend([
            Hello::new(*discovery_key.as_bytes()).encode(),
            Hello::new(membership::prove(session, &key)).encode(),
        ]);
    }
    for discovery_key in &knowledge.feed_discovery_keys {
        // Those are what it is about.
        names.extend(vec![discovery_key.as_bytes().to_vec(); 3]);
        let key = FeedKey::from_bytes(*discovery_key.as_bytes());
        handshakes.push(replication::handshake(session, &key));
    }
    for (name, handshake) in &knowledge.recordings {
        names.push(name.clone());
        handshakes.push(handshake.clone());
    }
    let name = pick(&names, random).cloned().unwrap_or_default();
    let handshake = pick(&handshakes, random).cloned().unwrap_or_default();
    (name, handshake)
}

fn pick<'a, T>(from: &'a [T], random: &mut Random) -> Option<&'a T> {
    from.get(random.below(from.len() as u64) as usize)
}

fn a_hash(random: &mut Random) -> Vec<u8> {
    (0..4).flat_map(|_| random.next().to_le_bytes()).collect()
}

fn some_bytes(random: &mut Random, most: u64) -> Vec<u8> {
    (0..random.below(most)).map(|_| random.next() as u8).collect()
}
