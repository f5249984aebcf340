//! Servers speaking to each other: messages of the log, and whole images for a server that the log no longer reaches.
//!
//! A message may be lost, at any time and without notice: the log repeats what matters. What must not happen is that a slow or dead
//! peer holds up the core thread or fills the memory, so sending never waits and drops what does not fit.

mod founding;
mod gateway;
mod image;
mod link;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rota_ports::MessageBytes;
use rota_store::Identity;
use rota_types::{LogIndex, ServerId};
use rota_wire::peer as pb;
use tokio::sync::watch;

pub(crate) use founding::{Doorkeeper, Founders};
pub(crate) use gateway::{PeerGateway, Service};
pub(crate) use image::Images;

use crate::handle::{Core, Request};
use link::{Item, Link};

/// Bytes of one message between servers: an entry of the largest size with what goes around it.
const MESSAGE_BYTES_MAX: usize = 2 * rota_types::limits::ENTRY_BYTES_MAX;

/// What a server is told that was removed.
const REMOVED: tonic::Code = tonic::Code::NotFound;

/// The links to the other servers.
pub(crate) struct Peers {
    origin: Origin,
    images: Images,
    core: Core,
    outside: Outside,
    links: Mutex<BTreeMap<ServerId, Link>>,
}

/// Where links run, and until when.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) stop: watch::Receiver<bool>,
}

/// What a server says of itself to its peers.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) identity: Identity,
    /// Where it can be reached.
    pub(crate) address: String,
    /// The highest feature level that it understands.
    pub(crate) level: u32,
}

impl Origin {
    fn introduction(&self, to: ServerId) -> pb::Introduction {
        pb::Introduction {
            protocol: pb::PROTOCOL,
            cluster: self.identity.cluster.0.to_vec(),
            from: self.identity.server.0,
            to: to.0,
            address: self.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            level: self.level,
        }
    }
}

impl Peers {
    /// No links yet.
    pub(crate) fn new(origin: Origin, images: Images, core: Core, outside: Outside) -> Arc<Self> {
        Arc::new(Self { origin, images, core, outside, links: Mutex::default() })
    }

    /// Has a link to each of these servers and to no other. A server whose address is still the same keeps its link.
    pub(crate) fn connect(&self, addresses: &BTreeMap<ServerId, Arc<str>>) {
        let mut links = self.links();
        links.retain(|id, link| addresses.get(id).is_some_and(|address| link.leads_to(address)));
        for (id, address) in addresses {
            if *id != self.origin.identity.server {
                links.entry(*id).or_insert_with(|| {
                    let introduction = self.origin.introduction(*id);
                    let line = link::Line {
                        peer: *id,
                        address: address.clone(),
                        introduction,
                        core: self.core.clone(),
                        tls: self.images.tls.clone(),
                    };
                    Link::open(line, &self.outside.runtime, self.outside.stop.clone())
                });
            }
        }
    }

    /// Sends a message if there is a link and room on it.
    pub(crate) fn send(&self, to: ServerId, message: MessageBytes) {
        if let Some(link) = self.links().get(&to) {
            link.send(Item::Message(message));
        }
    }

    /// Tells every peer what this server made of the log.
    pub(crate) fn tell(&self, index: LogIndex, digest: u64) {
        for link in self.links().values() {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            link.send(Item::Sample(pb::Sample { index: index.0, digest, version }));
        }
    }

    /// Gets the image of at least the entry at `least` from a peer, and tells the core thread how that went.
    pub(crate) fn fetch(&self, peer: ServerId, address: &str, least: LogIndex) {
        let introduction = self.origin.introduction(peer);
        let (images, core) = (self.images.clone(), self.core.clone());
        let (address, mut stop) = (address.to_owned(), self.outside.stop.clone());
        self.outside.runtime.spawn(async move {
            let fetched = tokio::select! {
                fetched = images.fetch(&address, introduction, least) => fetched,
                () = crate::stopped(&mut stop) => return,
            };
            core.tell(Request::Fetched(fetched));
        });
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<ServerId, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
