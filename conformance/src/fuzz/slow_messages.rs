//! Messages of a feed's channel, laid out by hand after `protocol-spec/07-replication.md#messages`.

use party::{
    feed::{manifest::Manifest, proof::Node},
    replication::messages::Message,
};

/// Values one after the other.
#[derive(Default)]
struct Page(Vec<u8>);

impl Page {
    fn uints<const N: usize>(mut self, values: [u64; N]) -> Self {
        for value in values {
            let bytes = value.to_le_bytes();
            let (tag, length) = match value {
                0..=0xfc => (None, 1),
                0xfd..=0xffff => (Some(0xfd), 2),
                0x1_0000..=0xffff_ffff => (Some(0xfe), 4),
                _ => (Some(0xff), 8),
            };
            self.0.extend(tag.into_iter().chain(bytes.into_iter().take(length)));
        }
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn buffer(self, bytes: &[u8]) -> Self {
        self.uints([bytes.len() as u64]).raw(bytes)
    }

    fn nodes(self, nodes: &[Node]) -> Self {
        let page = self.uints([nodes.len() as u64]);
        nodes.iter().fold(page, |page, node| page.uints([node.index, node.size]).raw(&node.hash))
    }

    /// One of the two that the fuzzer knows: of version 0 with one signer, or of version 1.
    fn manifest(self, manifest: &Manifest) -> Self {
        let page = match manifest.version {
            0 => self.uints([0, 0, 1]),
            version => self.uints([version.into(), 0, 0, manifest.quorum, manifest.signers.len() as u64]),
        };
        manifest.signers.iter().fold(page, |page, signer| {
            page.uints([0]).raw(&signer.namespace).raw(signer.public_key.as_bytes())
        })
    }

    fn when<T>(self, part: Option<T>, put: impl FnOnce(Self, T) -> Self) -> Self {
        match part {
            Some(part) => put(self, part),
            None => self,
        }
    }
}

/// The sum of the flags that are set.
fn flags<const N: usize>(set: [bool; N]) -> u64 {
    set.iter().enumerate().filter(|(_, set)| **set).map(|(n, _)| 1 << n).sum()
}

pub(super) fn encode(message: &Message) -> Vec<u8> {
    let page = Page::default();
    let page = match message {
        Message::Sync(sync) => {
            let flags = flags([
                sync.can_upgrade,
                sync.uploading,
                sync.downloading,
                sync.has_manifest,
                sync.allow_push,
            ]);
            page.uints([flags, sync.fork, sync.length, sync.remote_length])
        }
        Message::Request(request) => {
            let proof = &request.proof;
            let flags = flags([
                proof.block.is_some(),
                proof.hash.is_some(),
                proof.seek.is_some(),
                proof.upgrade.is_some(),
                proof.manifest,
                request.priority > 0,
            ]);
            page.uints([flags, request.id, request.fork])
                .when(proof.block, |page, block| page.uints([block.index, block.nodes]))
                .when(proof.hash, |page, hash| page.uints([hash.index, hash.nodes]))
                .when(proof.seek, |page, seek| page.uints([seek.bytes, seek.padding]))
                .when(proof.upgrade, |page, upgrade| page.uints([upgrade.start, upgrade.length]))
                .when(Some(request.priority).filter(|priority| *priority > 0), |page, it| page.uints([it]))
        }
        Message::Cancel { request } => page.uints([*request]),
        Message::Data(data) => {
            let proof = &data.proof;
            let flags = flags([
                proof.block.is_some(),
                proof.hash.is_some(),
                proof.seek.is_some(),
                proof.upgrade.is_some(),
                proof.manifest.is_some(),
            ]);
            page.uints([flags, data.request, proof.fork])
                .when(proof.block.as_ref(), |page, block| {
                    page.uints([block.index]).buffer(&block.value).nodes(&block.nodes)
                })
                .when(proof.hash.as_ref(), |page, hash| page.uints([hash.index]).nodes(&hash.nodes))
                .when(proof.seek.as_ref(), |page, seek| page.uints([seek.bytes]).nodes(&seek.nodes))
                .when(proof.upgrade.as_ref(), |page, upgrade| {
                    page.uints([upgrade.start, upgrade.length])
                        .nodes(&upgrade.nodes)
                        .nodes(&upgrade.additional_nodes)
                        .buffer(&upgrade.signature)
                })
                .when(proof.manifest.as_deref(), Page::manifest)
        }
        Message::NoData(no_data) => {
            let has_reason = no_data.reason > 0;
            page.uints([no_data.request, flags([has_reason])])
                .when(Some(no_data.reason).filter(|_| has_reason), |page, reason| page.uints([reason]))
        }
        // Without a flag, as hypercore 10 writes it.
        Message::Want(want) | Message::Unwant(want) => {
            let page = page.uints([want.start, want.length]);
            if want.any { page.uints([1]) } else { page }
        }
        Message::Bitfield(bitfield) => {
            let page = page.uints([bitfield.start, bitfield.words.len() as u64]);
            bitfield.words.iter().fold(page, |page, word| page.raw(&word.to_le_bytes()))
        }
        Message::Range(range) => {
            let flags = flags([range.drop, range.length == 1]);
            let length = Some(range.length).filter(|length| *length != 1);
            page.uints([flags, range.start]).when(length, |page, length| page.uints([length]))
        }
        Message::Extension(extension) => page.buffer(extension.name.as_bytes()).raw(&extension.message),
    };
    page.0
}
