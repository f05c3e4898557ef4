//! A feed read back from its storage.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    error::{Error, StorageError},
    feed::{
        bitfield::Bitfield,
        proof::Node,
        state::{Head, State, decode_node},
        storage::{Key, Slot, Storage},
        tree::{Tree, full_roots},
        verifier::Verifier,
    },
    key::FeedKey,
};

/// The most bitfield pages that a feed is opened with: gaps spread over half a million million blocks.
const MAX_PAGES: u64 = 1 << 24;

/// Reads the feed `key` as it is stored under `slot`; an empty one if nothing is there.
pub(super) async fn open(
    storage: &dyn Storage,
    slot: Slot,
    key: FeedKey,
    verifier: Option<Verifier>,
) -> Result<State, Error> {
    let head = storage.read(vec![Key::Head(slot)]).await?.pop().flatten();
    let Some(head) = head else { return Ok(State { verifier, ..State::default() }) };
    let head = Head::decode(&head).map_err(|error| damaged(format!("head of a feed: {error}")))?;
    let verifier = match (verifier, head.manifest) {
        (Some(verifier), _) => Some(verifier),
        (None, Some(manifest)) => {
            Some(Verifier::new(key, manifest).map_err(|_| damaged("the manifest is another feed's".into()))?)
        }
        (None, None) => None,
    };
    let pages: u64 = head.pages.iter().map(|range| range.end - range.start).sum();
    if pages > MAX_PAGES {
        return Err(damaged("bitfield".into()).into());
    }
    let pages: Vec<u64> = head.pages.into_iter().flatten().collect();
    let roots: Vec<u64> = full_roots(head.length).map(|position| position.index()).collect();
    let mut keys: Vec<Key> = roots.iter().map(|index| Key::Node(slot, *index)).collect();
    keys.extend(pages.iter().map(|n| Key::Page(slot, *n)));
    let mut values = storage.read(keys).await?;
    let page_values = values.split_off(roots.len().min(values.len()));

    let nodes = decode_nodes(&roots, values)?;
    let tree = roots
        .iter()
        .map(|index| nodes.get(index).copied())
        .collect::<Option<Vec<_>>>()
        .and_then(|roots| Tree::from_roots(head.length, roots))
        .ok_or_else(|| damaged("the roots of a feed".into()))?;
    let mut bitfield = Bitfield::contiguous_to(head.contiguous);
    for (n, value) in pages.into_iter().zip(page_values) {
        if !value.is_some_and(|value| bitfield.restore(n, &value)) {
            return Err(damaged(format!("bitfield page {n}")).into());
        }
    }
    //= STORE-10
    let is_signed =
        verifier.as_ref().is_some_and(|verifier| verifier.verify(&tree, head.fork, &head.signature).is_ok());
    if tree.length() > 0 && !is_signed {
        return Err(damaged("the signature of a feed".into()).into());
    }
    Ok(State {
        fork: head.fork,
        tree,
        signature: head.signature,
        verifier,
        bitfield,
        deletions: 0,
        is_encrypted: head.is_encrypted,
        conflict: head.conflict,
        contradiction: None,
        reorgs: Vec::new(),
    })
}

/// The nodes read under `indexes`, without those that are not stored.
pub(super) fn decode_nodes(
    indexes: &[u64],
    values: impl IntoIterator<Item = Option<Bytes>>,
) -> Result<HashMap<u64, Node>, StorageError> {
    indexes
        .iter()
        .zip(values)
        .filter_map(|(index, value)| Some((*index, value?)))
        .map(|(index, value)| match decode_node(index, &value) {
            Ok(node) => Ok((index, node)),
            Err(_) => Err(damaged(format!("tree node {index}"))),
        })
        .collect()
}

/// What is stored is not what was written.
pub(super) fn damaged(what: String) -> StorageError {
    StorageError::Damaged { what }
}
