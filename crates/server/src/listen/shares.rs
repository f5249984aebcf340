//! No address may take all places for connections: whoever has not proved who they are gets a share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How many connections each address has open without having proved anything.
#[derive(Clone)]
pub(super) struct Shares {
    open: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    max: usize,
}

/// One connection's part of its address's share, until dropped.
pub(super) struct Share {
    open: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    from: IpAddr,
}

impl Shares {
    /// A quarter of the places for each address.
    pub(super) fn of(places: usize) -> Self {
        Self { open: Arc::default(), max: (places / 4).max(1) }
    }

    /// A part of this address's share, if any is left.
    pub(super) fn take(&self, from: IpAddr) -> Option<Share> {
        let from = from.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(from).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Share { open: Arc::clone(&self.open), from })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_share_and_gives_it_back() {
        let shares = Shares::of(8);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = shares.take(one);
        let second = shares.take("::ffff:192.0.2.1".parse().unwrap());
        assert!(first.is_some() && second.is_some());
        assert!(shares.take(one).is_none() && shares.take(other).is_some());
        drop(first);
        assert!(shares.take(one).is_some());
        drop(second);
        assert_eq!(shares.open.lock().unwrap().len(), 0);
        assert!(Shares::of(3).take(one).is_some(), "everybody gets one");
    }
}
