//! What a feed is made of.

use party::{
    feed::{
        encryption::{Encryption, Scheme},
        manifest::Manifest,
        quorum::Draft,
        tree::Tree,
        verifier::Verifier,
    },
    hash::hash,
    key::KeyPair,
};

use super::{Example, Line, line};

/// A feed of one signer, whose pair grows from 32 bytes of 1, with the blocks `hello` and `world`.
pub(crate) struct Hello {
    pub(crate) draft: Draft,
    pub(crate) verifier: Verifier,
    pub(crate) signature: bytes::Bytes,
}

pub(crate) fn hello() -> (Hello, KeyPair) {
    let pair = KeyPair::from_seed(&[1; 32]);
    let manifest = Manifest::single(pair.public());
    let verifier = Verifier::new(manifest.key(), manifest).unwrap();
    let blocks = vec!["hello".into(), "world".into()];
    let draft = Draft::append(verifier.clone(), Tree::default(), 0, blocks).unwrap();
    let signature = draft.assemble(&[draft.sign(&pair).unwrap()]).unwrap();
    verifier.verify(draft.tree(), 0, &signature).unwrap();
    (Hello { draft, verifier, signature }, pair)
}

pub(crate) fn examples() -> Vec<Example> {
    let (Hello { draft, verifier, signature }, pair) = hello();
    let mut manifest = Vec::new();
    verifier.manifest().encode(&mut manifest);
    let key = verifier.key();
    let signable = draft.signable();
    let message = signable.message(&verifier, 0).unwrap();
    let [left, right] =
        ["hello", "world"].map(|block| hash(&[&[0], &(block.len() as u64).to_le_bytes(), block.as_bytes()]));
    let root = draft.tree().roots()[0];
    assert_eq!(root.hash, hash(&[&[1], &10_u64.to_le_bytes(), &left, &right]));
    let part = draft.sign(&pair).unwrap();
    vec![
        ("manifest", manifest_lines(&manifest)),
        (
            "feed-key",
            vec![line(key.as_bytes(), "feed key"), line(key.discovery_key().as_bytes(), "discovery key")],
        ),
        (
            "tree",
            vec![
                line(left, "leaf 0, `hello`"),
                line(right, "leaf 2, `world`"),
                line(root.hash, "their parent 1, of 10 bytes"),
                line(draft.tree().hash(), "tree"),
            ],
        ),
        (
            "signed-bytes",
            vec![
                line(&message[..32], "namespace(\"hypercore\", 0)"),
                line(&message[32..64], "feed key"),
                line(&message[64..96], "tree hash"),
                line(&message[96..104], "length"),
                line(&message[104..], "fork"),
            ],
        ),
        (
            "multi-signature",
            vec![
                line(&signature[..1], "one entry"),
                line(&signature[1..2], "signer 0"),
                line(&signature[2..66], "signature"),
                line(&signature[66..67], "no patch"),
                line(&signature[67..], "no nodes"),
            ],
        ),
        ("signable", {
            let bytes = signable.encode();
            vec![
                line(&bytes[..1], "version"),
                line(&bytes[1..33], "feed key"),
                line(&bytes[33..65], "tree hash"),
                line(&bytes[65..73], "length"),
                line(&bytes[73..], "fork"),
            ]
        }),
        ("partial-signature", {
            let bytes = part.encode();
            vec![
                line(&bytes[..81], "signable"),
                line(&bytes[81..89], "signer 0"),
                line(&bytes[89..153], "signature"),
                line(&bytes[153..], "no nodes"),
            ]
        }),
        ("encrypted-block", {
            let encryption = Encryption::new([7; 32]);
            let stored = encryption.cipher(&key, Scheme::Manifest).seal(1, 0, b"world");
            vec![
                line(*encryption.block_key(&key, Scheme::Manifest), "block key"),
                line(&stored[..8], "prefix: fork 0, blinded"),
                line(&stored[8..], "text: `world`"),
            ]
        }),
    ]
}

fn manifest_lines(manifest: &[u8]) -> Vec<Line> {
    vec![
        line(&manifest[..1], "version 1"),
        line(&manifest[1..2], "flags"),
        line(&manifest[2..3], "hash function"),
        line(&manifest[3..4], "quorum"),
        line(&manifest[4..5], "one signer"),
        line(&manifest[5..6], "scheme"),
        line(&manifest[6..38], "namespace(\"hypercore\", 4)"),
        line(&manifest[38..], "public key"),
    ]
}
