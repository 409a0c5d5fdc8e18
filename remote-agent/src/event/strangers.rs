//! Connections that have not shown yet whose they are: few, and none of the network's hosts can fill all the places.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::Notify;

/// Where a connection comes from: an IPv4 address, or the half of an IPv6 address that one host can't choose freely.
type Source = [u8; 8];

/// The places. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Strangers(Rc<Places>);

#[derive(Debug)]
struct Places {
    most: usize,
    next: Cell<u64>,
    /// In the order in which they came.
    held: RefCell<BTreeMap<u64, (Source, Rc<Notify>)>>,
}

/// A place, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Rc<Places>,
    number: u64,
    gone: Rc<Notify>,
}

fn source(address: IpAddr) -> Source {
    let mut source = [0; 8];
    match address.to_canonical() {
        IpAddr::V4(v4) => source[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => source.copy_from_slice(&v6.octets()[..8]),
    }
    source
}

impl Strangers {
    /// Room for `most`.
    pub(super) fn new(most: usize) -> Strangers {
        Strangers(Rc::new(Places { most, next: Cell::new(0), held: RefCell::default() }))
    }

    /// A place for one from `address`. If there is none, the host with the most places loses its oldest: a flood displaces itself, and
    /// whoever knows what to say has said it before.
    pub(super) fn admit(&self, address: IpAddr) -> Place {
        let number = self.0.next.get();
        self.0.next.set(number + 1);
        let gone = Rc::new(Notify::new());
        let mut held = self.0.held.borrow_mut();
        if held.len() >= self.0.most {
            let mut of: HashMap<Source, usize> = HashMap::new();
            held.values().for_each(|(source, _)| *of.entry(*source).or_default() += 1);
            let most = of.values().copied().max().unwrap_or(0);
            let oldest = held.iter().find(|(_, (source, _))| of.get(source) == Some(&most)).map(|(&number, _)| number);
            if let Some((_, gone)) = oldest.and_then(|number| held.remove(&number)) {
                gone.notify_one();
            }
        }
        held.insert(number, (source(address), Rc::clone(&gone)));
        Place { places: Rc::clone(&self.0), number, gone }
    }

    /// Are all places taken?
    pub(super) fn full(&self) -> bool {
        self.0.held.borrow().len() >= self.0.most
    }
}

impl Place {
    /// Waits until it is taken away.
    pub(super) async fn lost(&self) {
        self.gone.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(place: &Place) -> bool {
        !place.places.held.borrow().contains_key(&place.number)
    }

    #[test]
    fn a_flood_displaces_itself() {
        let strangers = Strangers::new(8);
        let at = |host: u8| IpAddr::from([10, 0, 0, host]);
        let others: Vec<Place> = (1..=4).map(|host| strangers.admit(at(host))).collect();
        let mut flood: Vec<Place> = (0..4).map(|_| strangers.admit(at(9))).collect();
        assert!(strangers.full());
        flood.extend((0..1000).map(|_| strangers.admit(at(9))));
        assert_eq!(flood.iter().filter(|place| !lost(place)).count(), 4, "the newest");
        assert!(flood.iter().rev().take(4).all(|place| !lost(place)));
        assert!(!others.iter().any(lost), "a flood displaces no other host's");
        // One from another host finds room, and so does the flood's host again once the flood is over.
        let late = strangers.admit(at(5));
        drop(flood);
        assert!(!lost(&late) && !strangers.full());
    }

    #[test]
    fn a_host_has_one_name_whatever_address_it_takes() {
        let v6 = |text: &str| source(text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])));
        assert_eq!(v6("2001:db8:0:1::1"), v6("2001:db8:0:1:ffff::2"));
        assert_ne!(v6("2001:db8:0:1::1"), v6("2001:db8:0:2::1"));
        assert_eq!(v6("::ffff:10.0.0.1"), v6("10.0.0.1"));
        assert_ne!(v6("10.0.0.1"), v6("10.0.0.2"));
    }
}
