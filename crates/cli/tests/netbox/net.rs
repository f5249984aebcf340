//! Parties with a network namespace each, and the switch between them: every packet goes through this process.
//!
//! Each namespace has one tun device with an address below 127.0.10.0/24, which the kernel is told to route like any other
//! (`route_localnet`), so that servers take each other for neighbours on loopback and speak plain HTTP. The transport between them is the
//! kernel's own: what the switch swallows is sent again, connections stall and break as over a real network.

use std::collections::VecDeque;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tappers::{Interface, Tun};

use crate::harness::{Chance, PATIENCE, until};

/// The largest packet that a device of ours hands out.
const PACKET_BYTES_MAX: usize = 1_500;
/// Packets that wait at most; more are lost, as in a switch.
const WAITING_MAX: usize = 20_000;

/// What happens to packets of one directed link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Nothing passes, and nobody is told.
    pub(crate) cut: bool,
    /// Of a hundred packets, so many are lost.
    pub(crate) loss_percent: u64,
    pub(crate) delay: Duration,
}

/// Packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packets {
    pub(crate) passed: u64,
    pub(crate) cut: u64,
    pub(crate) lost: u64,
    pub(crate) delayed: u64,
}

#[derive(Default)]
struct Counters {
    passed: AtomicU64,
    cut: AtomicU64,
    lost: AtomicU64,
    delayed: AtomicU64,
}

/// All parties, by place.
pub(crate) struct Net {
    spaces: Vec<File>,
    switch: Arc<Switch>,
}

struct Switch {
    devices: Vec<Tun>,
    /// By the places of sender and receiver.
    links: Mutex<Vec<Vec<Link>>>,
    waiting: Mutex<VecDeque<(Instant, usize, Vec<u8>)>>,
    counters: Counters,
}

impl Net {
    /// Makes so many namespaces and joins them. The process needs the rights of root in its user namespace.
    pub(crate) fn new(parties: usize, chance: &mut Chance) -> Self {
        let spaces: Vec<File> = (0..parties).map(|_| namespace()).collect();
        let device = |(place, space): (usize, &File)| within(space, || device(place));
        let devices = spaces.iter().enumerate().map(device).collect();
        let switch = Switch {
            devices,
            links: Mutex::new(vec![vec![Link::default(); parties]; parties]),
            waiting: Mutex::default(),
            counters: Counters::default(),
        };
        let switch = Arc::new(switch);
        for place in 0..parties {
            let (switch, chance) = (Arc::clone(&switch), chance.fork());
            thread::spawn(move || switch.read(place, chance));
        }
        let late = Arc::clone(&switch);
        thread::spawn(move || late.deliver_late());
        Self { spaces, switch }
    }

    /// Does something inside a party's namespace: processes and sockets that it makes belong there.
    pub(crate) fn within<T: Send>(&self, place: usize, act: impl FnOnce() -> T + Send) -> T {
        within(&self.spaces[place], act)
    }

    /// Moves this thread, and all that it starts from now on, into a party's namespace.
    pub(crate) fn enter(&self, place: usize) {
        enter(&self.spaces[place]);
    }

    /// Changes one directed link.
    pub(crate) fn set(&self, from: usize, to: usize, link: Link) {
        lock(&self.switch.links)[from][to] = link;
    }

    /// Everybody reaches everybody again, at once.
    pub(crate) fn heal(&self) {
        let mut links = lock(&self.switch.links);
        links.iter_mut().flatten().for_each(|link| *link = Link::default());
    }

    pub(crate) fn packets(&self) -> Packets {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.switch.counters;
        Packets {
            passed: read(&counters.passed),
            cut: read(&counters.cut),
            lost: read(&counters.lost),
            delayed: read(&counters.delayed),
        }
    }
}

impl Switch {
    /// Takes what one party sends, for ever.
    fn read(&self, from: usize, mut chance: Chance) {
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            let Ok(length) = self.devices[from].recv(&mut buffer) else { return };
            let packet = &buffer[..length];
            let Some(to) = receiver(packet).filter(|to| *to < self.devices.len()) else { continue };
            let link = lock(&self.links)[from][to];
            if link.cut {
                count(&self.counters.cut);
            } else if chance.percent(link.loss_percent) {
                count(&self.counters.lost);
            } else if link.delay.is_zero() {
                self.hand_over(to, packet);
            } else {
                count(&self.counters.delayed);
                let mut waiting = lock(&self.waiting);
                if waiting.len() < WAITING_MAX {
                    waiting.push_back((Instant::now() + link.delay, to, packet.to_vec()));
                }
            }
        }
    }

    /// Hands over what waited. Delays differ little, so that the order of arrival is that of sending, as on one road.
    fn deliver_late(&self) {
        loop {
            let now = Instant::now();
            let due = {
                let mut waiting = lock(&self.waiting);
                let due = waiting.front().is_some_and(|(at, ..)| *at <= now);
                if due { waiting.pop_front() } else { None }
            };
            match due {
                Some((_, to, packet)) => self.hand_over(to, &packet),
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn hand_over(&self, to: usize, packet: &[u8]) {
        // A device that takes nothing is a lost packet.
        if self.devices[to].send(packet).is_ok() {
            count(&self.counters.passed);
        }
    }
}

/// The address of a party.
pub(crate) fn address(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 10, place as u8 + 1)
}

/// Where a party listens.
pub(crate) fn listen(place: usize) -> SocketAddr {
    SocketAddr::from((address(place), 7600))
}

/// The place of the party that an IPv4 packet is for; others are not ours.
fn receiver(packet: &[u8]) -> Option<usize> {
    match *packet.get(..20)? {
        [0x45..=0x4f, .., 127, 0, 10, last] => usize::from(last).checked_sub(1),
        _ => None,
    }
}

/// A new namespace. It lasts as long as the file is open.
fn namespace() -> File {
    let mut holder = Command::new("unshare")
        .args(["-n", "sleep", "60"])
        .stdin(Stdio::null())
        .spawn()
        .expect("unshare starts");
    let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
    let ours = std::fs::read_link("/proc/self/ns/net").expect("this system has namespaces");
    let space = until("a network namespace", PATIENCE, || {
        let theirs = std::fs::read_link(&path).ok()?;
        (theirs != ours).then(|| File::open(&path).ok()).flatten()
    });
    holder.kill().expect("a child that was not reaped can be killed");
    holder.wait().expect("a child can be waited for");
    space
}

/// The device of the namespace that this thread is in.
fn device(place: usize) -> Tun {
    let name = Interface::new("rota0").expect("a short name");
    let device = Tun::new_named(name).expect("/dev/net/tun makes devices");
    let address = address(place);
    // Loopback would claim the whole of 127.0.0.0/8.
    let script = format!(
        "set -e; ip link set lo up; ip addr del 127.0.0.1/8 dev lo; ip addr add 127.0.0.1/32 dev lo
        echo 1 > /proc/sys/net/ipv4/conf/rota0/route_localnet
        ip addr add {address}/24 dev rota0; ip link set rota0 mtu {PACKET_BYTES_MAX} up"
    );
    let done = Command::new("sh").args(["-c", &script]).status().expect("a shell starts");
    assert!(done.success(), "the network of party {place} can't be set up");
    device
}

fn within<T: Send>(space: &File, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            enter(space);
            act()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn enter(space: &File) {
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("a namespace of ours can be entered");
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
