//! Feeds that several sign, feeds that nobody signs, and what is between the two.

use std::sync::Arc;

use bytes::Bytes;
use party::{
    error::{ApiMisuse, Error, SigningError},
    feed::{
        Feed, Identity,
        encryption::Encryption,
        manifest::{Manifest, Prologue},
        memory::MemoryStorage,
        proof::{BlockRequest, ProofRequest, UpgradeRequest},
        quorum::{Draft, PartialSignature, Signable, signable_length},
        storage::Slot,
        tree::Tree,
        verifier::Verifier,
    },
    key::{FeedKey, KeyPair},
};
use proptest::prelude::*;

fn pair(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

fn quorum(quorum: u64, of: u8, allow_patch: bool) -> Manifest {
    let signers = (0..of).map(|n| pair(n).public());
    Manifest::builder().signers(signers).quorum(quorum).allow_patch(allow_patch).build().unwrap()
}

fn blocks(n: u64) -> Vec<Bytes> {
    (0..n).map(|n| Bytes::from(vec![n as u8; n as usize % 40])).collect()
}

async fn open(identity: Identity) -> Feed {
    Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.unwrap()
}

/// A copy for each signer and one for somebody who only knows the key.
async fn copies(manifest: &Manifest) -> (Vec<Feed>, Feed) {
    let mut signers = Vec::new();
    for n in 0..manifest.signers.len() {
        signers.push(open(Identity::signer(manifest.clone(), pair(n as u8))).await);
    }
    (signers, open(Identity::reader(manifest.key())).await)
}

/// Brings a reader up to date, every block of it.
async fn replicate(from: &Feed, to: &Feed) -> Result<(), Error> {
    let (start, end) = (to.info().length, from.info().length);
    let upgrade = Some(UpgradeRequest { start, length: end - start });
    let request = ProofRequest { upgrade, manifest: true, ..ProofRequest::default() };
    let proof = from.prove(request, from.info().fork).await?.expect("a proof");
    to.ingest(vec![proof]).await.remove(0)?;
    for index in 0..end {
        let nodes = to.with_local(|local| local.missing_nodes(index));
        let request = ProofRequest { block: Some(BlockRequest { index, nodes }), ..ProofRequest::default() };
        let proof = from.prove(request, from.info().fork).await?.expect("a proof");
        to.ingest(vec![proof]).await.remove(0)?;
        assert_eq!(from.get(index).await?, to.get(index).await?);
    }
    Ok(())
}

fn misuse<T: std::fmt::Debug>(result: Result<T, Error>) -> ApiMisuse {
    match result {
        Err(Error::ApiMisuse(misuse)) => misuse,
        other => panic!("{other:?}"),
    }
}

fn signing<T: std::fmt::Debug>(result: Result<T, Error>) -> SigningError {
    match misuse(result) {
        ApiMisuse::Signing(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_of_three_append_by_hand_over() {
    for version in [0, 1, 2] {
        let signers = (0..3).map(|n| pair(n).public());
        let manifest = Manifest::builder().version(version).signers(signers).quorum(2).build().unwrap();
        let (signers, reader) = copies(&manifest).await;
        assert!(signers.iter().all(|feed| !feed.info().writable));
        assert_eq!(
            misuse(signers[0].append("alone").await),
            ApiMisuse::NotWritable(signers[0].discovery_key())
        );

        for round in 0..3 {
            let more = vec![Bytes::from(format!("block of round {round}")); 3];
            let draft = signers[1].draft(more.clone()).await.unwrap();
            let asked = draft.signable().encode();
            let mut parts = Vec::new();
            for signer in [2, 0] {
                let mine = signers[signer].draft(more.clone()).await.unwrap();
                mine.check(&Signable::decode(&asked).unwrap()).unwrap();
                parts.push(signers[signer].sign(&mine).unwrap().encode());
            }
            let parts: Vec<_> = parts.iter().map(|part| PartialSignature::decode(part).unwrap()).collect();
            let signature = draft.assemble(&parts).unwrap();
            let start = signers[1].info().length;
            assert_eq!(signers[1].append_signed(draft, signature).await.unwrap(), start..start + 3);
            for feed in signers.iter().filter(|feed| feed.info().length == start).chain([&reader]) {
                replicate(&signers[1], feed).await.unwrap();
            }
        }
        assert_eq!(reader.info().contiguous_length, 9);
        assert!(signers[1].audit().await.unwrap().is_clean());
    }
}

//= FEED-43
#[tokio::test]
async fn a_signer_sees_that_it_is_asked_for_something_else() {
    let (signers, _) = copies(&quorum(2, 3, false)).await;
    let draft = signers[0].draft(vec!["pay 10".into()]).await.unwrap();
    let mine = signers[1].draft(vec!["pay 10".into()]).await.unwrap();
    mine.check(&draft.signable()).unwrap();
    let other = signers[0].draft(vec!["pay 1000".into()]).await.unwrap().signable();
    assert_eq!(mine.check(&other), Err(SigningError::OtherTree));
    assert_eq!(mine.check(&Signable { fork: 1, ..draft.signable() }), Err(SigningError::OtherTree));
    let stranger = Signable { key: FeedKey::from_bytes([1; 32]), ..draft.signable() };
    assert_eq!(mine.check(&stranger), Err(SigningError::OtherFeed));
}

/// A key that is kept elsewhere signs bytes that it is handed.
#[tokio::test]
async fn a_signature_made_elsewhere_counts_like_one_made_here() {
    let (signers, _) = copies(&quorum(2, 3, false)).await;
    let verifier = Verifier::new(signers[0].key(), quorum(2, 3, false)).unwrap();
    let draft = signers[0].draft(vec!["pay 10".into()]).await.unwrap();
    let signable = draft.signable();
    let parts = [2, 1].map(|n| {
        let message = signable.message(&verifier, n).unwrap();
        PartialSignature::new(signable, n, pair(n as u8).sign(&message))
    });
    let signature = draft.assemble(&parts).unwrap();
    assert_eq!(signers[0].append_signed(draft, signature).await.unwrap(), 0..1);

    assert_eq!(signable.message(&verifier, 3), None, "there is no such signer");
    let stranger = Signable { key: FeedKey::from_bytes([1; 32]), ..signable };
    assert_eq!(stranger.message(&verifier, 2), None, "it is another feed's");
}

/// As the builder makes none of these, but a peer can.
//= FEED-11, FEED-12, FEED-13
#[test]
fn a_manifest_that_contradicts_itself_verifies_no_feed() {
    let good = quorum(2, 3, false);
    let prologue = |length| Some(Prologue { hash: [7; 32], length });
    let takes = |manifest: &Manifest| Verifier::new(manifest.key(), manifest.clone()).is_ok();
    for manifest in [
        Manifest { quorum: 3, ..good.clone() },
        Manifest { version: 2, linked: Some(vec![good.key()]), ..good.clone() },
        Manifest { version: 2, user_data: Some("data".into()), ..good.clone() },
        Manifest { linked: Some(vec![]), ..good.clone() },
        Manifest { prologue: prologue((1 << 53) - 1), ..good.clone() },
    ] {
        assert!(takes(&manifest), "{manifest:?}");
    }
    for manifest in [
        Manifest { version: 3, ..good.clone() },
        Manifest { quorum: 4, ..good.clone() },
        Manifest { linked: Some(vec![good.key()]), ..good.clone() },
        Manifest { user_data: Some("data".into()), ..good.clone() },
        Manifest { version: 0, user_data: Some("data".into()), ..good.clone() },
        Manifest { prologue: prologue(1 << 53), ..good.clone() },
    ] {
        assert!(!takes(&manifest), "{manifest:?}");
    }
}

//= FEED-44, FEED-45
#[tokio::test]
async fn what_is_no_quorum_is_refused_by_name() {
    let (signers, reader) = copies(&quorum(2, 3, false)).await;
    let draft = signers[0].draft(blocks(3)).await.unwrap();
    let part = |n: usize| signers[n].sign(&draft).unwrap();
    let assemble = |parts: &[PartialSignature]| draft.assemble(parts);
    assert_eq!(assemble(&[part(0)]), Err(SigningError::TooFew { have: 1, need: 2 }));
    assert_eq!(assemble(&[part(0), part(0)]), Err(SigningError::SameSignerTwice { signer: 0 }));
    let forged = PartialSignature::new(draft.signable(), 1, *part(0).signature());
    assert_eq!(assemble(&[part(0), forged]), Err(SigningError::WrongSignature { signer: 1 }));
    let nobody = PartialSignature::new(draft.signable(), 3, *part(0).signature());
    assert_eq!(assemble(&[nobody]), Err(SigningError::UnknownSigner { signer: 3 }));
    let longer = signers[1].draft(blocks(4)).await.unwrap();
    let more = signers[1].sign(&longer).unwrap();
    assert_eq!(assemble(&[part(0), more.clone()]), Err(SigningError::PatchNotAllowed { signer: 1 }));
    assert_eq!(longer.patch(more, 3), Err(SigningError::PatchNotAllowed { signer: 1 }));
    let less = signers[1].sign(&signers[1].draft(blocks(2)).await.unwrap()).unwrap();
    assert_eq!(assemble(&[part(0), less]), Err(SigningError::OtherTree));
    assert_eq!(draft.sign(&pair(9)), Err(SigningError::NotASigner(pair(9).public())));
    assert_eq!(signing(signers[0].draft(vec![]).await), SigningError::NothingToSign);
    assert_eq!(misuse(reader.draft(blocks(1)).await), ApiMisuse::UnknownManifest);

    // Nothing of this got into the feed.
    let single = part(0).signature().to_vec();
    assert_eq!(signing(signers[0].append_signed(draft.clone(), single).await), SigningError::NotSigned);
    assert_eq!(signers[0].info().length, 0);
    let other = open(Identity::signer(quorum(2, 2, false), pair(0))).await;
    assert_eq!(signing(other.append_signed(draft.clone(), "").await), SigningError::OtherFeed);
    assert_eq!(signing(other.sign(&draft).map(drop)), SigningError::OtherFeed);
}

//= FEED-46
#[tokio::test]
async fn a_draft_is_worth_nothing_once_the_feed_has_moved_on() {
    let (signers, _) = copies(&quorum(2, 2, false)).await;
    let sign = |draft: &Draft| {
        draft.assemble(&[draft.sign(&pair(0)).unwrap(), draft.sign(&pair(1)).unwrap()]).unwrap()
    };
    let (first, second) =
        (signers[0].draft(blocks(2)).await.unwrap(), signers[0].draft(blocks(3)).await.unwrap());
    let signature = sign(&first);
    signers[0].append_signed(first.clone(), signature.clone()).await.unwrap();
    let signed = sign(&second);
    assert_eq!(
        misuse(signers[0].append_signed(second, signed).await),
        ApiMisuse::FeedMovedOn { length: 2, fork: 0 }
    );
    assert_eq!(
        misuse(signers[0].append_signed(first, signature).await),
        ApiMisuse::FeedMovedOn { length: 2, fork: 0 }
    );
}

#[tokio::test]
async fn a_truncation_is_signed_by_hand_over() {
    let (signers, _) = copies(&quorum(2, 3, false)).await;
    let feed = &signers[0];
    let sign = |draft: &Draft| draft.agree(&[draft.sign(&pair(0)).unwrap(), draft.sign(&pair(2)).unwrap()]);
    let draft = feed.draft(blocks(9)).await.unwrap();
    let (draft, signature) = sign(&draft).unwrap();
    feed.append_signed(draft, signature).await.unwrap();

    let draft = feed.draft_truncation(5).await.unwrap();
    assert_eq!((draft.tree().length(), draft.fork(), draft.truncates()), (5, 1, true));
    assert_eq!(signing(feed.append_signed(draft.clone(), "").await), SigningError::NotSigned);
    let (draft, signature) = sign(&draft).unwrap();
    assert_eq!(feed.append_signed(draft, signature).await.unwrap(), 5..5);
    assert_eq!((feed.info().length, feed.info().fork, feed.info().contiguous_length), (5, 1, 5));
    assert_eq!(feed.get(5).await.unwrap(), None);

    let draft = feed.draft(blocks(2)).await.unwrap();
    let (draft, signature) = sign(&draft).unwrap();
    assert_eq!(feed.append_signed(draft, signature).await.unwrap(), 5..7);
    assert!(feed.audit().await.unwrap().is_clean());
    assert_eq!(
        misuse(feed.draft_truncation(8).await.map(drop)),
        ApiMisuse::BeyondEnd { index: 8, length: 7 }
    );
}

#[tokio::test]
async fn signers_that_saw_different_lengths_agree_on_what_enough_have_seen() {
    let (signers, reader) = copies(&quorum(2, 3, true)).await;
    let mut parts = Vec::new();
    for (signer, length) in [(0, 3), (1, 9), (2, 7)] {
        let draft = signers[signer].draft(blocks(length)).await.unwrap();
        parts.push(signers[signer].sign(&draft).unwrap());
    }
    let longest = signers[1].draft(blocks(9)).await.unwrap();
    let (agreed, signature) = longest.agree(&parts).unwrap();
    assert_eq!(agreed.tree().length(), 7);
    signers[1].append_signed(agreed, signature).await.unwrap();
    replicate(&signers[1], &reader).await.unwrap();
    assert_eq!(reader.info().contiguous_length, 7);

    // Without leave to patch they have to agree on one length.
    let (signers, _) = copies(&quorum(2, 3, false)).await;
    let mut parts = Vec::new();
    for (signer, length) in [(0, 3), (1, 9), (2, 7), (1, 3)] {
        parts.push(signers[signer].draft(blocks(length)).await.unwrap().sign(&pair(signer as u8)).unwrap());
    }
    let longest = signers[1].draft(blocks(9)).await.unwrap();
    let (agreed, _) = longest.agree(&parts).unwrap();
    assert_eq!(agreed.tree().length(), 3);
    assert_eq!(
        longest.agree(&parts[..3]).map(drop),
        Err(ApiMisuse::Signing(SigningError::TooFew { have: 3, need: 2 }))
    );
}

#[tokio::test]
async fn one_of_several_whose_signature_is_enough_appends_alone() {
    let manifest = quorum(1, 3, false);
    let (signers, reader) = copies(&manifest).await;
    assert!(signers.iter().all(|feed| feed.info().writable));
    signers[2].append_batch(blocks(4)).await.unwrap();
    replicate(&signers[2], &reader).await.unwrap();
    replicate(&signers[2], &signers[0]).await.unwrap();
    signers[0].append("by another").await.unwrap();
    replicate(&signers[0], &reader).await.unwrap();
    assert_eq!(reader.info().contiguous_length, 5);
}

#[tokio::test]
async fn a_key_pair_of_no_signer_is_refused() {
    let identity = Identity::signer(quorum(2, 3, false), pair(9));
    let outcome = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await;
    assert_eq!(misuse(outcome), ApiMisuse::WrongManifest);
}

//= FEED-37, FEED-38
#[tokio::test]
async fn a_static_feed_takes_its_blocks_and_no_others() {
    let manifest = Manifest::builder().prologue(Prologue::of_blocks(&blocks(70)).unwrap()).build().unwrap();
    let feed = open(Identity::from_manifest(manifest.clone())).await;
    for wrong in [blocks(69), blocks(71), vec![Bytes::new(); 70], vec![]] {
        assert_eq!(misuse(feed.fill(wrong).await), ApiMisuse::NotThePrologue);
    }
    assert_eq!(feed.info().length, 0);
    feed.fill(blocks(70)).await.unwrap();
    assert_eq!((feed.info().length, feed.info().contiguous_length), (70, 70));
    assert!(!feed.info().writable);
    assert!(feed.audit().await.unwrap().is_clean());
    feed.fill(blocks(70)).await.unwrap();

    let reader = open(Identity::reader(manifest.key())).await;
    replicate(&feed, &reader).await.unwrap();
    assert_eq!(reader.info().contiguous_length, 70);

    let ours = open(Identity::signer(quorum(1, 1, false), pair(0))).await;
    assert_eq!(misuse(ours.fill(blocks(1)).await), ApiMisuse::NotThePrologue);
}

#[tokio::test]
async fn a_static_feed_of_which_the_tree_is_known_is_filled() {
    let manifest = Manifest::builder().prologue(Prologue::of_blocks(&blocks(20)).unwrap()).build().unwrap();
    let source = open(Identity::from_manifest(manifest.clone())).await;
    source.fill(blocks(20)).await.unwrap();
    let feed = open(Identity::reader(manifest.key())).await;
    let upgrade = Some(UpgradeRequest { start: 0, length: 20 });
    let request = ProofRequest { upgrade, manifest: true, ..ProofRequest::default() };
    feed.ingest(vec![source.prove(request, 0).await.unwrap().unwrap()]).await.remove(0).unwrap();
    assert_eq!((feed.info().length, feed.info().contiguous_length), (20, 0));
    assert_eq!(misuse(feed.fill(blocks(19)).await), ApiMisuse::NotThePrologue);
    feed.fill(blocks(20)).await.unwrap();
    assert_eq!(feed.info().contiguous_length, 20);
    assert!(feed.audit().await.unwrap().is_clean());
}

//= FEED-39, FEED-40
#[tokio::test]
async fn a_signer_goes_on_from_the_prologue() {
    let storage = Arc::new(MemoryStorage::new());
    let manifest = Manifest::builder()
        .signer(pair(0).public())
        .prologue(Prologue::of_blocks(&blocks(3)).unwrap())
        .build()
        .unwrap();
    let identity = || Identity::signer(manifest.clone(), pair(0));
    let feed = Feed::create(storage.clone(), Slot(0), identity()).await.unwrap();
    assert!(feed.info().writable);
    assert_eq!(misuse(feed.append("not the prologue").await), ApiMisuse::NotThePrologue);
    assert_eq!(misuse(feed.append_batch(vec!["not".into(); 4]).await), ApiMisuse::NotThePrologue);
    assert_eq!(misuse(feed.append_batch(blocks(2)).await), ApiMisuse::NotThePrologue);
    feed.fill(blocks(3)).await.unwrap();
    assert_eq!(feed.append("more").await.unwrap(), 3);
    assert_eq!(misuse(feed.truncate(2).await), ApiMisuse::FixedByManifest(3));
    assert_eq!(misuse(feed.draft_truncation(2).await.map(drop)), ApiMisuse::FixedByManifest(3));
    feed.truncate(3).await.unwrap();
    feed.append("something else").await.unwrap();

    let reopened = Feed::create(storage, Slot(0), identity()).await.unwrap();
    assert_eq!((reopened.info().length, reopened.info().fork), (4, 1));
    assert!(reopened.audit().await.unwrap().is_clean());
}

#[tokio::test]
async fn a_quorum_goes_on_from_the_prologue() {
    let manifest = Manifest::builder()
        .signers([pair(0).public(), pair(1).public()])
        .prologue(Prologue::of_blocks(&blocks(3)).unwrap())
        .build()
        .unwrap();
    let (signers, reader) = copies(&manifest).await;
    assert_eq!(misuse(signers[0].draft(vec!["other".into(); 4]).await), ApiMisuse::NotThePrologue);
    let draft = signers[0].draft(blocks(5)).await.unwrap();
    let (draft, signature) =
        draft.agree(&[draft.sign(&pair(0)).unwrap(), draft.sign(&pair(1)).unwrap()]).unwrap();
    signers[0].append_signed(draft, signature).await.unwrap();
    replicate(&signers[0], &reader).await.unwrap();
    assert_eq!(reader.info().contiguous_length, 5);

    // Back to the prologue, whose tree would verify on any fork: that takes signatures, too.
    let back = signers[0].draft_truncation(3).await.unwrap();
    let verifier = Verifier::new(manifest.key(), manifest).unwrap();
    assert!(verifier.verify(back.tree(), back.fork(), b"").is_ok());
    assert!(verifier.verify_fork(back.tree(), back.fork(), b"").is_err());
    assert_eq!(signing(signers[0].append_signed(back.clone(), "").await), SigningError::NotSigned);
    assert_eq!(back.assemble(&[]), Err(SigningError::TooFew { have: 0, need: 2 }));
    let signature = back.assemble(&[back.sign(&pair(0)).unwrap(), back.sign(&pair(1)).unwrap()]).unwrap();
    assert!(verifier.verify_fork(back.tree(), back.fork(), &signature).is_ok());
    assert_eq!(signers[0].append_signed(back, signature).await.unwrap(), 3..3);
}

#[tokio::test]
async fn a_quorum_feed_is_signed_from_the_tree_of_another_feed() {
    let manifest = quorum(2, 2, false);
    let verifier = Verifier::new(manifest.key(), manifest.clone()).unwrap();
    let source = open(Identity::writer(pair(7))).await;
    source.append_batch(blocks(30)).await.unwrap();
    let tree = source.tree_at(21).await.unwrap();
    let parts = [0, 1].map(|n| verifier.sign_part(&pair(n), &tree, 0).unwrap());
    let target = open(Identity::from_manifest(manifest)).await;
    let draft = target.draft(blocks(21)).await.unwrap();
    draft.check(parts[0].signable()).unwrap();
    let signature = draft.assemble(&parts).unwrap();
    target.append_signed(draft, signature).await.unwrap();
    assert_eq!(target.tree_at(21).await.unwrap(), tree);
    assert_eq!(misuse(source.tree_at(31).await), ApiMisuse::BeyondEnd { index: 31, length: 30 });
    // A copy that has the signed roots of 30 blocks only can't tell the tree of 21.
    let partial = open(Identity::reader(source.key())).await;
    let upgrade = Some(UpgradeRequest { start: 0, length: 30 });
    let request = ProofRequest { upgrade, manifest: true, ..ProofRequest::default() };
    let proof = source.prove(request, 0).await.unwrap().unwrap();
    partial.ingest(vec![proof]).await.remove(0).unwrap();
    assert_eq!(misuse(partial.tree_at(21).await), ApiMisuse::NotStored);
}

#[tokio::test]
async fn signers_of_an_encrypted_feed_see_what_they_sign() {
    let (signers, _) = copies(&quorum(2, 3, false)).await;
    let key = Encryption::from([5; 32]);
    let [alice, bob] = [0, 1].map(|n| signers[n].with_encryption(key.clone()));
    for round in 0..2 {
        let draft = alice.draft(blocks(3)).await.unwrap();
        let his = bob.draft(blocks(3)).await.unwrap();
        his.check(&draft.signable()).unwrap();
        let other = signers[1].with_encryption([6; 32]).draft(blocks(3)).await;
        assert!(other.map_or(true, |other| other.check(&draft.signable()).is_err()));
        let signature = draft.assemble(&[alice.sign(&draft).unwrap(), bob.sign(&his).unwrap()]).unwrap();
        alice.append_signed(draft, signature.clone()).await.unwrap();
        bob.append_signed(his, signature).await.unwrap();
        assert_eq!(bob.get(round * 3 + 2).await.unwrap(), Some(blocks(3)[2].clone()));
    }
    assert_eq!(alice.info().length, 6);
    assert_eq!(
        misuse(signers[0].draft(blocks(1)).await),
        ApiMisuse::EncryptionKeyMissing(alice.discovery_key())
    );
}

proptest! {
    #[test]
    fn whatever_enough_signers_have_seen_is_signed(
        version in 0u8..3,
        lengths in prop::collection::vec(1u64..40, 1..6),
        needed in 1u64..6,
        base in 0u64..10,
        fork in 0u64..3,
    ) {
        let needed = needed.min(lengths.len() as u64);
        let signers = (0..lengths.len()).map(|n| pair(n as u8).public());
        let manifest = Manifest::builder()
            .version(version).signers(signers).quorum(needed).allow_patch(true).build().unwrap();
        let verifier = Verifier::new(manifest.key(), manifest).unwrap();
        let all = blocks(base + 40);
        let start = match base {
            0 => Tree::default(),
            _ => Draft::append(verifier.clone(), Tree::default(), fork, all[..base as usize].to_vec())
                .unwrap().tree().clone(),
        };
        let draft = |length: u64| {
            let more = all[base as usize..(base + length) as usize].to_vec();
            Draft::append(verifier.clone(), start.clone(), fork, more).unwrap()
        };
        let mut parts = Vec::new();
        for (n, length) in lengths.iter().enumerate() {
            let part = draft(*length).sign(&pair(n as u8)).unwrap();
            prop_assert_eq!(PartialSignature::decode(&part.encode()), Ok(part.clone()));
            parts.push(part);
        }
        let (agreed, signature) = draft(40).agree(&parts).unwrap();
        let expected = signable_length(&lengths, needed).unwrap();
        prop_assert_eq!(agreed.tree().length(), base + expected);
        prop_assert!(verifier.verify(agreed.tree(), fork, &signature).is_ok());
        prop_assert!(verifier.verify(agreed.tree(), fork + 1, &signature).is_err());
    }

    //= FEED-42
    #[test]
    fn no_bytes_of_others_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), version in 0u8..2) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        if let Ok(signable) = Signable::decode(&bytes) {
            prop_assert_eq!(signable.encode(), bytes.clone());
        }
        let manifest = quorum(2, 3, true);
        let verifier = Verifier::new(manifest.key(), manifest).unwrap();
        let tree = Draft::append(verifier.clone(), Tree::default(), 0, blocks(5)).unwrap().tree().clone();
        if let Ok(part) = PartialSignature::decode(&bytes) {
            prop_assert!(verifier.assemble(&tree, 0, &[part]).is_err());
        }
        prop_assert!(verifier.verify(&tree, 0, &bytes).is_err());
    }
}
