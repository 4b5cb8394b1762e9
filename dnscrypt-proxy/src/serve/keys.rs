//! The key ring as it is at the moment, and the shared keys that were agreed on under it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::proto::server::{KeyCache, Keyring};

/// Shared keys kept: less than 100 bytes each, and as many as homes that one worker may have.
const KEPT: usize = 65_536;

/// Both, so that keys go with the certificate that they belong to.
pub(super) struct Keys {
    published: watch::Receiver<Arc<Keyring>>,
    ring: Arc<Keyring>,
    pub(super) kept: KeyCache,
}

impl Keys {
    pub(super) fn new(mut published: watch::Receiver<Arc<Keyring>>) -> Self {
        let ring = Arc::clone(&published.borrow_and_update());
        Self {
            published,
            ring,
            kept: KeyCache::new(KEPT),
        }
    }

    /// The key ring. When it is another one than before, what was agreed under the old one is forgotten.
    pub(super) fn current(&mut self) -> Arc<Keyring> {
        // A sender that is gone leaves its last key ring behind.
        if self.published.has_changed().unwrap_or(false) {
            self.ring = Arc::clone(&self.published.borrow_and_update());
            self.kept.retain_only(&self.ring);
        }
        Arc::clone(&self.ring)
    }
}
