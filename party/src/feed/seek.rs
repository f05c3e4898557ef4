//! Byte offsets: in which block a byte is, and at which byte a block begins.
//!
//! A node of the tree says how many bytes are below it, so a search goes down from the roots, to the left or
//! to the right of what the left child holds. It needs one node after the other, and a feed that is not
//! stored whole lacks some: a [`Seeker`] names the node that it needs next, is handed it, and says how far it
//! has come. The rules, and where an offset between two blocks leads, are those of hypercore's
//! `lib/merkle-tree.js`; see `protocol-spec/06-feeds.md`.
//!
//! Some feeds have padding before each block, which does not count. Peers may name any padding; sums are
//! taken in 128 bits, where none of theirs overflows.

use std::ops::Range;

use crate::feed::{
    proof::Node,
    tree::{Position, Tree, full_roots},
};

/// Where a byte offset has turned out to be.
///
/// ```
/// use party::feed::{proof::Node, seek::{Located, SeekStep, Seeker}, tree::Tree};
///
/// // Two blocks of 10 bytes together, and nothing known below them.
/// let root = Node { index: 1, size: 10, hash: [0; 32] };
/// let tree = Tree::from_roots(2, vec![root]).unwrap();
/// let locate = |offset, left: Option<&Node>| {
///     let mut seeker = Seeker::new(&tree, offset, 0);
///     loop {
///         match seeker.poll() {
///             SeekStep::Read(_) => seeker.handle_node(left),
///             SeekStep::Found(located) => break located,
///         }
///     }
/// };
/// assert_eq!(locate(7, None), Located::Within { blocks: 0..2, offset: 7 });
/// assert_eq!(locate(11, None), Located::Beyond);
///
/// // As soon as the size of the first is known, so is the block.
/// let left = Node { index: 0, size: 6, hash: [0; 32] };
/// assert_eq!(locate(7, Some(&left)), Located::Block { index: 1, offset: 1 });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// `offset` bytes after the start of block `index`. The end of the feed is the start of the block that
    /// would be appended next.
    Block {
        /// The block.
        index: u64,
        /// Bytes of the block before the offset.
        offset: u64,
    },
    /// In one of these blocks, `offset` bytes after the start of the first; which one, the nodes that are
    /// stored here don't tell. Who asks a peer for any of these blocks gets the nodes on the way to it
    /// and comes closer. Of a hash with a seek, two blocks remain in the end: no proof says how many bytes the one
    /// has and how many the other, but either block itself does.
    Within {
        /// At least two blocks.
        blocks: Range<u64>,
        /// Bytes of these blocks before the offset.
        offset: u64,
    },
    /// Beyond the end of the feed.
    Beyond,
}

/// A byte offset that peers are asked for, as nodes that lead to it are missing here.
///
/// ```
/// use party::feed::seek::Sought;
///
/// // Byte 1,000 is in one of the blocks 8 to 15, probably in block 10.
/// let sought = Sought { id: 1, bytes: 1_000, padding: 0, blocks: 8..16, near: 10 };
/// assert!(sought.blocks.contains(&sought.near));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sought {
    /// Its number; no other offset that is looked for in the feed has it.
    pub id: u64,
    /// The offset.
    pub bytes: u64,
    /// Bytes of each block that are not counted.
    pub padding: u64,
    /// The blocks in one of which it is: those below one node. None, at the feed's length, if it is beyond.
    pub blocks: Range<u64>,
    /// The block in which it probably is.
    pub near: u64,
}

/// What a [`Seeker`] needs, or what it has found.
///
/// ```
/// use party::feed::{proof::Node, seek::{Located, SeekStep, Seeker}, tree::Tree};
///
/// let node = |index, size| Node { index, size, hash: [0; 32] };
/// let tree = Tree::from_roots(2, vec![node(1, 10)]).unwrap();
/// let mut seeker = Seeker::new(&tree, 3, 0);
/// // The first block's node says whether the offset is before or after its end.
/// assert_eq!(seeker.poll(), SeekStep::Read(0));
/// seeker.handle_node(Some(&node(0, 6)));
/// assert_eq!(seeker.poll(), SeekStep::Found(Located::Block { index: 0, offset: 3 }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeekStep {
    /// It needs the node with this flat-tree index, and goes on with [`Seeker::handle_node`].
    Read(u64),
    /// The end of the search.
    Found(Located),
}

/// A search for the block with a byte offset.
///
/// ```
/// use party::feed::{seek::{Located, SeekStep, Seeker}, tree::Tree};
///
/// let mut seeker = Seeker::new(&Tree::default(), 0, 0);
/// assert_eq!(seeker.poll(), SeekStep::Found(Located::Block { index: 0, offset: 0 }));
/// ```
#[derive(Clone, Debug)]
pub struct Seeker {
    descent: Descent,
    from_start: bool,
}

impl Seeker {
    /// Looks for the offset `bytes` in the blocks under `tree`, of each of which the first `padding` bytes
    /// don't count.
    pub fn new(tree: &Tree, bytes: u64, padding: u64) -> Self {
        let descent = Descent::from_roots(tree.roots(), bytes, padding);
        Self { descent, from_start: bytes == 0 }
    }

    /// The next step. To be called again after each [`handle_node`](Self::handle_node).
    pub fn poll(&self) -> SeekStep {
        if self.from_start {
            return SeekStep::Found(Located::Block { index: 0, offset: 0 });
        }
        let (at, rest) = match self.descent.state {
            DescentState::Going(at, rest) => match at.children() {
                Some((left, _)) => return SeekStep::Read(left.index()),
                None => (at, rest),
            },
            DescentState::Stopped(stop) => match stop {
                Stop::At(at, rest) => (at, rest),
                Stop::After(at) => {
                    return SeekStep::Found(Located::Block { index: at.end(), offset: 0 });
                }
                Stop::Beyond => return SeekStep::Found(Located::Beyond),
            },
        };
        // Only a padding that is larger than the blocks leaves what is no u64.
        let offset = u64::try_from(rest).unwrap_or(u64::MAX);
        SeekStep::Found(match at.depth() {
            0 => Located::Block { index: at.start(), offset },
            _ => Located::Within { blocks: at.start()..at.end(), offset },
        })
    }

    /// The node that was asked for, or `None` if it is not stored.
    pub fn handle_node(&mut self, node: Option<&Node>) {
        self.descent.handle_left(node);
    }
}

/// A way down from a node to the lowest stored one that has the offset.
#[derive(Clone, Debug)]
pub(crate) struct Descent {
    padding: u64,
    state: DescentState,
}

#[derive(Clone, Copy, Debug)]
enum DescentState {
    /// The offset is this many bytes after the start of what is below the node.
    Going(Position, i128),
    Stopped(Stop),
}

/// Where a [`Descent`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At a leaf, or above nodes that are not stored.
    At(Position, i128),
    /// Exactly at the end of what is below a node.
    After(Position),
    /// Beyond all roots.
    Beyond,
}

impl Stop {
    /// The node that a seek proof is for; `None` if there is none.
    pub(crate) fn position(self) -> Option<Position> {
        match self {
            Self::At(at, _) | Self::After(at) => Some(at),
            Self::Beyond => None,
        }
    }
}

impl Descent {
    /// Begins at the root that has the offset.
    pub(crate) fn from_roots(roots: &[Node], bytes: u64, padding: u64) -> Self {
        let mut rest = i128::from(bytes);
        let mut state = DescentState::Stopped(Stop::Beyond);
        for root in roots {
            let Some(position) = Position::from_index(root.index) else { continue };
            let size = unpadded(root, position, padding);
            if rest == size {
                state = DescentState::Stopped(Stop::After(position));
                break;
            }
            if rest < size {
                state = below(position, rest);
                break;
            }
            rest -= size;
        }
        Self { padding, state }
    }

    /// Begins at a node, `rest` bytes after the start of what is below it.
    pub(crate) fn below(position: Position, rest: i128, padding: u64) -> Self {
        Self { padding, state: below(position, rest) }
    }

    /// The left child that has to be read to go on, or where this ends.
    pub(crate) fn next(&self) -> Result<Position, Stop> {
        match self.state {
            DescentState::Going(at, rest) => at.children().map(|(left, _)| left).ok_or(Stop::At(at, rest)),
            DescentState::Stopped(stop) => Err(stop),
        }
    }

    /// Goes on with the left child, or ends if it is not stored.
    pub(crate) fn handle_left(&mut self, node: Option<&Node>) {
        let DescentState::Going(at, rest) = self.state else { return };
        let Some((left, right)) = at.children() else { return };
        self.state = match node.map(|node| unpadded(node, left, self.padding)) {
            None => DescentState::Stopped(Stop::At(at, rest)),
            Some(size) if size == rest => DescentState::Stopped(Stop::After(left)),
            Some(size) if size > rest => DescentState::Going(left, rest),
            Some(size) => DescentState::Going(right, rest - size),
        };
    }
}

fn below(position: Position, rest: i128) -> DescentState {
    if rest == 0 {
        DescentState::Stopped(Stop::At(position, rest))
    } else {
        DescentState::Going(position, rest)
    }
}

/// The bytes below a node, without the padding of each block. Below zero if a padding was named that
/// the blocks don't have.
//= FEED-71
pub(crate) fn unpadded(node: &Node, position: Position, padding: u64) -> i128 {
    i128::from(node.size) - i128::from(padding) * i128::from(position.end() - position.start())
}

/// The nodes whose sizes add up to the offset of what is below `position`, in a tree of `length` blocks;
/// `None` if it is not in that tree.
pub(crate) fn nodes_before(position: Position, length: u64) -> Option<Vec<Position>> {
    let mut before = Vec::new();
    for root in full_roots(length) {
        if root.end() <= position.start() {
            before.push(root);
            continue;
        }
        let mut at = position;
        let first = before.len();
        while at != root {
            if at.sibling().start() < at.start() {
                before.push(at.sibling());
            }
            at = at.parent().filter(|parent| root.contains(*parent))?;
        }
        if let Some(path) = before.get_mut(first..) {
            path.reverse();
        }
        return Some(before);
    }
    None
}
