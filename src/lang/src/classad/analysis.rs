//! What an expression asks, without evaluating it.

use std::collections::{BTreeMap, BTreeSet};

use super::expr::{Binary, Call, Node, Reference};
use super::functions::Function;
use super::{Ad, Expr, Text, Value};

/// The attributes that an expression refers to, each once, in the order of their names in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct References {
    /// By `MY.name`.
    pub my: Vec<Text>,
    /// By `TARGET.name`.
    pub target: Vec<Text>,
    /// By their names alone: of `MY`, or else of `TARGET`.
    pub plain: Vec<Text>,
    /// Whether there may be more, as `eval()` makes names of text, or `MY` and `TARGET` are used as a whole.
    pub more: bool,
}

impl Expr {
    /// The conditions that must all hold for the expression to hold: what `&&` joins at the top, within parentheses too. Their texts are what `Display` and
    /// [`Expr::old_syntax`] write.
    pub fn clauses(&self) -> Vec<Expr> {
        let (mut clauses, mut rest) = (Vec::new(), vec![self]);
        while let Some(expr) = rest.pop() {
            match &*expr.0 {
                Node::Binary(Binary::And, left, right) => rest.extend([right, left]),
                Node::Parentheses(inner)
                    if matches!(&*inner.0, Node::Parentheses(_) | Node::Binary(Binary::And, ..)) =>
                {
                    rest.push(inner)
                }
                _ => clauses.push(expr.clone()),
            }
        }
        clauses
    }

    /// What an attribute must be more than, if all that the expression says is that: `attribute > bound`, or `>=`, then with true. The attribute is `TARGET`'s,
    /// or named alone.
    pub fn lower_bound(&self, attribute: &str) -> Option<(&Expr, bool)> {
        let is_named = |expr: &Expr| match &*expr.0 {
            Node::Reference(Reference { base, absolute: false, name, .. }) => {
                let target = |base: &Expr| matches!(&*base.0, Node::Reference(Reference { base: None, name, .. }) if name.eq_ignore_ascii_case(b"target"));
                name.eq_ignore_ascii_case(attribute.as_bytes()) && base.as_ref().is_none_or(target)
            }
            _ => false,
        };
        match &*self.0 {
            Node::Parentheses(inner) => inner.lower_bound(attribute),
            Node::Binary(Binary::Greater, left, right) if is_named(left) => Some((right, false)),
            Node::Binary(Binary::GreaterOrEqual, left, right) if is_named(left) => Some((right, true)),
            Node::Binary(Binary::Less, left, right) if is_named(right) => Some((left, false)),
            Node::Binary(Binary::LessOrEqual, left, right) if is_named(right) => Some((left, true)),
            _ => None,
        }
    }

    /// The attributes that the expression itself names.
    pub fn references(&self) -> References {
        let mut collector = Collector::default();
        collector.expr(self);
        collector.finish()
    }

    /// The attributes that matter when the expression is evaluated for `my`: those that it names, and those that they name, and so on.
    pub fn references_in(&self, my: &Ad) -> References {
        let mut collector = Collector::default();
        collector.expr(self);
        let mut seen = BTreeSet::new();
        while let Some(name) = collector.followed.pop() {
            if seen.insert(name.to_ascii_lowercase())
                && let Some(expr) = my.get(&name)
            {
                collector.expr(expr);
            }
        }
        collector.finish()
    }
}

#[derive(Default)]
struct Collector {
    my: BTreeMap<Vec<u8>, Text>,
    target: BTreeMap<Vec<u8>, Text>,
    plain: BTreeMap<Vec<u8>, Text>,
    more: bool,
    /// Names of `MY` whose expressions matter, too.
    followed: Vec<Text>,
}

impl Collector {
    fn finish(self) -> References {
        let names = |found: BTreeMap<Vec<u8>, Text>| found.into_values().collect();
        References { my: names(self.my), target: names(self.target), plain: names(self.plain), more: self.more }
    }

    fn expr(&mut self, expr: &Expr) {
        let mut rest = vec![expr];
        while let Some(expr) = rest.pop() {
            match &*expr.0 {
                Node::Literal(_) => {}
                Node::List(elements) => rest.extend(elements.iter()),
                Node::Ad(ad) => rest.extend(ad.iter().map(|(_, value)| value)),
                Node::Reference(reference) => rest.extend(self.reference(reference)),
                Node::Parentheses(inner) | Node::Unary(_, inner) => rest.push(inner),
                Node::Binary(_, left, right) => rest.extend([right, left]),
                Node::Conditional(condition, then, otherwise) => rest.extend([otherwise, then, condition]),
                Node::Call(call) => {
                    self.call(call);
                    rest.extend(call.arguments.iter());
                }
            }
        }
    }

    /// Notes a reference; gives what is left to look at.
    fn reference<'e>(&mut self, reference: &'e Reference) -> Option<&'e Expr> {
        let is = |name: &[u8], words: &[&str]| words.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(name));
        let (own, other) = (["my", "self"], ["target", "other"]);
        let key = reference.name.to_ascii_lowercase();
        let Some(base) = &reference.base else {
            if is(&reference.name, &own)
                || is(&reference.name, &other)
                || is(&reference.name, &["parent", "root", "toplevel"])
            {
                self.more = true;
            } else if self.plain.insert(key, reference.name.clone()).is_none() {
                self.followed.push(reference.name.clone());
            }
            return None;
        };
        match &*base.0 {
            Node::Reference(Reference { base: None, name, .. }) if is(name, &own) => {
                if self.my.insert(key, reference.name.clone()).is_none() {
                    self.followed.push(reference.name.clone());
                }
                None
            }
            Node::Reference(Reference { base: None, name, .. }) if is(name, &other) => {
                self.target.insert(key, reference.name.clone());
                None
            }
            _ => Some(base),
        }
    }

    /// Notes what a text names that is evaluated.
    fn call(&mut self, call: &Call) {
        let (Some(Function::Eval), [only]) = (call.function, &*call.arguments) else {
            return;
        };
        match only.as_literal() {
            Some(Value::String(text)) => {
                let inner = Expr::parse(text).map(|inner| inner.references()).unwrap_or_default();
                self.more |= inner.more;
                self.followed.extend(inner.my.iter().chain(&inner.plain).cloned());
                for (known, names) in
                    [(&mut self.my, inner.my), (&mut self.target, inner.target), (&mut self.plain, inner.plain)]
                {
                    known.extend(names.into_iter().map(|name| (name.to_ascii_lowercase(), name)));
                }
            }
            Some(_) => {}
            None => self.more = true,
        }
    }
}
