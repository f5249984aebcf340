//! What waits to be sent to one worker: filled by the core thread, emptied by the worker's session.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use rota_server_core::{Ending, Pending, Start};
use tokio::sync::Notify;

/// A box that gathers.
#[derive(Default)]
pub(crate) struct Outbox {
    pending: Mutex<Pending>,
    filled: Notify,
}

impl rota_server_core::Outbox for Outbox {
    fn put(&self, add: impl FnOnce(&mut Pending)) {
        add(&mut self.lock());
        self.filled.notify_one();
    }
}

impl Outbox {
    /// Waits until there is something, and takes it all.
    pub(crate) async fn take(&self) -> Pending {
        loop {
            let filled = self.filled.notified();
            {
                let mut pending = self.lock();
                if !pending.is_empty() {
                    return std::mem::take(&mut *pending);
                }
            }
            filled.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
