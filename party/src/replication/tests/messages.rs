//! The messages' encoding, both ways.

use bytes::Bytes;
use proptest::prelude::*;

use crate::{
    encoding::{MAX_SAFE_INTEGER, Writer as _},
    error::DecodeError,
    feed::{
        manifest::Manifest,
        proof::{
            BlockProof, BlockRequest, HashProof, Node, Proof, ProofRequest, SeekProof, SeekRequest,
            UpgradeProof, UpgradeRequest,
        },
    },
    key::{FeedKey, PublicKey},
    limits::Limits,
    replication::messages::{
        Bitfield, Data, Extension, Message, NoData, REASON_UNKNOWN, Range, Request, Sync, Want,
    },
};

fn uint() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, 0..=MAX_SAFE_INTEGER, Just(MAX_SAFE_INTEGER)]
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let node = (uint(), uint(), any::<[u8; 32]>()).prop_map(|(index, size, hash)| Node { index, size, hash });
    prop::collection::vec(node, 0..5)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let linked = prop::option::of(prop::collection::vec(any::<[u8; 32]>(), 0..3));
    (any::<[u8; 32]>(), 0..3_u8, any::<bool>(), linked, prop::option::of(bytes())).prop_map(
        |(key, version, patch, linked, user_data)| {
            let mut manifest = Manifest::single(PublicKey::from_bytes(key));
            manifest.version = version;
            manifest.allow_patch = patch;
            if version > 0 {
                manifest.linked = linked.map(|keys| keys.into_iter().map(FeedKey::from_bytes).collect());
                manifest.user_data = user_data;
            }
            manifest
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let part = || prop::option::of((uint(), uint()));
    (uint(), uint(), part(), part(), part(), part(), any::<bool>(), 0..3_u64).prop_map(
        |(id, fork, block, hash, seek, upgrade, manifest, priority)| Request {
            id,
            fork,
            proof: ProofRequest {
                block: block.map(|(index, nodes)| BlockRequest { index, nodes }),
                hash: hash.map(|(index, nodes)| BlockRequest { index, nodes }),
                seek: seek.map(|(bytes, padding)| SeekRequest { bytes, padding }),
                upgrade: upgrade.map(|(start, length)| UpgradeRequest { start, length }),
                manifest,
            },
            priority,
        },
    )
}

fn data() -> impl Strategy<Value = Data> {
    let block = prop::option::of((uint(), bytes(), nodes()));
    let hash = prop::option::of((uint(), nodes()));
    let seek = prop::option::of((uint(), nodes()));
    let upgrade = prop::option::of((uint(), uint(), nodes(), nodes(), bytes()));
    (uint(), uint(), block, hash, seek, upgrade, prop::option::of(manifest())).prop_map(
        |(request, fork, block, hash, seek, upgrade, manifest)| Data {
            request,
            proof: Proof {
                fork,
                block: block.map(|(index, value, nodes)| BlockProof { index, value, nodes }),
                hash: hash.map(|(index, nodes)| HashProof { index, nodes }),
                seek: seek.map(|(bytes, nodes)| SeekProof { bytes, nodes }),
                upgrade: upgrade.map(|(start, length, nodes, additional_nodes, signature)| {
                    Box::new(UpgradeProof { start, length, nodes, additional_nodes, signature })
                }),
                manifest: manifest.map(Box::new),
            },
        },
    )
}

fn sync() -> impl Strategy<Value = Sync> {
    (uint(), uint(), uint(), any::<[bool; 5]>()).prop_map(|(fork, length, remote_length, flags)| {
        let [can_upgrade, uploading, downloading, has_manifest, allow_push] = flags;
        Sync { fork, length, remote_length, can_upgrade, uploading, downloading, has_manifest, allow_push }
    })
}

fn want() -> impl Strategy<Value = Want> {
    (uint(), uint(), any::<bool>()).prop_map(|(start, length, any)| Want { start, length, any })
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        sync().prop_map(Message::Sync),
        request().prop_map(Message::Request),
        uint().prop_map(|request| Message::Cancel { request }),
        data().prop_map(Message::Data),
        (uint(), 0..4_u64).prop_map(|(request, reason)| Message::NoData(NoData { request, reason })),
        want().prop_map(Message::Want),
        want().prop_map(Message::Unwant),
        (uint(), prop::collection::vec(any::<u32>(), 0..40))
            .prop_map(|(start, words)| Message::Bitfield(Bitfield { start, words })),
        (any::<bool>(), uint(), uint()).prop_map(|(drop, start, length)| Message::Range(Range {
            drop,
            start,
            length
        })),
        ("[a-z]{0,8}", bytes()).prop_map(|(name, message)| Message::Extension(Extension { name, message })),
    ]
}

fn decode(message_type: u64, payload: &Bytes) -> Result<Option<Message>, DecodeError> {
    Message::decode(message_type, payload, true, &Limits::default())
}

proptest! {
    #[test]
    fn every_message_comes_back(message in message()) {
        let payload = message.encode();
        prop_assert_eq!(decode(message.message_type(), &payload), Ok(Some(message)));
    }

    #[test]
    fn a_cut_message_is_an_error_or_another_message(message in message(), cut in any::<prop::sample::Index>()) {
        prop_assume!(!matches!(message, Message::NoData(NoData { reason: REASON_UNKNOWN, .. })));
        let payload = message.encode();
        let cut = payload.slice(..cut.index(payload.len()));
        prop_assert_ne!(decode(message.message_type(), &cut), Ok(Some(message)));
    }

    //= ENC-11
    #[test]
    fn what_follows_the_known_fields_is_passed_over(message in message(), more in bytes()) {
        prop_assume!(!matches!(message, Message::Extension(_) | Message::Want(_) | Message::Unwant(_)));
        let mut payload = message.encode().to_vec();
        payload.extend_from_slice(&more);
        prop_assert_eq!(decode(message.message_type(), &payload.into()), Ok(Some(message)));
    }

    #[test]
    fn whatever_decodes_survives_another_round(message_type in 0..11_u64, payload in bytes()) {
        if let Ok(Some(message)) = decode(message_type, &payload) {
            prop_assert_eq!(decode(message_type, &message.encode()), Ok(Some(message)));
        }
    }
}

//= ENC-9
#[test]
fn flags_that_are_not_defined_are_passed_over() {
    let upgrade = UpgradeRequest { start: 3, length: 4 };
    let request = ProofRequest { upgrade: Some(upgrade), ..ProofRequest::default() };
    for message in [
        Message::Sync(Sync {
            fork: 1,
            length: 2,
            remote_length: 3,
            can_upgrade: false,
            uploading: true,
            downloading: false,
            has_manifest: true,
            allow_push: false,
        }),
        Message::Request(Request { id: 5, fork: 1, proof: request, priority: 0 }),
        Message::Data(Data { request: 5, proof: Proof { fork: 1, ..Proof::default() } }),
        Message::Range(Range { drop: true, start: 7, length: 1 }),
    ] {
        let payload = message.encode();
        for bit in 6..53 {
            // The flags stand first; they take one byte as long as only those are set that are defined.
            let mut more = Vec::new();
            more.put_uint(u64::from(payload[0]) | 1 << bit);
            more.extend_from_slice(&payload[1..]);
            assert_eq!(decode(message.message_type(), &more.into()), Ok(Some(message.clone())), "bit {bit}");
        }
    }
    for bit in 1..53 {
        let want = Want { start: 1, length: 2, any: false };
        let no_data = NoData { request: 5, reason: REASON_UNKNOWN };
        let mut flags = Vec::new();
        flags.put_uint(1 << bit);
        let of = |fields: &[u8]| Bytes::from([fields, &flags].concat());
        assert_eq!(decode(5, &of(&[1, 2])), Ok(Some(Message::Want(want))));
        assert_eq!(decode(6, &of(&[1, 2])), Ok(Some(Message::Unwant(want))));
        assert_eq!(decode(4, &of(&[5])), Ok(Some(Message::NoData(no_data))));
    }
}

//= MUX-4, REPL-8
#[test]
fn unknown_types_are_skipped() {
    assert_eq!(decode(10, &Bytes::from_static(&[1, 2, 3])), Ok(None));
    assert_eq!(decode(u64::MAX, &Bytes::new()), Ok(None));
}

#[test]
fn a_block_is_a_slice_of_the_message() {
    let proof = Proof {
        block: Some(BlockProof { index: 7, value: Bytes::from(vec![9; 4096]), nodes: Vec::new() }),
        ..Proof::default()
    };
    let payload = Message::Data(Data { request: 1, proof }).encode();
    let Ok(Some(Message::Data(data))) = decode(3, &payload) else { panic!("no data") };
    let value = data.proof.block.unwrap().value;
    assert!(payload.as_ptr_range().contains(&value.as_ptr()));
}

//= ENC-6
#[test]
fn a_count_beyond_the_end_allocates_nothing() {
    let mut payload = vec![0b1000, 1, 0, 0, 1];
    payload.put_uint(1 << 40);
    assert_eq!(decode(3, &payload.into()), Err(DecodeError::TooMany { max: 256 }));
    let mut payload = vec![0];
    payload.put_uint(1 << 40);
    assert_eq!(decode(7, &payload.into()), Err(DecodeError::UnexpectedEnd));
}

//= protocol-spec/07-replication.md#request-1-and-data-3
#[test]
fn seeks_of_old_peers_have_no_padding() {
    let payload = Bytes::from_static(&[0b1100, 5, 0, 100, 3, 4]);
    let request = Message::decode(1, &payload, false, &Limits::default());
    let Ok(Some(Message::Request(request))) = request else { panic!("no request") };
    assert_eq!(request.proof.seek, Some(SeekRequest { bytes: 100, padding: 0 }));
    assert_eq!(request.proof.upgrade, Some(UpgradeRequest { start: 3, length: 4 }));
    assert!(decode(1, &payload).is_err());
}

//= REPL-6
#[test]
fn the_no_data_of_old_peers_has_no_reason() {
    let no_data = Message::NoData(NoData { request: 5, reason: REASON_UNKNOWN });
    assert_eq!(decode(4, &Bytes::from_static(&[5])), Ok(Some(no_data)));
}
