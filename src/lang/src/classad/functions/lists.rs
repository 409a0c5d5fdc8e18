//! Functions of lists.

use super::super::eval::{Cx, Elements, Fail, Found, Machine, Outcome, Scope, Val, outermost};
use super::super::expr::{Binary, Call, Node, Reference};
use super::super::{Expr, ops};

/// Both as one type of number, as comparing makes them.
fn promoted<'a>(a: Val<'a>, b: Val<'a>) -> (Val<'a>, Val<'a>) {
    let integer = |value: Val<'a>| match value {
        Val::Boolean(truth) => Val::Integer(i64::from(truth)),
        value => value,
    };
    match (integer(a), integer(b)) {
        (Val::Integer(a), Val::Real(b)) => (Val::Real(a as f64), Val::Real(b)),
        (Val::Real(a), Val::Integer(b)) => (Val::Real(a), Val::Real(b as f64)),
        both => both,
    }
}

/// What is evaluated in each context.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Expr(&'a Expr, Option<&'a Scope<'a>>),
    Value(Val<'a>),
}

impl<'a> Machine<'a> {
    pub(super) fn member(&mut self, call: &'a Call, cx: Cx<'_, 'a>, operator: Binary) -> Outcome<'a> {
        let Some([wanted, list]) = self.arguments(call, cx)? else {
            return Ok(Val::Error);
        };
        let identical = operator == Binary::Is;
        if matches!(list, Val::Undefined) || !identical && matches!(wanted, Val::Undefined) {
            return Ok(Val::Undefined);
        }
        let Some(elements) = list.elements() else {
            return Ok(Val::Error);
        };
        if wanted.elements().is_some() || matches!(wanted, Val::Ad(_)) || !identical && matches!(wanted, Val::Error) {
            return Ok(Val::Error);
        }
        for index in 0..elements.len() {
            let element = self.element(elements, index, cx)?;
            if matches!(ops::binary(operator, element, wanted), Val::Boolean(true)) {
                return Ok(Val::Boolean(true));
            }
        }
        Ok(Val::Boolean(false))
    }

    pub(super) fn size(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        self.convert(call, cx, |machine, value| {
            let size = match value {
                Val::Undefined => return Ok(Val::Undefined),
                Val::String(text) => text.len(),
                Val::Ad(scope) => machine.to_ad(scope).len(),
                value => match value.elements() {
                    Some(elements) => elements.len(),
                    None => return Ok(Val::Error),
                },
            };
            Ok(Val::Integer(i64::try_from(size).unwrap_or(i64::MAX)))
        })
    }

    /// The elements of the only argument, or the result if it is no list.
    fn list_argument(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Result<Result<Elements<'a>, Val<'a>>, Fail> {
        Ok(match self.single(call, cx)? {
            Some(Val::Undefined) => Err(Val::Undefined),
            Some(value) => value.elements().ok_or(Val::Error),
            None => Err(Val::Error),
        })
    }

    pub(super) fn sum(&mut self, call: &'a Call, cx: Cx<'_, 'a>, average: bool) -> Outcome<'a> {
        let elements = match self.list_argument(call, cx)? {
            Ok(elements) => elements,
            Err(result) => return Ok(result),
        };
        let (mut sum, mut count) = (Val::Integer(0), 0_u32);
        for index in 0..elements.len() {
            match self.element(elements, index, cx)? {
                Val::Undefined => {}
                element @ (Val::Boolean(_) | Val::Integer(_) | Val::Real(_)) => {
                    sum = if count == 0 { element } else { ops::binary(Binary::Add, sum, element) };
                    count += 1;
                }
                _ => return Ok(Val::Error),
            }
        }
        Ok(if average && count > 0 { ops::binary(Binary::Divide, sum, Val::Real(f64::from(count))) } else { sum })
    }

    pub(super) fn extreme(&mut self, call: &'a Call, cx: Cx<'_, 'a>, better: Binary) -> Outcome<'a> {
        let elements = match self.list_argument(call, cx)? {
            Ok(elements) => elements,
            Err(result) => return Ok(result),
        };
        let mut best = None;
        for index in 0..elements.len() {
            match self.element(elements, index, cx)? {
                Val::Undefined => {}
                element @ (Val::Boolean(_) | Val::Integer(_) | Val::Real(_)) => {
                    best = Some(match best {
                        None => element,
                        Some(best) => {
                            let (element, best) = promoted(element, best);
                            if matches!(ops::binary(better, element, best), Val::Boolean(true)) {
                                element
                            } else {
                                best
                            }
                        }
                    });
                }
                _ => return Ok(Val::Error),
            }
        }
        Ok(best.unwrap_or(Val::Undefined))
    }

    pub(super) fn compare_elements(&mut self, call: &'a Call, cx: Cx<'_, 'a>, all: bool) -> Outcome<'a> {
        let [operator, list, compared] = &*call.arguments else {
            return Ok(Val::Error);
        };
        let operator = match self.eval(operator, cx)? {
            Val::Undefined => return Ok(Val::Undefined),
            Val::String(b"<") => Binary::Less,
            Val::String(b"<=") => Binary::LessOrEqual,
            Val::String(b"!=") => Binary::NotEqual,
            Val::String(b"==") => Binary::Equal,
            Val::String(b">") => Binary::Greater,
            Val::String(b">=") => Binary::GreaterOrEqual,
            Val::String(b"is") => Binary::Is,
            Val::String(b"isnt") => Binary::IsNot,
            _ => return Ok(Val::Error),
        };
        let list = self.eval(list, cx)?;
        let elements = match (list, list.elements()) {
            (Val::Undefined, _) => return Ok(Val::Undefined),
            (_, Some(elements)) => elements,
            (_, None) => return Ok(Val::Error),
        };
        let compared = self.eval(compared, cx)?;
        for index in 0..elements.len() {
            let element = self.element(elements, index, cx)?;
            match ops::binary(operator, element, compared) {
                Val::Boolean(truth) if truth == all => {}
                Val::Boolean(truth) => return Ok(Val::Boolean(truth)),
                Val::Undefined => return Ok(Val::Boolean(false)),
                _ => return Ok(Val::Error),
            }
        }
        Ok(Val::Boolean(all))
    }

    pub(super) fn in_each_context(&mut self, call: &'a Call, cx: Cx<'_, 'a>, count: bool) -> Outcome<'a> {
        let [subject, list] = &*call.arguments else {
            return Ok(Val::Error);
        };
        let mut evaluated = Subject::Expr(subject, cx.lexical);
        if let Node::Reference(reference) = &*subject.0 {
            // What the reference stands for is found here, and what follows is evaluated where it was found.
            match self.resolve(reference, cx) {
                Ok(Found::Attribute(expr, scope)) => evaluated = Subject::Expr(expr, Some(scope)),
                Ok(Found::Value(value)) if !matches!(value, Val::Error) => evaluated = Subject::Value(value),
                _ => {}
            }
        }
        let elements = match &*list.0 {
            Node::List(exprs) => Elements::Exprs(exprs, cx.lexical),
            _ => match self.eval(list, cx) {
                Ok(Val::Undefined) => return Ok(if count { Val::Integer(0) } else { Val::Undefined }),
                Ok(value) => match value.elements() {
                    Some(elements) => elements,
                    None => return Ok(Val::Error),
                },
                Err(Fail) if matches!(self.failure(list, cx), Val::Undefined) => {
                    return Ok(if count { Val::Integer(0) } else { Val::Undefined });
                }
                Err(Fail) => return Ok(Val::Error),
            },
        };
        let mut results = Vec::with_capacity(elements.len());
        for index in 0..elements.len() {
            results.push(match self.element(elements, index, cx) {
                Ok(Val::Ad(scope)) => self.in_context(evaluated, scope, cx),
                Ok(Val::Undefined) => Val::Undefined,
                _ => Val::Error,
            });
        }
        if !count {
            return self.list(results, true);
        }
        let matches = results.iter().filter(|value| value.truth() == Some(true)).count();
        Ok(Val::Integer(i64::try_from(matches).unwrap_or(i64::MAX)))
    }

    fn in_context(&mut self, subject: Subject<'a>, scope: &'a Scope<'a>, cx: Cx<'_, 'a>) -> Val<'a> {
        match subject {
            Subject::Value(value) => value,
            Subject::Expr(expr, lexical) => {
                let borrowed = self.side(scope.parent).map(|other| (scope, other));
                let replaced = std::mem::replace(&mut self.borrowed, borrowed);
                let result = self.within(Some(scope), |machine| machine.eval(expr, Cx { lexical, ..cx.anew(scope) }));
                self.borrowed = replaced;
                result.unwrap_or(Val::Error)
            }
        }
    }

    /// Where names are looked up that an ad lacks which stands in one of the two that are matched: in the other.
    fn side(&self, mut around: Option<&'a Scope<'a>>) -> Option<&'a Scope<'a>> {
        while let Some(scope) = around {
            if let Some(other) = self.alternate(scope) {
                return Some(other);
            }
            around = scope.parent;
        }
        None
    }

    /// What a reference stands for. HTCondor goes on in the ad where the search ended.
    pub(super) fn resolve(&mut self, reference: &'a Reference, cx: Cx<'_, 'a>) -> Result<Found<'a>, Fail> {
        let start = match &reference.base {
            None if reference.absolute => cx.root,
            None => self.scope,
            Some(_) if cx.depth == 0 => None,
            Some(base) => match self.eval(base, cx.inner()?.deeper())? {
                Val::Ad(scope) => Some(scope),
                base => return self.select(base, reference.named(), reference.special, cx),
            },
        };
        let other =
            start.filter(|_| reference.base.is_none() && !reference.absolute).and_then(|start| self.alternate(start));
        let found = match (&reference.base, start) {
            (Some(_), Some(start)) => self.find(reference.named(), reference.special, start, cx.root),
            _ => self.deref(reference, cx),
        };
        match &found {
            Ok(Found::Attribute(_, scope)) => self.scope = Some(scope),
            Ok(Found::Nothing) if reference.special.is_none() => {
                self.scope = other.or(start).map(outermost).or(self.scope)
            }
            Ok(_) if start.is_some() => self.scope = start,
            _ => {}
        }
        found
    }
}
