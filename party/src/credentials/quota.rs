//! What is kept of a set to which anybody may add: as many items as each branch of the party is allowed.
//!
//! Which items are kept is a function of all that were ever added, whatever the order: an item that is dropped
//! among some would be dropped among more.

use std::collections::BTreeMap;

use crate::{credentials::membership::CheckedChain, hash::Hash, key::PublicKey};

/// Whose quota an item counts against. A member can make any number of keys below its own, but not become another
/// branch: the founder names these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Branch {
    Founder,
    Of(PublicKey),
}

impl Branch {
    /// That of who stands at this depth of the chain.
    pub(super) fn of(chain: &CheckedChain, depth: usize) -> Self {
        if depth == 0 { Self::Founder } else { Self::Of(chain.node(1)) }
    }
}

pub(super) trait Item {
    fn id(&self) -> Hash;

    fn branch(&self) -> Branch;

    /// Which of the items of a branch that has one too many is to go.
    fn last(items: &BTreeMap<Hash, Self>) -> Option<Hash>
    where
        Self: Sized;
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Quota {
    pub(super) founder: usize,
    pub(super) branch: usize,
    pub(super) branches: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Branches<T> {
    quota: Quota,
    items: BTreeMap<Branch, BTreeMap<Hash, T>>,
    branch_of: BTreeMap<Hash, Branch>,
}

impl<T: Item> Branches<T> {
    pub(super) fn new(quota: Quota) -> Self {
        Self { quota, items: BTreeMap::new(), branch_of: BTreeMap::new() }
    }

    pub(super) fn get(&self, id: &Hash) -> Option<&T> {
        self.items.get(self.branch_of.get(id)?)?.get(id)
    }

    pub(super) fn contains(&self, id: &Hash) -> bool {
        self.branch_of.contains_key(id)
    }

    /// In the order of their ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = &Hash> {
        self.branch_of.keys()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.values().flat_map(BTreeMap::values)
    }

    //= CRED-36
    /// Adds an item that isn't there yet, and returns those that have to go for it, which may be itself.
    pub(super) fn insert(&mut self, item: T) -> Vec<T> {
        let (id, branch) = (item.id(), item.branch());
        self.branch_of.insert(id, branch);
        let items = self.items.entry(branch).or_default();
        items.insert(id, item);
        let most = if branch == Branch::Founder { self.quota.founder } else { self.quota.branch };
        let mut dropped = Vec::new();
        if items.len() > most
            && let Some(last) = T::last(items)
        {
            dropped.extend(items.remove(&last));
        }
        let branches = self.items.len() - usize::from(self.items.contains_key(&Branch::Founder));
        if branches > self.quota.branches
            && let Some((_, items)) = self.items.pop_last()
        {
            dropped.extend(items.into_values());
        }
        for item in &dropped {
            self.branch_of.remove(&item.id());
        }
        dropped
    }
}
