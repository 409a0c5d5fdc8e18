//! Functions of expressions themselves, and of what only a configured HTCondor knows.

use std::collections::BTreeMap;

use super::super::Expr;
use super::super::ad::Name;
use super::super::eval::{Cx, Fail, Found, Machine, Outcome, Val};
use super::super::expr::{Call, Node};
use super::super::pattern::{Options, Pattern};

/// Names by themselves in lower case, as they were first written.
type Names = BTreeMap<Vec<u8>, Vec<u8>>;

impl<'a> Machine<'a> {
    /// The text of an attribute of the ad itself.
    pub(super) fn unparse(&mut self, call: &'a Call) -> Outcome<'a> {
        let [only] = &*call.arguments else {
            return Ok(Val::Error);
        };
        if !matches!(*only.0, Node::Reference(_)) {
            return Ok(Val::Error);
        }
        let name = only.to_string();
        let found = self.scope.map_or(Found::Nothing, |scope| self.own(scope, Name::of(name.as_bytes())));
        let text = match found {
            Found::Attribute(expr, _) => expr.pretty(),
            Found::Value(value) => Expr::from(self.to_value(value)).pretty(),
            Found::Nothing => String::new(),
        };
        self.work(text.len() / 16)?;
        self.string(text)
    }

    /// The names that an attribute's expression needs and the ad lacks, with commas between them; or whether a pattern matches one.
    pub(super) fn unresolved(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let (attribute, pattern) = match &*call.arguments {
            [attribute] => (attribute, None),
            [attribute, pattern] => (attribute, Some(pattern)),
            _ => return Ok(Val::Error),
        };
        let Node::Reference(reference) = &*attribute.0 else {
            return Ok(Val::Error);
        };
        let found = match self.resolve(reference, cx) {
            Ok(Found::Nothing | Found::Value(Val::Error)) | Err(Fail) => return Ok(Val::Undefined),
            Ok(found) => found,
        };
        let pattern = match pattern {
            None => None,
            Some(pattern) => {
                let Val::String(pattern) = self.eval(pattern, cx)? else {
                    return Err(Fail);
                };
                self.work(pattern.len() * 8 + 100)?;
                match Pattern::new(pattern, Options { caseless: true, ..Options::default() }, false) {
                    Some(pattern) => Some(pattern),
                    None => return Ok(Val::Error),
                }
            }
        };
        let mut names = Names::new();
        let complete = self.scope.is_some() && self.needed(found, cx, &mut names)?;
        let names: Vec<Vec<u8>> = if complete { names.into_values().collect() } else { Vec::new() };
        let short = |name: &[u8]| match name.get(..7) {
            Some(start) if start.eq_ignore_ascii_case(b"target.") => name.get(7..).unwrap_or_default().to_vec(),
            _ => name.to_vec(),
        };
        match pattern {
            None => self.string(names.iter().map(|name| short(name)).collect::<Vec<_>>().join(&b","[..])),
            Some(pattern) => {
                self.work(names.len() * 16)?;
                Ok(Val::Boolean(names.iter().any(|name| matches!(pattern.find_filled(&short(name)), Ok(true)))))
            }
        }
    }

    /// Collects what is needed; false if that can't be told.
    fn needed(&mut self, found: Found<'a>, cx: Cx<'_, 'a>, names: &mut Names) -> Result<bool, Fail> {
        match found {
            Found::Attribute(expr, scope) => self.needed_by(expr, Cx { lexical: Some(scope), ..cx }, names),
            Found::Value(Val::Ad(scope)) => {
                let attributes = self.attributes(scope);
                for expr in attributes {
                    if cx.depth == 0 || !self.needed_by(expr, cx.deeper(), names)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Found::Value(_) | Found::Nothing => Ok(true),
        }
    }

    fn needed_by(&mut self, expr: &'a Expr, cx: Cx<'_, 'a>, names: &mut Names) -> Result<bool, Fail> {
        self.work(1)?;
        let Ok(cx) = cx.inner() else {
            return Ok(false);
        };
        match &*expr.0 {
            Node::Literal(_) => Ok(true),
            Node::Parentheses(inner) | Node::Unary(_, inner) => self.needed_by(inner, cx, names),
            Node::Binary(_, left, right) => Ok(self.needed_by(left, cx, names)? && self.needed_by(right, cx, names)?),
            Node::Conditional(condition, then, otherwise) => Ok(self.needed_by(condition, cx, names)?
                && self.needed_by(then, cx, names)?
                && self.needed_by(otherwise, cx, names)?),
            Node::Call(call) => self.needed_by_all(call.arguments.iter(), cx, names),
            Node::List(elements) => self.needed_by_all(elements.iter(), cx, names),
            Node::Ad(ad) => self.needed_by_all(ad.iter().map(|(_, value)| value), cx, names),
            Node::Reference(reference) => {
                let mut note = |name: Vec<u8>| {
                    names.entry(name.to_ascii_lowercase()).or_insert(name);
                };
                let start = match &reference.base {
                    None if reference.absolute => cx.root,
                    None => self.scope,
                    Some(base) => match self.eval(base, cx) {
                        Ok(Val::Undefined) => {
                            note([base.to_string().as_bytes(), b".", &reference.name].concat());
                            return Ok(true);
                        }
                        Ok(Val::Ad(scope)) => Some(scope),
                        _ => None,
                    },
                };
                let Some(start) = start else {
                    return Ok(false);
                };
                let (found, scope) = match self.find(reference.named(), reference.special, start, cx.root) {
                    Ok(Found::Nothing) => {
                        note(reference.name.to_vec());
                        return Ok(true);
                    }
                    Ok(Found::Attribute(expr, scope)) => (Found::Attribute(expr, scope), scope),
                    Ok(found) => (found, start),
                    Err(Fail) => return Ok(false),
                };
                if cx.depth == 0 {
                    return Ok(false);
                }
                self.within(Some(scope), |machine| machine.needed(found, cx.deeper(), names))
            }
        }
    }

    fn needed_by_all(
        &mut self,
        mut exprs: impl Iterator<Item = &'a Expr>,
        cx: Cx<'_, 'a>,
        names: &mut Names,
    ) -> Result<bool, Fail> {
        exprs.try_fold(true, |known, expr| Ok(known && cx.depth > 0 && self.needed_by(expr, cx.deeper(), names)?))
    }

    /// `userHome`, which HTCondor has switched off unless its configuration says otherwise: what is given as the default.
    pub(super) fn user_home(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let (user, default) = match &*call.arguments {
            [user] => (user, None),
            [user, default] => (user, self.eval(default, cx).ok()),
            _ => return Err(Fail),
        };
        if let Some(Val::String(default @ [_, ..])) = default {
            return Ok(Val::String(default));
        }
        let user = self.eval(user, cx).unwrap_or_else(|Fail| self.failure(user, cx));
        Ok(if matches!(user, Val::Undefined | Val::String(_)) { Val::Undefined } else { Val::Error })
    }

    /// `userMap`, without any map: what is given as the default.
    pub(super) fn user_map(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let Some(values) = self.between(call, cx, 2, 4)? else {
            return Ok(Val::Error);
        };
        Ok(match values.as_slice() {
            [Val::Error, ..] | [_, Val::Error, ..] => Val::Error,
            [_, _, _, default] => *default,
            _ => Val::Undefined,
        })
    }
}
