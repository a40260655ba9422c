//! Connections of peers that nobody has recognized yet: so many at once, and beyond that one of them ends for each new one.
//!
//! Without this, whoever opens connections and says nothing takes the places of all others. One of the address that has most of them
//! goes first, the oldest: somebody who opens very many pushes out their own.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The connections of strangers of a listener.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    /// By address, the oldest first.
    of: HashMap<IpAddr, BTreeMap<u64, CancellationToken>>,
    count: usize,
    next: u64,
}

/// Whether the peer of a connection was recognized. Clones are of the same connection.
#[derive(Debug, Clone)]
pub struct Acquaintance(Arc<Stranger>);

#[derive(Debug)]
struct Stranger {
    strangers: Arc<Strangers>,
    address: IpAddr,
    number: u64,
    ended: CancellationToken,
    is_recognized: AtomicBool,
}

impl Strangers {
    /// Counts a connection from `address` among the strangers. If there are `most` of them, one ends.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr, most: usize) -> Acquaintance {
        let address = network_of(address);
        let ended = CancellationToken::new();
        let mut all = self.all();
        while all.count >= most.max(1) {
            all.end_one();
        }
        let number = all.next;
        all.next += 1;
        all.count += 1;
        all.of.entry(address).or_default().insert(number, ended.clone());
        drop(all);
        let (strangers, is_recognized) = (Arc::clone(self), AtomicBool::new(false));
        Acquaintance(Arc::new(Stranger { strangers, address, number, ended, is_recognized }))
    }

    /// Ends a connection of a stranger, if there is one.
    pub(crate) fn end_one(&self) {
        self.all().end_one();
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().expect("no one panics while holding the strangers")
    }
}

impl All {
    fn end_one(&mut self) {
        let most = self.of.iter().max_by_key(|(_, connections)| connections.len()).map(|(address, _)| *address);
        let Some(connections) = most.and_then(|address| self.of.get_mut(&address)) else {
            self.count = 0;
            return;
        };
        if let Some((_, ended)) = connections.pop_first() {
            ended.cancel();
            self.count -= 1;
            metrics::counter!("connlog_connections_ended_total", "cause" => "stranger").increment(1);
        }
        if connections.is_empty() {
            self.of.retain(|_, connections| !connections.is_empty());
        }
    }
}

impl Acquaintance {
    /// The peer is somebody who may be here: its connection no longer gives way to others.
    pub fn recognize(&self) {
        if !self.0.is_recognized.swap(true, Ordering::Relaxed) {
            self.0.leave();
        }
    }

    /// Whether somebody recognized the peer.
    pub(crate) fn is_recognized(&self) -> bool {
        self.0.is_recognized.load(Ordering::Relaxed)
    }

    /// Until the connection has to give way.
    pub(crate) fn ended(&self) -> WaitForCancellationFutureOwned {
        self.0.ended.clone().cancelled_owned()
    }
}

impl Stranger {
    fn leave(&self) {
        let mut all = self.strangers.all();
        let Some(connections) = all.of.get_mut(&self.address) else { return };
        let was_there = connections.remove(&self.number).is_some();
        if connections.is_empty() {
            all.of.remove(&self.address);
        }
        all.count -= usize::from(was_there);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Whoever has one IPv6 address has the 2^64 of its network.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_address_that_has_most_gives_way_and_the_recognized_do_not() {
        let strangers = Arc::new(Strangers::default());
        let (many, one) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let lonely = strangers.admit(one, 4);
        let known = strangers.admit(many, 4);
        known.recognize();
        let crowd: Vec<Acquaintance> = (0..4).map(|_| strangers.admit(many, 4)).collect();
        let has_ended = |of: &Acquaintance| of.0.ended.is_cancelled();
        assert_eq!(crowd.iter().map(has_ended).collect::<Vec<_>>(), [true, false, false, false]);
        assert!(!has_ended(&lonely) && !has_ended(&known));
        drop(crowd);
        assert_eq!(strangers.all().count, 1);
        strangers.end_one();
        assert!(has_ended(&lonely));
        drop((lonely, known));
        let all = strangers.all();
        assert_eq!((all.count, all.of.len()), (0, 0));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }
}
