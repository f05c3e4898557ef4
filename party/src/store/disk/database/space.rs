//! The keyspaces of the database: what is written again and again, the tree, and the blocks, apart from each other, so
//! that what is appended to a keyspace lies behind what is there.

/// A keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    State,
    Tree,
    Blocks,
}

/// One for each keyspace.
#[derive(Debug, Default)]
pub(super) struct Each<T> {
    pub(super) state: T,
    pub(super) tree: T,
    pub(super) blocks: T,
}

impl Space {
    pub(super) const ALL: [Self; 3] = [Self::State, Self::Tree, Self::Blocks];

    /// What the database calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Tree => "tree",
            Self::Blocks => "blocks",
        }
    }

    /// What stored values call it.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::State => 0,
            Self::Tree => 1,
            Self::Blocks => 2,
        }
    }

    pub(super) fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|space| space.number() == number)
    }
}

impl<T> Each<T> {
    pub(super) fn try_make<E>(mut make: impl FnMut(Space) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self { state: make(Space::State)?, tree: make(Space::Tree)?, blocks: make(Space::Blocks)? })
    }

    pub(super) fn of(&self, space: Space) -> &T {
        match space {
            Space::State => &self.state,
            Space::Tree => &self.tree,
            Space::Blocks => &self.blocks,
        }
    }

    pub(super) fn of_mut(&mut self, space: Space) -> &mut T {
        match space {
            Space::State => &mut self.state,
            Space::Tree => &mut self.tree,
            Space::Blocks => &mut self.blocks,
        }
    }
}
