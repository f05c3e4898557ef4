//! The remote as it has shown itself.

use super::{capability::RemoteHandshake, have::SharedHave, messages::Sync};
use crate::feed::local::Local;

/// What is known of the remote.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) handshake: Option<RemoteHandshake>,
    /// Whether a sync has come.
    pub(super) synced: bool,
    /// Its last sync.
    pub(super) sync: Sync,
    /// The feed's other channels look at it to see what is rare.
    pub(super) have: SharedHave,
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            handshake: None,
            synced: false,
            sync: Sync {
                fork: 0,
                length: 0,
                remote_length: 0,
                can_upgrade: false,
                uploading: true,
                downloading: true,
                has_manifest: false,
                allow_push: false,
            },
            have: SharedHave::default(),
        }
    }
}

impl Remote {
    /// Whether it answers seek requests, which have a padding: hypercore 10.20 and newer.
    pub(super) fn understands_seeks(&self) -> bool {
        self.handshake.is_some_and(|handshake| handshake.seeks)
    }

    /// Whether what it says of upgrades is about the length that we have.
    pub(super) fn acknowledges(&self, local: &dyn Local) -> bool {
        self.sync.fork == local.fork() && self.sync.remote_length == local.length()
    }
}
