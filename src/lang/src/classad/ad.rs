//! Ads: attributes and their expressions.

use std::cmp::Ordering;
use std::sync::Arc;

use super::ops::caseless;
use super::{Expr, Text, Value};

/// Attributes by name, without regard to case, in HTCondor's order: short names first, names of one length by the alphabet. Cheap to clone; a clone
/// that is changed is a copy. `Display` writes the new syntax, `[ A = 1; B = 2 ]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ad(Arc<Inner>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Inner {
    attributes: Vec<Attribute>,
    /// Where names are looked up that are not in `attributes`.
    chained: Option<Ad>,
}

#[derive(Debug, Clone, PartialEq)]
struct Attribute {
    key: Key,
    name: Text,
    value: Expr,
}

/// What most names differ in: their length, and the start of the name in lower case. The order is that of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    length: usize,
    head: u128,
}

impl Key {
    const HEAD: usize = 16;

    pub(super) const fn of(name: &[u8]) -> Self {
        let (mut head, mut at) = (0, 0);
        while at < name.len() && at < Key::HEAD {
            head = head << 8 | name[at].to_ascii_lowercase() as u128;
            at += 1;
        }
        Key { length: name.len(), head }
    }
}

/// A name that is looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'n> {
    pub(super) key: Key,
    pub(super) text: &'n [u8],
}

impl<'n> Name<'n> {
    pub(super) const fn of(text: &'n [u8]) -> Self {
        Name { key: Key::of(text), text }
    }

    pub(super) fn is(self, other: Name<'_>) -> bool {
        self.key == other.key && (self.key.length <= Key::HEAD || self.text.eq_ignore_ascii_case(other.text))
    }

    fn cmp(self, other: Name<'_>) -> Ordering {
        match self.key.cmp(&other.key) {
            Ordering::Equal if self.key.length > Key::HEAD => caseless(self.text, other.text),
            order => order,
        }
    }
}

impl Attribute {
    fn named(&self) -> Name<'_> {
        Name { key: self.key, text: &self.name }
    }
}

impl Ad {
    /// An ad without attributes.
    pub fn new() -> Self {
        Ad::default()
    }

    /// Sets an attribute, in place of one of the same name, whose spelling stays.
    pub fn insert(&mut self, name: impl Into<Text>, value: impl Into<Expr>) {
        let (name, value) = (name.into(), value.into());
        let key = Key::of(&name);
        let attributes = &mut Arc::make_mut(&mut self.0).attributes;
        match attributes.binary_search_by(|known| known.named().cmp(Name { key, text: &name })) {
            Ok(found) => {
                if let Some(attribute) = attributes.get_mut(found) {
                    attribute.value = value;
                }
            }
            Err(place) => attributes.insert(place, Attribute { key, name, value }),
        }
    }

    /// Removes an attribute from the ad itself.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> Option<Expr> {
        let name = Name::of(name.as_ref());
        let found = self.0.attributes.binary_search_by(|known| known.named().cmp(name)).ok()?;
        Some(Arc::make_mut(&mut self.0).attributes.remove(found).value)
    }

    /// An attribute's expression, of the ad or of those it is chained to.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&Expr> {
        self.find(Name::of(name.as_ref()))
    }

    pub(super) fn find(&self, name: Name<'_>) -> Option<&Expr> {
        let mut ad = self;
        loop {
            let attributes = &ad.0.attributes;
            match attributes.binary_search_by(|known| known.named().cmp(name)) {
                Ok(found) => return attributes.get(found).map(|attribute| &attribute.value),
                Err(_) => ad = ad.0.chained.as_ref()?,
            }
        }
    }

    /// Whether the ad, or one it is chained to, has the attribute.
    pub fn contains(&self, name: impl AsRef<[u8]>) -> bool {
        self.get(name).is_some()
    }

    /// The ad's own attributes, without those of ads that it is chained to.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Text, &Expr)> {
        self.0.attributes.iter().map(|attribute| (&attribute.name, &attribute.value))
    }

    /// Number of the ad's own attributes.
    pub fn len(&self) -> usize {
        self.0.attributes.len()
    }

    /// Whether the ad has no attributes of its own.
    pub fn is_empty(&self) -> bool {
        self.0.attributes.is_empty()
    }

    /// Chains the ad to another, where names are looked up that it lacks: a job to its cluster.
    pub fn chain(&mut self, to: Option<Ad>) {
        Arc::make_mut(&mut self.0).chained = to;
    }

    /// The ad that this one is chained to.
    pub fn chained(&self) -> Option<&Ad> {
        self.0.chained.as_ref()
    }
}

impl<N: Into<Text>, V: Into<Value>> FromIterator<(N, V)> for Ad {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut ad = Ad::new();
        ad.extend(pairs);
        ad
    }
}

impl<N: Into<Text>, V: Into<Value>> Extend<(N, V)> for Ad {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, pairs: I) {
        for (name, value) in pairs {
            self.insert(name, value.into());
        }
    }
}
