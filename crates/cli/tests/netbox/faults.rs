//! Doing what the plan says to servers, workers and the switch.

use std::time::{Duration, Instant};

use rota_api::ClusterStatus;

use crate::harness::{Api, PATIENCE, Server, Signal, Worker, until};
use crate::net::{Link, Net, Packets};
use crate::plan::{Fault, Step};

/// Servers come first, then workers; the last party is the clients'.
pub(crate) struct Cluster<'a> {
    pub(crate) net: &'a Net,
    pub(crate) servers: Vec<Server>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) api: Api,
    pub(crate) began: Instant,
}

/// A fault as it was.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) fault: Fault,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    /// Packets that were swallowed or held back meanwhile.
    pub(crate) packets: u64,
    /// The worker that it struck, if any.
    pub(crate) worker: Option<String>,
}

const CUT: Link = Link { cut: true, loss_percent: 0, delay: Duration::ZERO };
const BAD: Link = Link { cut: false, loss_percent: 8, delay: Duration::from_millis(40) };

impl Cluster<'_> {
    pub(crate) fn launch_server(&mut self, place: usize) {
        let server = &mut self.servers[place];
        self.net.within(place, || server.launch());
    }

    pub(crate) fn launch_worker(&mut self, place: usize) {
        let party = self.servers.len() + place;
        let worker = &mut self.workers[place];
        self.net.within(party, || worker.launch());
    }

    /// One fault, from its beginning to the rest after it.
    pub(crate) fn strike(&mut self, step: &Step) -> Done {
        let leader = self.leader();
        let (from, before) = (self.began.elapsed(), self.net.packets());
        let count = self.servers.len();
        // Any server but the leader.
        let other = (leader + 1 + step.draw as usize % (count - 1)) % count;
        let worker = step.draw as usize % self.workers.len();
        let mut struck = None;
        match step.fault {
            Fault::FreezeLeader => {
                self.servers[leader].process().signal(Signal::STOP);
                std::thread::sleep(step.lasts);
                self.servers[leader].process().signal(Signal::CONT);
            }
            Fault::KillServer => {
                let victim = if step.draw.is_multiple_of(3) { other } else { leader };
                self.servers[victim].kill();
                std::thread::sleep(step.lasts);
                self.launch_server(victim);
            }
            Fault::KillWorker => {
                struck = Some(self.workers[worker].name.clone());
                self.workers[worker].kill();
                std::thread::sleep(step.lasts);
                self.launch_worker(worker);
            }
            Fault::FreezeWorker => {
                struck = Some(self.workers[worker].name.clone());
                self.workers[worker].process().signal(Signal::STOP);
                std::thread::sleep(step.lasts);
                self.workers[worker].process().signal(Signal::CONT);
            }
            Fault::CutWorker => {
                struck = Some(self.workers[worker].name.clone());
                for server in 0..count {
                    self.both_ways(server, count + worker);
                }
                std::thread::sleep(step.lasts);
            }
            of_the_servers => {
                self.harm_links(of_the_servers, leader, other);
                std::thread::sleep(step.lasts);
            }
        }
        self.net.heal();
        let after = self.net.packets();
        let to = self.began.elapsed();
        std::thread::sleep(step.rest);
        self.nobody_ended();
        let packets = troubled(after) - troubled(before);
        Done { fault: step.fault, from, to, packets, worker: struck }
    }

    /// Faults between servers.
    fn harm_links(&self, fault: Fault, leader: usize, other: usize) {
        let count = self.servers.len();
        let minority = count / 2;
        let others = || (0..count).filter(move |place| *place != leader);
        match fault {
            Fault::SplitLeader | Fault::SplitOthers => {
                let first = if fault == Fault::SplitLeader { leader } else { other };
                let after = (1..count).map(|step| (first + step) % count);
                let friends = after.filter(|place| *place != leader).take(minority - 1);
                let side: Vec<usize> = std::iter::once(first).chain(friends).collect();
                self.apart(&side, &self.rest_of(&side));
            }
            Fault::LeaderMute => others().for_each(|to| self.net.set(leader, to, CUT)),
            Fault::LeaderDeaf => others().for_each(|from| self.net.set(from, leader, CUT)),
            Fault::OneWay => self.net.set(leader, other, CUT),
            Fault::Bridge => {
                let halves: Vec<usize> = others().filter(|place| *place != other).collect();
                let (friends, far) = halves.split_at(minority - 1);
                let near: Vec<usize> = friends.iter().copied().chain([leader]).collect();
                self.apart(&near, far);
            }
            Fault::Star => {
                for from in (0..count).filter(|from| *from != other) {
                    let apart = (0..count).filter(|to| *to != other && *to != from);
                    apart.for_each(|to| self.net.set(from, to, CUT));
                }
            }
            Fault::IsolateLeader => {
                let parties = count + self.workers.len() + 1;
                (0..parties)
                    .filter(|party| *party != leader)
                    .for_each(|party| self.both_ways(leader, party));
            }
            Fault::Bad => {
                for from in 0..count {
                    (0..count).filter(|to| *to != from).for_each(|to| self.net.set(from, to, BAD));
                }
            }
            Fault::FreezeLeader
            | Fault::KillServer
            | Fault::KillWorker
            | Fault::CutWorker
            | Fault::FreezeWorker => unreachable!("{fault:?} is not about links between servers"),
        }
    }

    fn rest_of(&self, side: &[usize]) -> Vec<usize> {
        (0..self.servers.len()).filter(|place| !side.contains(place)).collect()
    }

    fn apart(&self, one: &[usize], another: &[usize]) {
        for from in one {
            another.iter().for_each(|to| self.both_ways(*from, *to));
        }
    }

    fn both_ways(&self, one: usize, another: usize) {
        self.net.set(one, another, CUT);
        self.net.set(another, one, CUT);
    }

    fn nobody_ended(&mut self) {
        self.servers.iter_mut().for_each(|server| server.process().must_run());
        self.workers.iter_mut().for_each(|worker| worker.process().must_run());
    }

    /// Which server leads, from 0.
    fn leader(&self) -> usize {
        let api = self.api.within(Duration::from_secs(1));
        until("a leader", PATIENCE, || {
            let answer = api.send("GET", "/v1/cluster/status", &[], b"").ok()?;
            let status: Option<ClusterStatus> = (answer.status == 200).then(|| answer.json());
            Some(usize::try_from(status?.leader?).ok()? - 1)
        })
    }
}

fn troubled(packets: Packets) -> u64 {
    packets.cut + packets.lost + packets.delayed
}
