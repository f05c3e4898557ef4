//! The party channel.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Group, Recorder};
use crate::{
    runner::speech::{self, bytes, number, transaction, varint},
    vectors::{Area, Bytes, Refusal},
};

/// 2^53 - 1.
const SAFE: u64 = (1 << 53) - 1;
const LIMIT: usize = 1 << 20;

pub(super) fn record() -> Result<Area> {
    let mut recorder = Recorder::new(
        "party",
        "The party channel: channel ids and proofs, the Hello of an open, messages, and transactions",
    );
    values(&mut recorder)?;
    messages(&mut recorder)?;
    broken(&mut recorder)?;
    transactions(&mut recorder)?;
    recorder.finish()
}

fn binding(n: u8) -> Bytes {
    Bytes((0..64).map(|at| at + n).collect())
}

fn values(recorder: &mut Recorder) -> Result<()> {
    let shown = |key: u8, n: u8| json!({ "party_key": Bytes::from([key; 32]), "binding": binding(n) });
    let mut proofs = Vec::new();
    let keys = [(0x70, 0), (0x70, 1), (0x71, 0), (0, 0), (0xff, 190)];
    let about = "What a member computes of the party key and the binding of a connection.";
    let mut group = recorder.about("values", about, &["PARTY-1", "PARTY-5"]);
    for (key, n) in keys {
        let values =
            group.accept(format!("the key {key:02x}.., a binding from {n:02x} on"), shown(key, n))?;
        let proof = |role: &str| -> Result<Bytes> { Ok(serde_json::from_value(values[role].clone())?) };
        proofs.push((
            (key, n),
            [proof("proof_of_responder")?, proof("proof_of_initiator")?],
            proof("channel_id")?,
        ));
    }
    for ((key, n), [of_responder, of_initiator], channel_id) in proofs {
        for (initiator, ours, theirs) in
            [(true, &of_initiator, &of_responder), (false, &of_responder, &of_initiator)]
        {
            let role = if initiator { "initiator" } else { "responder" };
            let of = format!("{role} of the key {key:02x}.. and a binding from {n:02x} on");
            let hello = |bytes: Vec<u8>| {
                let mut input = shown(key, n);
                input["initiator"] = json!(initiator);
                input["bytes"] = json!(Bytes(bytes));
                input
            };
            let about = "A Hello of this role on this connection.";
            let mut good = recorder.about("hello", about, &["PARTY-5", "PARTY-9", "PARTY-44"]);
            good.accept(format!("as it should be: {of}"), hello(speech::hello(1, 0, ours)))?;
            for features in [1, 1 << 40, u64::MAX] {
                good.accept(
                    format!("with the features {features}: {of}"),
                    hello(speech::hello(1, features, ours)),
                )?;
            }
            let longer = [speech::hello(1, 0, ours), number(4, 1), bytes(15, b"more")].concat();
            good.accept(format!("with unknown fields: {of}"), hello(longer))?;
            let backwards = [bytes(3, ours), number(1, 1)].concat();
            good.accept(format!("with its fields in another order: {of}"), hello(backwards))?;

            let about = "A Hello whose proof is not that of this role on this connection.";
            let mut wrong = recorder.about("hello", about, &["PARTY-8", "PARTY-15"]);
            let mut flipped = ours.clone();
            flipped.0[31] ^= 1;
            let proofs: [(&str, &[u8]); 8] = [
                ("an echo of the other role's proof", theirs),
                ("a proof with its last bit flipped", &flipped),
                ("a proof cut short", &ours[..31]),
                ("no proof", &[]),
                ("a proof with a byte after it", &[ours, &[0][..]].concat()),
                ("the channel's id as the proof", &channel_id),
                ("the party key as the proof", &[key; 32]),
                ("zeros as the proof", &[0; 32]),
            ];
            for (name, proof) in proofs {
                if key != 0 || name != "the party key as the proof" {
                    wrong.refuse(
                        format!("{name}: {of}"),
                        Refusal::Channel,
                        hello(speech::hello(1, 0, proof)),
                    )?;
                }
            }
            let mut other = recorder.about("hello", "A Hello of another version.", &["PARTY-7", "PARTY-15"]);
            for version in [0, 2, 3, u64::from(u32::MAX)] {
                let input = hello(speech::hello(version, 0, ours));
                other.refuse(format!("the version {version}: {of}"), Refusal::Channel, input)?;
            }
            other.refuse(format!("no version: {of}"), Refusal::Channel, hello(bytes(3, ours)))?;
            let mut none =
                recorder.about("hello", "What is not the protobuf of a Hello.", &["PARTY-6", "PARTY-15"]);
            let whole = speech::hello(1, 0, ours);
            for cut in [1, 2, 3, 20, whole.len() - 1] {
                none.refuse(
                    format!("cut after {cut} bytes: {of}"),
                    Refusal::Channel,
                    hello(whole[..cut].to_vec()),
                )?;
            }
            let bytes = [bytes(1, &[1]), bytes(3, ours)].concat();
            none.refuse(format!("a version that is bytes: {of}"), Refusal::Channel, hello(bytes))?;
        }
    }
    Ok(())
}

fn received(message_type: u64, bytes: impl Into<Vec<u8>>) -> Value {
    json!({ "type": message_type, "bytes": Bytes(bytes.into()) })
}

const KEYS: [[u8; 32]; 4] = [[1; 32], [2; 32], [3; 32], [0xff; 32]];

fn messages(recorder: &mut Recorder) -> Result<()> {
    let about = "An introduction: keys in their order, and labels.";
    let mut group = recorder.about("message", about, &["PARTY-67", "PARTY-68"]);
    for count in 0..=4 {
        let bytes = speech::introduces(1, &KEYS[..count], &[]);
        group.accept(
            format!("a request that introduces {count} feeds"),
            received(speech::REQUEST, bytes.clone()),
        )?;
        group
            .accept(format!("an answer that introduces {count} feeds"), received(speech::RESPONSE, bytes))?;
    }
    let long = "l".repeat(256);
    let labels: [(&str, usize, &[&str]); 7] = [
        ("the first has a label", 1, &["notes"]),
        ("only the second has a label", 2, &["", "notes"]),
        ("both have labels", 2, &["one", "two"]),
        ("a list of labels that is shorter", 3, &["one"]),
        ("empty labels", 2, &["", ""]),
        ("a label that is not ASCII", 1, &["Grüße 🦆"]),
        ("a label of 256 bytes", 1, &[&long]),
    ];
    let mut group = recorder.about("message", about, &["PARTY-68", "PARTY-70"]);
    for (name, keys, labels) in labels {
        let bytes = speech::introduces(1, &KEYS[..keys], labels);
        group.accept(format!("introduced: {name}"), received(speech::REQUEST, bytes))?;
    }
    let about = "A value of the application's, with its type.";
    let mut group = recorder.about("message", about, &["PARTY-72", "PARTY-74"]);
    for (kind, value) in
        [("word", &b"party"[..]), ("", b""), ("Grüße", &[0, 255]), ("word", b""), ("", b"value")]
    {
        let name = format!("of the type {kind:?} with {} bytes", value.len());
        group.accept(format!("a request {name}"), received(speech::REQUEST, speech::asks(1, kind, value)))?;
        group
            .accept(format!("an answer {name}"), received(speech::RESPONSE, speech::asks(2, kind, value)))?;
        group.accept(
            format!("an ephemeral message {name}"),
            received(speech::EPHEMERAL, speech::ephemeral(kind, value)),
        )?;
    }
    group.accept("an ephemeral message without a value", received(speech::EPHEMERAL, []))?;
    for size in [127, 128, 16_383, 16_384, 65_536] {
        let bytes = speech::ephemeral("large", &vec![7; size]);
        group.accept(format!("an ephemeral message of {size} bytes"), received(speech::EPHEMERAL, bytes))?;
    }
    let mut group = recorder.about(
        "message",
        "Ids count from 1, in any steps, up to 2^53 - 1.",
        &["PARTY-54", "PARTY-55"],
    );
    for id in [2, 127, 128, 1 << 14, 1 << 21, u64::from(u32::MAX), 1 << 32, SAFE - 1, SAFE] {
        group.accept(
            format!("a request with the id {id}"),
            received(speech::REQUEST, speech::asks(id, "word", b"")),
        )?;
    }
    for id in [0, SAFE + 1, 1 << 63, u64::MAX] {
        let input = received(speech::REQUEST, speech::asks(id, "word", b""));
        group.refuse(format!("a request with the id {id}"), Refusal::Channel, input)?;
    }
    group.refuse("a request without an id", Refusal::Channel, received(speech::REQUEST, bytes(3, b"")))?;

    let mut group = recorder.about(
        "message",
        "A body of a kind that isn't known is seen as none, and a request with it is answered by UNSUPPORTED.",
        &["PARTY-44", "PARTY-61"],
    );
    group.accept("a request without a body", received(speech::REQUEST, number(1, 1)))?;
    group.accept(
        "a request with a body of the field 4",
        received(speech::REQUEST, transaction(1, 4, b"new")),
    )?;
    group.accept(
        "a request with a number in the field 9",
        received(speech::REQUEST, [number(1, 1), number(9, 1)].concat()),
    )?;

    let about = "An answer that says that there is none. A code that isn't known counts as REFUSED.";
    let mut group = recorder.about("message", about, &["PARTY-65"]);
    for code in [1, 2, 3, 4, 0, 5, 127, 1 << 20, u64::from(u32::MAX >> 1), u64::MAX] {
        group.accept(
            format!("an error with the code {code}"),
            received(speech::ERROR, speech::failure(1, code)),
        )?;
    }
    group.accept("an error without a code", received(speech::ERROR, number(1, 2)))?;
    let reason = [speech::failure(2, 1), bytes(3, "why not".as_bytes())].concat();
    group.accept("an error with a reason", received(speech::ERROR, reason))?;

    let mut group = recorder.about("message", "The sender is done.", &["PARTY-80"]);
    group.accept("Finish", received(speech::FINISH, []))?;
    group.accept("Finish with a field that isn't known", received(speech::FINISH, number(1, 1)))?;

    let mut group =
        recorder.about("message", "Other types are passed over, whatever is in them.", &["PARTY-43"]);
    for message_type in [5, 6, 127, 252, 65_536, SAFE] {
        group
            .accept(format!("a message of the type {message_type}"), received(message_type, [0xff, 0xff]))?;
    }

    let mut group = recorder.about("message", "Unknown fields are passed over.", &["PARTY-44"]);
    let asked = speech::asks(1, "word", b"party");
    let unknown: [(&str, Vec<u8>); 6] = [
        ("a number", number(15, 7)),
        ("bytes", bytes(16, b"more")),
        ("eight bytes", [varint(17 << 3 | 1), vec![0; 8]].concat()),
        ("four bytes", [varint(18 << 3 | 5), vec![0; 4]].concat()),
        ("a high number", number(536_870_911, 1)),
        ("a field twice", [number(15, 7), number(15, 8)].concat()),
    ];
    for (name, field) in unknown {
        let after = [asked.clone(), field.clone()].concat();
        let before = [field, asked.clone()].concat();
        group.accept(format!("a request with {name} after its fields"), received(speech::REQUEST, after))?;
        group
            .accept(format!("a request with {name} before its fields"), received(speech::REQUEST, before))?;
    }
    let twice = [number(1, 9), asked.clone()].concat();
    group.accept("a request with its id twice: the last counts", received(speech::REQUEST, twice))?;
    let inside = transaction(1, 3, &[speech::custom("word", b"party"), number(7, 1)].concat());
    group.accept("a request with an unknown field in its value", received(speech::REQUEST, inside))?;
    Ok(())
}

/// What a receiver closes the channel for.
fn broken(recorder: &mut Recorder) -> Result<()> {
    let refused = Refusal::Channel;
    let mut group = recorder.about(
        "message",
        "A payload that is not its protobuf closes the channel.",
        &["PARTY-45", "PARTY-52"],
    );
    let whole: [(&str, u64, Vec<u8>); 5] = [
        ("a request with an introduction", speech::REQUEST, speech::introduces(1, &KEYS[..1], &["notes"])),
        ("a request with a value", speech::REQUEST, speech::asks(1, "word", b"party")),
        ("an answer", speech::RESPONSE, speech::asks(2, "word", b"ytrap")),
        ("an error", speech::ERROR, [number(1, 1 << 14), number(2, 300)].concat()),
        ("an ephemeral message", speech::EPHEMERAL, speech::ephemeral("mood", &[1, 2])),
    ];
    for (name, message_type, bytes) in &whole {
        for length in 1..bytes.len() {
            let cut = received(*message_type, &bytes[..length]);
            // Between two fields it is another message.
            if is_whole(&bytes[..length]) {
                continue;
            }
            group.refuse(format!("{name}, cut after {length} bytes"), refused, cut)?;
        }
    }
    let wrong: [(&str, u64, Vec<u8>); 14] = [
        ("an id that is bytes", speech::REQUEST, bytes(1, b"1")),
        ("an introduction that is a number", speech::REQUEST, [number(1, 1), number(2, 1)].concat()),
        ("a value that is a number", speech::REQUEST, [number(1, 1), number(3, 1)].concat()),
        ("a key that is a number", speech::REQUEST, transaction(1, 2, &number(1, 1))),
        ("a label that is a number", speech::REQUEST, transaction(1, 2, &number(2, 1))),
        ("a type that is a number", speech::REQUEST, transaction(1, 3, &number(1, 1))),
        ("a type that is no UTF-8", speech::REQUEST, transaction(1, 3, &bytes(1, &[0xff]))),
        (
            "a label that is no UTF-8",
            speech::REQUEST,
            transaction(1, 2, &[bytes(1, &[1; 32]), bytes(2, &[0xc0, 0x80])].concat()),
        ),
        ("a reason that is no UTF-8", speech::ERROR, [number(1, 1), bytes(3, &[0xff])].concat()),
        ("a code that is bytes", speech::ERROR, [number(1, 1), bytes(2, b"1")].concat()),
        ("a field with the number 0", speech::FINISH, number(0, 1)),
        ("a number of eleven bytes", speech::REQUEST, [vec![8], vec![0x80; 10], vec![1]].concat()),
        ("a field of the wire type 7", speech::FINISH, vec![0x0f]),
        ("an ephemeral value that is a number", speech::EPHEMERAL, number(1, 1)),
    ];
    for (name, message_type, bytes) in wrong {
        group.refuse(name, refused, received(message_type, bytes))?;
    }
    let mut group = recorder.about("message", "A feed key has 32 bytes.", &["PARTY-46"]);
    for length in [0, 1, 31, 33, 64] {
        let keys = bytes(1, &vec![1; length]);
        group.refuse(
            format!("a key of {length} bytes"),
            refused,
            received(speech::REQUEST, transaction(1, 2, &keys)),
        )?;
        let answer = received(speech::RESPONSE, transaction(1, 2, &keys));
        group.refuse(format!("an answer with a key of {length} bytes"), refused, answer)?;
    }
    let mut group = recorder.about("message", "There are no more labels than keys.", &["PARTY-69"]);
    for (keys, labels) in [(0, &["one"][..]), (1, &["one", "two"]), (1, &["", ""]), (0, &[""])] {
        let input = received(speech::REQUEST, speech::introduces(1, &KEYS[..keys], labels));
        group.refuse(format!("{} labels, of {labels:?}, to {keys} keys", labels.len()), refused, input)?;
    }
    let about =
        "A payload of 1 MiB is taken; one byte more, or a label of more than 256 bytes, closes the channel.";
    let mut group = recorder.about("message", about, &["PARTY-47", "PARTY-48"]);
    let head = speech::ephemeral("", &[]).len();
    let largest = speech::ephemeral("", &vec![0; LIMIT - head - 4]);
    group.accept("a payload of almost 1 MiB", received(speech::EPHEMERAL, largest))?;
    let larger = received(
        speech::EPHEMERAL,
        [speech::ephemeral("", &vec![0; LIMIT - 20]), number(9, 1), vec![0; 32]].concat(),
    );
    group.refuse("a payload of more than 1 MiB", refused, larger)?;
    for length in [257, 1000] {
        let input =
            received(speech::REQUEST, speech::introduces(1, &KEYS[..1], &["l".repeat(length).as_str()]));
        group.refuse(format!("a label of {length} bytes"), refused, input)?;
    }
    let about =
        "An answer is of the kind of the request: the requests were an introduction, 1, and a custom one, 2.";
    let mut group = recorder.about("message", about, &["PARTY-59", "PARTY-60"]);
    group.refuse(
        "a value in answer to an introduction",
        refused,
        received(speech::RESPONSE, speech::asks(1, "word", b"")),
    )?;
    group.refuse(
        "an introduction in answer to a value",
        refused,
        received(speech::RESPONSE, speech::introduces(2, &[], &[])),
    )?;
    for id in [1, 2] {
        group.refuse(
            format!("an answer to {id} without a body"),
            refused,
            received(speech::RESPONSE, number(1, id)),
        )?;
        let other = transaction(id, 4, b"new");
        group.refuse(
            format!("an answer to {id} of a kind that isn't known"),
            refused,
            received(speech::RESPONSE, other),
        )?;
    }
    Ok(())
}

/// Whether these are whole fields.
fn is_whole(bytes: &[u8]) -> bool {
    speech::fields(bytes).is_ok()
}

fn transactions(recorder: &mut Recorder) -> Result<()> {
    let custom = |kind: &str| json!({ "custom": { "type": kind, "value": "" } });
    let ask = |kind: &str| json!({ "do": "ask", "body": custom(kind) });
    let hear = |message_type: u64, bytes: Vec<u8>| json!({ "do": "receive", "type": message_type, "bytes": Bytes(bytes) });
    let asked = |id: u64| hear(speech::REQUEST, speech::asks(id, "word", b""));
    let answer = |id: u64| hear(speech::RESPONSE, speech::asks(id, "answer", &[id as u8]));
    let play = |group: &mut Group<'_>, name: &str, steps: Vec<Value>| -> Result<()> {
        group.accept(name, json!({ "steps": steps })).map(drop).with_context(|| name.to_owned())
    };
    let about = "Our requests count from 1, run at the same time, and are answered in any order.";
    let mut group = recorder.about("transactions", about, &["PARTY-53", "PARTY-56"]);
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [2, 1, 3]] {
        let mut steps: Vec<Value> = ["one", "two", "three"].into_iter().map(ask).collect();
        steps.extend(order.map(answer));
        play(&mut group, &format!("answered in the order {order:?}"), steps)?;
    }
    let refusals = (1..=4).map(|code| hear(speech::ERROR, speech::failure(code, code)));
    let steps = (1..=4).map(|n| ask(&n.to_string())).chain(refusals).collect();
    play(&mut group, "refused with each code", steps)?;

    let about = "The ids of a peer's requests grow, in any steps.";
    let mut group = recorder.about("transactions", about, &["PARTY-55"]);
    play(&mut group, "ids with gaps", [1, 2, 7, 1 << 20, SAFE].map(asked).to_vec())?;
    for ids in [[1, 1], [2, 1], [1 << 40, 5], [SAFE, SAFE]] {
        let steps = json!({ "steps": ids.map(asked) });
        group.refuse(format!("the id {} after {}", ids[1], ids[0]), Refusal::Channel, steps)?;
    }
    let about = "We answer in any order, by what the application says, each once.";
    let mut group = recorder.about("transactions", about, &["PARTY-56", "PARTY-59"]);
    let respond = |n: usize| json!({ "do": "respond", "request": n, "body": custom("answer") });
    for order in [[0, 1], [1, 0]] {
        let steps = [1, 5].map(asked).into_iter().chain(order.map(respond)).collect();
        play(&mut group, &format!("answers in the order {order:?}"), steps)?;
    }
    play(&mut group, "answered twice: the second is not sent", vec![asked(1), respond(0), respond(0)])?;
    for code in 1..=4 {
        let steps = vec![asked(3), json!({ "do": "refuse", "request": 0, "code": code })];
        play(&mut group, &format!("refused with the code {code}"), steps)?;
    }
    let introduced = hear(speech::REQUEST, speech::introduces(1, &KEYS[..2], &["one"]));
    let body = json!({ "introduce_feeds": [{ "key": Bytes::from(KEYS[2]), "label": "three" }, { "key": Bytes::from(KEYS[3]) }] });
    play(
        &mut group,
        "an introduction is answered",
        vec![introduced, json!({ "do": "respond", "request": 0, "body": body })],
    )?;

    let about = "64 requests of a peer may be open. Those beyond are answered BUSY at once, until others have been answered.";
    let mut group = recorder.about("transactions", about, &["PARTY-57", "PARTY-58"]);
    play(&mut group, "64 requests", (1..=64).map(asked).collect())?;
    let steps = (1..=66).map(asked).chain([respond(0), asked(67), asked(68)]).collect();
    play(&mut group, "66 requests, then an answer, then two more", steps)?;

    let about = "Answers to what was never asked are passed over and counted, up to 16.";
    let mut group = recorder.about("transactions", about, &["PARTY-63"]);
    play(&mut group, "16 answers to nothing", (1..=16).map(answer).collect())?;
    let steps: Vec<Value> = (1..=17).map(answer).collect();
    group.refuse("17 answers to nothing", Refusal::Channel, json!({ "steps": steps }))?;
    let mixed: Vec<Value> = (1..=17)
        .map(|id| if id % 2 == 0 { answer(id) } else { hear(speech::ERROR, speech::failure(id, 1)) })
        .collect();
    group.refuse("17 answers and errors to nothing", Refusal::Channel, json!({ "steps": mixed }))?;
    play(&mut group, "an answer twice counts", vec![ask("one"), answer(1), answer(1)])?;

    let about = "A request is given up after 30 seconds, and what comes later is passed over.";
    let mut group = recorder.about("transactions", about, &["PARTY-62"]);
    let wait = |seconds: u64| json!({ "do": "wait", "seconds": seconds });
    play(&mut group, "given up", vec![ask("one"), wait(29), wait(1), answer(1)])?;
    play(&mut group, "an answer in time", vec![ask("one"), wait(29), answer(1), wait(2)])?;
    play(
        &mut group,
        "one is given up and one is not",
        vec![ask("one"), wait(20), ask("two"), wait(10), answer(1), answer(2)],
    )?;

    let about = "Any later message of a known type takes a Finish back.";
    let mut group = recorder.about("transactions", about, &["PARTY-80", "PARTY-81"]);
    let finish = || hear(speech::FINISH, vec![]);
    let ephemeral = || hear(speech::EPHEMERAL, speech::ephemeral("mood", b"x"));
    play(&mut group, "Finish", vec![finish(), finish()])?;
    play(&mut group, "Finish taken back by an ephemeral message", vec![finish(), ephemeral(), finish()])?;
    play(&mut group, "Finish taken back by a request", vec![finish(), asked(1)])?;
    play(&mut group, "Finish taken back by an answer", vec![ask("one"), finish(), answer(1)])?;
    play(&mut group, "Finish and a message of an unknown type", vec![finish(), hear(9, vec![1])])?;
    let ours = json!({ "do": "finish" });
    let said = json!({ "do": "ephemeral", "message": { "type": "mood", "value": "0102" } });
    play(&mut group, "our own Finish, said once", vec![ours.clone(), ours.clone()])?;
    play(&mut group, "our own Finish, said again after more", vec![ours.clone(), said, ours])?;
    Ok(())
}
