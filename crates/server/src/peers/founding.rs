//! Before a cluster is founded: the founders look for each other.
//!
//! A server whose directory was emptied must not come back under its old number: it has voted and acknowledged, and does not know that
//! any more. Nobody can tell such a server from a new one by looking at its directory, but those can whom it has spoken to. So each
//! server notes durably whom it has met, before it believes anything that the other one says; and a founder with an empty directory takes
//! part only when *every* other founder has answered that it has not met it. A majority would not be enough: the one that was met, and
//! holds what was acknowledged, may be the one that is away.

use std::collections::BTreeMap;
use std::time::Duration;

use rota_types::{LogIndex, ServerId};
use rota_wire::peer as pb;
use rota_wire::peer::peer_gateway_client::PeerGatewayClient;
use tonic::Status;
use tracing::{debug, info};

use super::{Images, Origin, link};
use crate::founding::Gate;
use crate::handle::{Core, Request};
use crate::memory::{Ground, Memory};
use crate::out::Out;

/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How often those are asked again who have not answered.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is said for whom this server waits.
const REMIND_EVERY: u32 = 50;

/// Knows who has been here before, and what the cluster is founded on.
#[derive(Clone, Debug)]
pub(crate) struct Doorkeeper {
    pub(crate) memory: Memory,
    /// What this server has before it takes part.
    pub(crate) ground: Ground,
    pub(crate) gate: Gate,
}

impl Doorkeeper {
    /// Notes that a server takes part.
    pub(super) async fn meet(&self, server: ServerId) -> Result<(), Status> {
        if self.memory.has_met(server) {
            return Ok(());
        }
        let memory = self.memory.clone();
        let noted = tokio::task::spawn_blocking(move || memory.meet(server)).await;
        let noted = noted.map_err(|error| Status::internal(error.to_string()))?;
        noted
            .map_err(|error| Status::internal(format!("cannot note whom this server met: {error}")))
    }

    /// What a founder is told that asks.
    pub(super) fn tell(&self, founder: ServerId) -> pb::Acquainted {
        let founded = self.memory.founded();
        let Ground { index, digest } = founded.unwrap_or(self.ground);
        let met = self.memory.has_met(founder);
        pb::Acquainted { met, founded: founded.is_some(), index, digest }
    }
}

/// A founder that looks for the others.
pub(crate) struct Founders {
    pub(crate) origin: Origin,
    pub(crate) others: BTreeMap<ServerId, String>,
    pub(crate) ground: Ground,
    pub(crate) images: Images,
    pub(crate) core: Core,
}

/// What the answers come to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Not all have answered, or not all have what the cluster is founded on.
    Wait,
    /// All is in order.
    Found,
    /// This one holds what the cluster is founded on.
    Fetch(ServerId, Ground),
    /// This server must not take part.
    Out(Out),
}

impl Founders {
    /// Asks until all is in order, and tells the core thread what comes of it.
    pub(crate) async fn assemble(self) {
        let mut rounds = 0_u32;
        loop {
            let answers = self.ask().await;
            match judge(self.origin.identity.server, self.ground, &self.others, &answers) {
                Verdict::Wait => {}
                Verdict::Found => return self.core.tell(Request::Found),
                Verdict::Out(out) => return self.core.tell(Request::Out(out)),
                Verdict::Fetch(holder, ground) => {
                    info!(from = %holder, "the cluster is founded on another server's data");
                    match self.fetch(holder, ground).await {
                        Ok(()) => return self.core.tell(Request::Fetched(Ok(()))),
                        Err(error) => info!(%error, "could not get it; trying again"),
                    }
                }
            }
            if rounds.is_multiple_of(REMIND_EVERY) {
                let missing: Vec<String> = self
                    .others
                    .iter()
                    .filter(|(id, _)| !answers.contains_key(id))
                    .map(|(id, address)| format!("{id} at {address}"))
                    .collect();
                info!(
                    servers = missing.join(", "),
                    "waits for all founders before the cluster is founded; missing"
                );
            }
            rounds = rounds.wrapping_add(1);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn fetch(&self, holder: ServerId, ground: Ground) -> Result<(), String> {
        let address = self.others.get(&holder).map_or("", String::as_str);
        self.images.fetch(address, self.origin.introduction(holder), LogIndex(ground.index)).await
    }

    async fn ask(&self) -> BTreeMap<ServerId, pb::Acquainted> {
        let asked = self.others.iter().map(|(id, address)| async move {
            let introduction = self.origin.introduction(*id);
            let asking = acquaint(address, introduction, &self.images);
            match tokio::time::timeout(ANSWER_WAIT, asking).await {
                Ok(Ok(answer)) => Some((*id, answer)),
                Ok(Err(error)) => {
                    debug!(peer = %id, %error, "no answer yet");
                    None
                }
                Err(_) => None,
            }
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }
}

async fn acquaint(
    address: &str,
    introduction: pb::Introduction,
    images: &Images,
) -> Result<pb::Acquainted, String> {
    let channel =
        link::connect(address, images.tls.as_ref()).await.map_err(|error| error.to_string())?;
    let answer = PeerGatewayClient::new(channel).acquaint(introduction).await;
    answer.map(tonic::Response::into_inner).map_err(|status| status.to_string())
}

/// What a founder does, given what the others say.
fn judge(
    own: ServerId,
    ground: Ground,
    others: &BTreeMap<ServerId, String>,
    answers: &BTreeMap<ServerId, pb::Acquainted>,
) -> Verdict {
    if let Some((by, _)) = answers.iter().find(|(_, answer)| answer.met) {
        return Verdict::Out(Out::Forgotten { server: own, by: *by });
    }
    let ground_of = |answer: &pb::Acquainted| Ground { index: answer.index, digest: answer.digest };
    let different = answers.iter().find(|(_, answer)| {
        let other = ground_of(answer);
        other != ground && other.index > 0
    });
    match different {
        // It was founded with this server, which had that data then.
        Some((by, answer)) if answer.founded => {
            Verdict::Out(Out::Forgotten { server: own, by: *by })
        }
        Some((holder, answer)) if ground.index == 0 => Verdict::Fetch(*holder, ground_of(answer)),
        Some((other, _)) => Verdict::Out(Out::TwoStates { server: own, other: *other }),
        None => {
            let in_order =
                |id: &ServerId| answers.get(id).is_some_and(|answer| ground_of(answer) == ground);
            if others.keys().all(in_order) { Verdict::Found } else { Verdict::Wait }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Ground = Ground { index: 0, digest: 1 };
    const DATA: Ground = Ground { index: 9, digest: 2 };

    fn verdict(ground: Ground, answers: &[(u64, bool, bool, Ground)]) -> Verdict {
        let others = [2, 3].map(|id| (ServerId(id), String::new())).into();
        let answers = answers.iter().map(|(id, met, founded, Ground { index, digest })| {
            let (met, founded, index, digest) = (*met, *founded, *index, *digest);
            (ServerId(*id), pb::Acquainted { met, founded, index, digest })
        });
        judge(ServerId(1), ground, &others, &answers.collect())
    }

    #[test]
    fn a_cluster_begins_when_every_founder_has_answered_and_none_has_met_this_one() {
        assert_eq!(verdict(NEW, &[]), Verdict::Wait);
        assert_eq!(verdict(NEW, &[(2, false, false, NEW)]), Verdict::Wait);
        let all = [(2, false, false, NEW), (3, false, false, NEW)];
        assert_eq!(verdict(NEW, &all), Verdict::Found);
        let begun = [(2, false, true, NEW), (3, false, true, NEW)];
        assert_eq!(verdict(NEW, &begun), Verdict::Found);
    }

    #[test]
    fn one_that_any_other_has_met_stays_out_whoever_else_is_away() {
        let out = Verdict::Out(Out::Forgotten { server: ServerId(1), by: ServerId(3) });
        assert_eq!(verdict(NEW, &[(3, true, true, NEW)]), out);
        assert_eq!(verdict(NEW, &[(2, false, true, NEW), (3, true, true, NEW)]), out);
    }

    #[test]
    fn the_others_get_what_one_holds_before_anybody_begins() {
        let fetch = Verdict::Fetch(ServerId(2), DATA);
        assert_eq!(verdict(NEW, &[(2, false, false, DATA)]), fetch);
        assert_eq!(verdict(NEW, &[(2, false, false, DATA), (3, false, false, NEW)]), fetch);
        let waiting = [(2, false, false, NEW), (3, false, false, DATA)];
        assert_eq!(verdict(DATA, &waiting), Verdict::Wait);
        let all = [(2, false, false, DATA), (3, false, true, DATA)];
        assert_eq!(verdict(DATA, &all), Verdict::Found);
        let other = Ground { digest: 3, ..DATA };
        let two = Verdict::Out(Out::TwoStates { server: ServerId(1), other: ServerId(3) });
        assert_eq!(verdict(other, &[(3, false, false, DATA)]), two);
    }

    #[test]
    fn one_that_comes_empty_to_a_cluster_that_was_founded_on_data_has_forgotten_that() {
        let out = Verdict::Out(Out::Forgotten { server: ServerId(1), by: ServerId(2) });
        assert_eq!(verdict(NEW, &[(2, false, true, DATA)]), out);
    }
}
