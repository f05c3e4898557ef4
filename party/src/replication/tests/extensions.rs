//! What applications say beside the replication.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    model::Model,
    pair::{Pair, channel, open},
};
use crate::{
    error::{ApiMisuse, Error},
    limits::Limits,
    replication::{
        Channel, Options, Output,
        messages::{Extension, Message},
    },
};

fn name(name: &str) -> Arc<str> {
    name.into()
}

/// Nothing here depends on the time.
fn now() -> Instant {
    Instant::now()
}

fn pair() -> Pair<Model> {
    let mut pair = Pair::new([Model::writer(3), Model::reader()], [Options::default(); 2]);
    pair.run().unwrap();
    pair
}

fn extension(name: &str, message: &'static str) -> Extension {
    Extension { name: name.to_owned(), message: Bytes::from_static(message.as_bytes()) }
}

/// What comes out of `channel` when these messages have come in.
fn receive(channel: &mut Channel, messages: Vec<Extension>) -> Vec<(String, Bytes)> {
    let local = Model::reader();
    for message in messages {
        let message = Message::Extension(message);
        channel.handle_message(message.message_type(), message.encode(), &local, now()).unwrap();
    }
    std::iter::from_fn(|| channel.poll_output(&local, now()))
        .filter_map(|output| match output {
            Output::Extension { name, message } => Some((name.to_string(), message)),
            _ => None,
        })
        .collect()
}

//= REPL-68
#[test]
fn a_name_is_left_out_if_it_is_that_of_the_message_before() {
    let mut pair = pair();
    for (n, (extension, message)) in
        [("a", "1"), ("a", "2"), ("b", "3"), ("a", "4"), ("a", "5")].into_iter().enumerate()
    {
        let end = &mut pair.ends[n % 2];
        end.channel.send_extension(&name(extension), message.into()).unwrap();
    }
    pair.run().unwrap();
    let written = |n: usize| -> Vec<String> {
        let sent = pair.ends[n].sent.iter();
        sent.filter_map(|message| match message {
            Message::Extension(Extension { name, .. }) => Some(name.clone()),
            _ => None,
        })
        .collect()
    };
    // Each direction for itself.
    assert_eq!(
        (written(0), written(1)),
        (["a", "b", "a"].map(String::from).to_vec(), vec!["a".into(), "".into()])
    );
    let heard = |n: usize| -> Vec<(&str, &[u8])> {
        pair.ends[n].said.iter().map(|(name, message)| (name.as_str(), message.as_ref())).collect()
    };
    assert_eq!(heard(1), [("a", b"1".as_slice()), ("b", b"3"), ("a", b"5")]);
    assert_eq!(heard(0), [("a", b"2".as_slice()), ("a", b"4")]);
    let [a, b] = &pair.ends;
    assert_eq!((a.status().counters.sent.extension, b.status().counters.received.extension), (3, 3));
}

#[test]
fn nothing_is_said_before_the_channel_is_open() {
    let mut channel = channel(true, Options::default(), &Limits::default());
    assert!(matches!(channel.send_extension(&name("a"), "x".into()), Err(Error::Closed)));
}

#[test]
fn a_flood_is_cut_off_and_counted() {
    let limits = Limits {
        max_queued_extensions: 3,
        max_queued_extension_bytes: 10,
        max_extension_message: 8,
        max_extension_name: 4,
        ..Limits::default()
    };
    let local = Model::reader();
    let mut channel = open(true, Options::default(), &limits, &local);
    let came = receive(&mut channel, vec![extension("a", "x"); 5]);
    assert_eq!(came.len(), 3);
    let came =
        receive(&mut channel, vec![extension("a", "1234567"), extension("a", "1234"), extension("a", "123")]);
    assert_eq!(came.iter().map(|(_, message)| message.len()).collect::<Vec<_>>(), [7, 3]);
    assert_eq!(receive(&mut channel, vec![extension("a", "123456789")]), []);
    assert_eq!(channel.status(&local).counters.dropped_extensions, 4);
}

//= REPL-72
#[test]
fn a_name_that_is_too_long_takes_those_that_leave_it_out_along() {
    let limits = Limits { max_extension_name: 4, ..Limits::default() };
    let mut channel = open(true, Options::default(), &limits, &Model::reader());
    let messages = [("", "0"), ("abcd", "1"), ("abcde", "2"), ("", "3"), ("b", "4"), ("", "5")]
        .map(|(n, m)| extension(n, m));
    let came = receive(&mut channel, messages.to_vec());
    let names: Vec<&str> = came.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["abcd", "b", "b"]);
    assert_eq!(channel.status(&Model::reader()).counters.dropped_extensions, 3);
}

#[test]
fn what_can_not_be_said_is_an_error() {
    let limits = Limits { max_queued_extensions: 1, max_extension_message: 5, ..Limits::default() };
    let local = Model::reader();
    let mut channel = open(true, Options::default(), &limits, &local);
    let too_long = "n".repeat(limits.max_extension_name + 1);
    for (extension, message, limit) in [
        ("", "x", "max_extension_name"),
        (too_long.as_str(), "x", "max_extension_name"),
        ("a", "123456", "max_extension_message"),
    ] {
        let result = channel.send_extension(&name(extension), message.into());
        assert!(matches!(result, Err(Error::ApiMisuse(ApiMisuse::LimitExceeded(name))) if name == limit));
    }
    assert!(channel.takes_extensions());
    channel.send_extension(&name("a"), "x".into()).unwrap();
    assert!(!channel.takes_extensions() && channel.send_extension(&name("a"), "x".into()).is_err());
    // It waits while the remote takes nothing.
    channel.set_writable(false);
    assert!(std::iter::from_fn(|| channel.poll_output(&local, now())).all(|output| !is_extension(&output)));
    channel.set_writable(true);
    assert!(std::iter::from_fn(|| channel.poll_output(&local, now())).any(|output| is_extension(&output)));
}

fn is_extension(output: &Output) -> bool {
    matches!(output, Output::Send { message_type: 9, .. })
}
