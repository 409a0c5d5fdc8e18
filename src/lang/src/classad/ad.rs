//! Ads: attributes and their expressions.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Expr, Text, Value};

/// Attributes by name, without regard to case, in HTCondor's order: short names first, names of one length by the alphabet. Cheap to clone; a clone
/// that is changed is a copy. `Display` writes the new syntax, `[ A = 1; B = 2 ]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ad(Arc<Inner>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Inner {
    attributes: Vec<(Text, Expr)>,
    /// Where names are looked up that are not in `attributes`.
    chained: Option<Ad>,
}

fn order(a: &[u8], b: &[u8]) -> Ordering {
    let folded = |bytes| <[u8]>::iter(bytes).map(u8::to_ascii_lowercase);
    a.len().cmp(&b.len()).then_with(|| folded(a).cmp(folded(b)))
}

impl Ad {
    /// An ad without attributes.
    pub fn new() -> Self {
        Ad::default()
    }

    /// Sets an attribute, in place of one of the same name, whose spelling stays.
    pub fn insert(&mut self, name: impl Into<Text>, value: impl Into<Expr>) {
        let (name, value) = (name.into(), value.into());
        let attributes = &mut Arc::make_mut(&mut self.0).attributes;
        match attributes.binary_search_by(|(known, _)| order(known, &name)) {
            Ok(found) => {
                if let Some(attribute) = attributes.get_mut(found) {
                    attribute.1 = value;
                }
            }
            Err(place) => attributes.insert(place, (name, value)),
        }
    }

    /// Removes an attribute from the ad itself.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> Option<Expr> {
        let found = self.0.attributes.binary_search_by(|(known, _)| order(known, name.as_ref())).ok()?;
        Some(Arc::make_mut(&mut self.0).attributes.remove(found).1)
    }

    /// An attribute's expression, of the ad or of those it is chained to.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&Expr> {
        let (name, mut ad) = (name.as_ref(), self);
        loop {
            let attributes = &ad.0.attributes;
            match attributes.binary_search_by(|(known, _)| order(known, name)) {
                Ok(found) => return attributes.get(found).map(|(_, value)| value),
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
        self.0.attributes.iter().map(|(name, value)| (name, value))
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
