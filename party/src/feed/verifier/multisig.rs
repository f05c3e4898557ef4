//! The signature field of a feed with several signers: who signed, and the nodes that lead from the tree at
//! hand to the longer ones that some of them have signed.
//!
//! The layouts are those of hypercore 11's `lib/multisig.js`; see `protocol-spec/06-feeds.md`.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    encoding::{Reader, Writer},
    error::DecodeError,
    feed::{proof::Node, tree::Position},
    key::Signature,
    limits::Limits,
};

/// The most nodes in the patch of a multi-signature: two paths through the highest tree for each signer.
pub(crate) const MAX_PATCH_NODES: usize = 256 * 104;

/// Signatures of several signers over one tree, or over longer trees that begin with it.
pub(crate) struct MultiSignature {
    pub(crate) parts: Vec<Part>,
    /// Nodes from the tree to the longer ones, by index.
    pub(crate) patch: HashMap<u64, Node>,
}

/// One signer's share.
pub(crate) struct Part {
    pub(crate) signer: u64,
    pub(crate) signature: Signature,
    /// How many blocks longer the tree was that this signer signed.
    pub(crate) patch: u64,
}

impl MultiSignature {
    /// Lays out the parts, each with the nodes of its patch, which is empty where it has none.
    //= protocol-spec/06-feeds.md#the-signature-field
    pub(crate) fn assemble(parts: &[(Part, Vec<Node>)], version: u8) -> Bytes {
        let mut out = Vec::with_capacity(2 + 66 * parts.len());
        let mut patch: Vec<Node> = Vec::new();
        out.put_uint(parts.len() as u64);
        for (part, nodes) in parts {
            if version == 0 {
                part.encode_v0(nodes, &mut patch, &mut out);
            } else {
                part.encode(&mut out);
                for node in nodes {
                    if patch.iter().all(|known| known.index != node.index) {
                        patch.push(*node);
                    }
                }
            }
        }
        out.put_uint(patch.len() as u64);
        for node in &patch {
            encode_node(node, &mut out);
        }
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8], version: u8) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let n = reader.count(66, Limits::default().max_signers)?;
        let parts = (0..n)
            .map(|_| if version == 0 { Part::decode_v0(&mut reader) } else { Part::decode(&mut reader) })
            .collect::<Result<_, _>>()?;
        let n = reader.count(34, MAX_PATCH_NODES)?;
        let patch = (0..n)
            .map(|_| decode_node(&mut reader).map(|node| (node.index, node)))
            .collect::<Result<_, DecodeError>>()?;
        Ok(Self { parts, patch })
    }
}

impl Part {
    fn encode(&self, out: &mut impl Writer) {
        out.put_uint(self.signer);
        out.put_bytes(&self.signature);
        out.put_uint(self.patch);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { signer: reader.uint()?, signature: reader.array()?, patch: reader.uint()? })
    }

    /// Version 0 also names the patch's nodes by their number among all, which nobody reads, and as its start
    /// the length that the last of them ends at.
    fn encode_v0(&self, nodes: &[Node], patch: &mut Vec<Node>, out: &mut impl Writer) {
        out.put_uint(u64::from(self.patch > 0));
        out.put_uint(self.signer);
        out.put_bytes(&self.signature);
        if self.patch == 0 {
            return;
        }
        let end = nodes.last().and_then(|node| Position::from_index(node.index)).map_or(0, Position::end);
        out.put_uint(end);
        out.put_uint(self.patch);
        out.put_uint(nodes.len() as u64);
        for node in nodes {
            let n = patch.iter().position(|known| known == node).unwrap_or_else(|| {
                patch.push(*node);
                patch.len() - 1
            });
            out.put_uint(n as u64);
        }
    }

    fn decode_v0(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let patched = reader.uint()? & 1 != 0;
        let mut part = Self { signer: reader.uint()?, signature: reader.array()?, patch: 0 };
        if patched {
            reader.uint()?;
            part.patch = reader.uint()?;
            for _ in 0..reader.count(1, MAX_PATCH_NODES)? {
                reader.uint()?;
            }
        }
        Ok(part)
    }
}

pub(crate) fn encode_node(node: &Node, out: &mut impl Writer) {
    out.put_uint(node.index);
    out.put_uint(node.size);
    out.put_bytes(&node.hash);
}

pub(crate) fn decode_node(reader: &mut Reader<'_>) -> Result<Node, DecodeError> {
    Ok(Node { index: reader.uint()?, size: reader.uint()?, hash: reader.array()? })
}
