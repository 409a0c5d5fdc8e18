//! Evaluation.
//!
//! A value here borrows from the ads and from an arena that lives as long as the evaluation, so that nothing is copied, and nothing allocated that isn't made anew.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use elsa::FrozenVec;

use super::ad::Name;
use super::expr::{Binary, Node, Reference, Special};
use super::number::to_i32;
use super::{AbsoluteTime, Ad, Expr, MAX_BYTES, Value, ops, time};

/// Tells how many seconds east of UTC clocks are at a time (seconds since 1970), summer time included.
pub type Zone<'a> = &'a dyn Fn(i64) -> i32;

/// What an evaluation may look at. All but the ads comes from the caller, as this crate has neither clock nor chance.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The ad of plain names and of `MY`.
    pub my: Option<&'a Ad>,
    /// The ad of `TARGET`, where plain names are looked up that `my` lacks.
    pub target: Option<&'a Ad>,
    /// The present time in seconds since 1970.
    pub now: i64,
    /// The time zone of times that name none.
    pub zone: Zone<'a>,
    /// Gives a random number each time.
    pub random: &'a dyn Fn() -> u32,
    /// Most steps: each operator, call, reference and literal that is evaluated takes one. With none left, the result is an error.
    pub fuel: u32,
}

impl<'a> Context<'a> {
    /// Steps that do for anything reasonable; they take some tens of milliseconds.
    pub const FUEL: u32 = 1_000_000;

    /// A context of ads in UTC, without chance: `random()` gives 0.
    pub fn new(my: Option<&'a Ad>, target: Option<&'a Ad>, now: i64) -> Self {
        Context { my, target, now, zone: &|_| 0, random: &|| 0, fuel: Self::FUEL }
    }

    /// Evaluates an expression. What can't be evaluated is an error.
    pub fn evaluate(&self, expr: &Expr) -> Value {
        self.run(expr, |machine, outcome| outcome.map_or(Value::Error, |value| machine.to_value(value)))
    }

    /// Evaluates an expression as a condition: true and numbers other than 0 hold, false and 0 don't, and of anything else (undefined, error) nothing is known.
    pub fn holds(&self, expr: &Expr) -> Option<bool> {
        self.run(expr, |_, outcome| outcome.ok().and_then(Val::truth))
    }

    /// Evaluates an attribute of `my`; one that is not there is undefined.
    pub fn attribute(&self, name: impl AsRef<[u8]>) -> Value {
        self.my.and_then(|ad| ad.get(name)).map_or(Value::Undefined, |expr| self.evaluate(expr))
    }

    fn run<T>(&self, expr: &Expr, finish: impl for<'b> FnOnce(&Machine<'b>, Outcome<'b>) -> T) -> T {
        let arena = Arena::default();
        let top = Scope { kind: Kind::Match, parent: None, shared: false };
        let (left, right) = (
            Scope { kind: Kind::Left, parent: Some(&top), shared: false },
            Scope { kind: Kind::Right, parent: Some(&top), shared: false },
        );
        let matched = self.target.is_some() && self.my.is_some();
        let scope = |ad, context| Scope { kind: Kind::Ad(ad), parent: matched.then_some(context), shared: false };
        let my = self.my.map(|ad| scope(ad, &left));
        let target = self.target.filter(|_| matched).map(|ad| scope(ad, &right));
        let mut machine = Machine {
            context: self,
            arena: &arena,
            my: my.as_ref(),
            target: target.as_ref(),
            scope: my.as_ref(),
            borrowed: None,
            fuel: self.fuel,
            bytes: MAX_BYTES,
            scopes: BTreeMap::new(),
        };
        let root = if matched { Some(&top) } else { my.as_ref() };
        let outcome = machine.eval(expr, Cx { lexical: machine.my, root, depth: MAX_DEPTH, level: 0, active: None });
        finish(&machine, outcome)
    }
}

/// Evaluations in one another, as HTCondor counts them.
pub(super) const MAX_DEPTH: u32 = 400;
/// Evaluations in one another that the stack has room for, counted each.
const MAX_LEVEL: u32 = 420;

/// The whole evaluation fails, however the value would have been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fail;

pub(super) type Outcome<'a> = Result<Val<'a>, Fail>;

#[derive(Clone, Copy)]
pub(super) enum Val<'a> {
    Undefined,
    Error,
    Boolean(bool),
    Integer(i64),
    Real(f64),
    String(&'a [u8]),
    Absolute(AbsoluteTime),
    Relative(f64),
    /// A list of expressions, and the ad around it.
    List {
        exprs: &'a [Expr],
        scope: Option<&'a Scope<'a>>,
        shared: bool,
    },
    /// A list that was made here. HTCondor has two kinds of lists and of ads, those that it shares are never identical to others.
    Values {
        elements: &'a [Val<'a>],
        shared: bool,
    },
    Ad(&'a Scope<'a>),
}

/// An ad, and those around it.
pub(super) struct Scope<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) parent: Option<&'a Scope<'a>>,
    pub(super) shared: bool,
}

/// Two ads are matched in an ad that has both, `LEFT` and `RIGHT`, each in a context that names the other.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Ad(&'a Ad),
    Left,
    Right,
    Match,
}

const TARGET_NAME: Name<'static> = Name::of(b"target");
const OTHER_NAME: Name<'static> = Name::of(b"other");
const MY_NAME: Name<'static> = Name::of(b"my");
const AD_NAME: Name<'static> = Name::of(b"ad");
const LEFT_NAME: Name<'static> = Name::of(b"left");
const RIGHT_NAME: Name<'static> = Name::of(b"right");
const LCTX_NAME: Name<'static> = Name::of(b"lctx");
const RCTX_NAME: Name<'static> = Name::of(b"rctx");

static LEFT: LazyLock<Ad> = LazyLock::new(|| fixed("[other = .RIGHT; target = .RIGHT; my = .LEFT; ad = .LEFT]"));
static RIGHT: LazyLock<Ad> = LazyLock::new(|| fixed("[other = .LEFT; target = .LEFT; my = .RIGHT; ad = .RIGHT]"));
static MATCH: LazyLock<Ad> = LazyLock::new(|| {
    fixed(
        "[symmetricMatch = RIGHT.requirements && LEFT.requirements; leftMatchesRight = RIGHT.requirements; \
         rightMatchesLeft = LEFT.requirements; leftRankValue = LEFT.rank; rightRankValue = RIGHT.rank]",
    )
});

fn fixed(text: &str) -> Ad {
    Ad::parse(text).unwrap_or_default()
}

/// What is made during an evaluation.
#[derive(Default)]
pub(super) struct Arena<'a> {
    bytes: FrozenVec<Box<[u8]>>,
    values: FrozenVec<Box<[Val<'a>]>>,
    exprs: FrozenVec<Box<Expr>>,
    ads: FrozenVec<Box<Ad>>,
    scopes: FrozenVec<Box<Scope<'a>>>,
}

/// Where an expression is evaluated.
#[derive(Clone, Copy)]
pub(super) struct Cx<'s, 'a> {
    /// The ad that the expression stands in.
    pub(super) lexical: Option<&'a Scope<'a>>,
    /// The outermost ad, of `.name`.
    pub(super) root: Option<&'a Scope<'a>>,
    /// Evaluations that may yet be in one another.
    pub(super) depth: u32,
    pub(super) level: u32,
    /// The attributes that are being evaluated.
    pub(super) active: Option<&'s Active<'s>>,
}

#[derive(Clone, Copy)]
pub(super) struct Active<'s> {
    attribute: *const Expr,
    up: Option<&'s Active<'s>>,
}

impl<'s, 'a> Cx<'s, 'a> {
    pub(super) fn deeper(self) -> Self {
        Cx { depth: self.depth.saturating_sub(1), ..self }
    }

    /// The context of what is looked through within.
    pub(super) fn inner(self) -> Result<Self, Fail> {
        if self.level >= MAX_LEVEL { Err(Fail) } else { Ok(Cx { level: self.level + 1, ..self }) }
    }

    /// The context of an evaluation that begins anew in `scope`.
    pub(super) fn anew(self, scope: &'a Scope<'a>) -> Self {
        Cx { root: Some(outermost(scope)), depth: MAX_DEPTH, active: None, ..self }
    }
}

pub(super) fn outermost<'a>(scope: &'a Scope<'a>) -> &'a Scope<'a> {
    let mut scope = scope;
    while let Some(parent) = scope.parent {
        scope = parent;
    }
    scope
}

pub(super) struct Machine<'a> {
    pub(super) context: &'a Context<'a>,
    arena: &'a Arena<'a>,
    pub(super) my: Option<&'a Scope<'a>>,
    pub(super) target: Option<&'a Scope<'a>>,
    /// The ad of plain names. Not part of [`Cx`], as some functions leave it changed for what is evaluated after them.
    pub(super) scope: Option<&'a Scope<'a>>,
    /// An ad in which an expression is evaluated, and where names are looked up that it lacks.
    pub(super) borrowed: Option<(&'a Scope<'a>, &'a Scope<'a>)>,
    fuel: u32,
    bytes: usize,
    /// The scopes of ads in expressions, by the places of expression and parent.
    scopes: BTreeMap<(usize, usize), &'a Scope<'a>>,
}

/// What a name stands for.
pub(super) enum Found<'a> {
    Attribute(&'a Expr, &'a Scope<'a>),
    Value(Val<'a>),
    Nothing,
}

/// A list's elements.
#[derive(Clone, Copy)]
pub(super) enum Elements<'a> {
    Exprs(&'a [Expr], Option<&'a Scope<'a>>),
    Values(&'a [Val<'a>]),
}

impl<'a> Val<'a> {
    pub(super) fn elements(self) -> Option<Elements<'a>> {
        match self {
            Val::List { exprs, scope, .. } => Some(Elements::Exprs(exprs, scope)),
            Val::Values { elements, .. } => Some(Elements::Values(elements)),
            _ => None,
        }
    }
}

impl Elements<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Elements::Exprs(exprs, _) => exprs.len(),
            Elements::Values(values) => values.len(),
        }
    }
}

fn address<T>(place: &T) -> usize {
    std::ptr::from_ref(place).addr()
}

impl<'a> Machine<'a> {
    fn step(&mut self) -> Result<(), Fail> {
        self.fuel = self.fuel.checked_sub(1).ok_or(Fail)?;
        Ok(())
    }

    /// Takes `count` steps at once, for what is done without evaluating.
    pub(super) fn work(&mut self, count: usize) -> Result<(), Fail> {
        self.fuel = self.fuel.checked_sub(u32::try_from(count).map_err(|_| Fail)?).ok_or(Fail)?;
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), Fail> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Fail)?;
        Ok(())
    }

    /// A string that is made here.
    pub(super) fn string(&mut self, text: impl Into<Vec<u8>>) -> Outcome<'a> {
        let text = text.into();
        self.take(text.len() + 32)?;
        Ok(Val::String(self.arena.bytes.push_get(text.into())))
    }

    /// A list that is made here. As an element, a span of time has whole seconds.
    pub(super) fn list(&mut self, mut elements: Vec<Val<'a>>, shared: bool) -> Outcome<'a> {
        self.take(elements.len() * size_of::<Val<'_>>() + 32)?;
        for element in &mut elements {
            if let Val::Relative(seconds) = element {
                *seconds = f64::from(to_i32(*seconds));
            }
        }
        Ok(Val::Values { elements: self.arena.values.push_get(elements.into()), shared })
    }

    /// An ad that is made here, in no other.
    pub(super) fn ad(&mut self, ad: Ad) -> Outcome<'a> {
        self.take(ad.len() * 64 + 64)?;
        let ad = self.arena.ads.push_get(Box::new(ad));
        Ok(Val::Ad(self.arena_scope(Scope { kind: Kind::Ad(ad), parent: None, shared: false })?))
    }

    /// An expression that is read here.
    pub(super) fn expr(&mut self, expr: Expr, text: usize) -> Result<&'a Expr, Fail> {
        self.take(text.saturating_mul(16) + 64)?;
        Ok(self.arena.exprs.push_get(Box::new(expr)))
    }

    fn arena_scope(&mut self, scope: Scope<'a>) -> Result<&'a Scope<'a>, Fail> {
        self.take(64)?;
        Ok(self.arena.scopes.push_get(Box::new(scope)))
    }

    /// The scope of an ad that stands in `expr`: the same one each time.
    fn nested(&mut self, expr: &'a Expr, ad: &'a Ad, parent: Option<&'a Scope<'a>>) -> Result<&'a Scope<'a>, Fail> {
        let key = (address(expr), parent.map_or(0, address));
        if let Some(known) = self.scopes.get(&key) {
            return Ok(known);
        }
        let scope = self.arena_scope(Scope { kind: Kind::Ad(ad), parent, shared: false })?;
        self.scopes.insert(key, scope);
        Ok(scope)
    }

    pub(super) fn eval(&mut self, expr: &'a Expr, cx: Cx<'_, 'a>) -> Outcome<'a> {
        self.step()?;
        match &*expr.0 {
            Node::Literal(value) => Ok(literal(value)),
            Node::Reference(reference) => self.reference(reference, cx),
            node => self.compound(expr, node, cx.inner()?),
        }
    }

    fn compound(&mut self, expr: &'a Expr, node: &'a Node, cx: Cx<'_, 'a>) -> Outcome<'a> {
        match node {
            Node::List(elements) => return Ok(Val::List { exprs: elements, scope: cx.lexical, shared: false }),
            Node::Ad(ad) => return Ok(Val::Ad(self.nested(expr, ad, cx.lexical)?)),
            // Functions take more of the stack.
            Node::Call(call) => return self.call(call, cx.inner()?),
            _ => {}
        }
        let cx = Cx { depth: cx.depth.checked_sub(1).ok_or(Fail)?, ..cx };
        match node {
            Node::Parentheses(inner) => self.eval(inner, cx),
            Node::Unary(operator, operand) => Ok(ops::unary(*operator, self.eval(operand, cx)?)),
            Node::Binary(operator, left, right) => self.binary(*operator, left, right, cx),
            Node::Conditional(condition, then, otherwise) => {
                let condition = self.eval(condition, cx)?;
                match (condition.truth(), condition) {
                    (Some(true), _) => self.eval(then, cx),
                    (Some(false), _) => self.eval(otherwise, cx),
                    (None, Val::Undefined) => Ok(Val::Undefined),
                    (None, Val::Error) => Ok(Val::Error),
                    (None, _) => {
                        self.eval(then, cx)?;
                        self.eval(otherwise, cx)?;
                        Ok(Val::Error)
                    }
                }
            }
            _ => Ok(Val::Error),
        }
    }

    fn binary(&mut self, operator: Binary, left: &'a Expr, right: &'a Expr, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let left = self.eval(left, cx)?;
        match (operator, left) {
            (Binary::Or | Binary::And, Val::Error) => return Ok(Val::Error),
            (Binary::Or, value) if value.truth() == Some(true) => return Ok(Val::Boolean(true)),
            (Binary::And, value) if value.truth() == Some(false) => return Ok(Val::Boolean(false)),
            (Binary::Default, Val::Undefined) => {}
            (Binary::Default, value) => return Ok(value),
            _ => {}
        }
        let right = self.eval(right, cx)?;
        match operator {
            Binary::Subscript => self.subscript(left, right, cx),
            operator => Ok(ops::binary(operator, left, right)),
        }
    }

    fn subscript(&mut self, left: Val<'a>, index: Val<'a>, cx: Cx<'_, 'a>) -> Outcome<'a> {
        match (left, index) {
            (Val::Error, _) | (_, Val::Error) => Ok(Val::Error),
            (Val::Undefined, _) | (_, Val::Undefined) => Ok(Val::Undefined),
            (Val::Ad(scope), Val::String(name)) => {
                if !self.has(scope, Name::of(name)) {
                    return Ok(Val::Undefined);
                }
                match self.attribute_of(scope, name, cx) {
                    Ok(value) => self.orphan(value, true),
                    Err(Fail) => Ok(Val::Error),
                }
            }
            (_, Val::Integer(index)) if let Some(elements) = left.elements() => {
                // HTCondor looks at the lower 32 bits.
                match usize::try_from(index as i32) {
                    Ok(index) if index < elements.len() => {
                        if cx.depth == 0 {
                            return Ok(Val::Error);
                        }
                        let scope = match elements {
                            Elements::Exprs(_, scope) => scope,
                            Elements::Values(_) => None,
                        };
                        Ok(self.within(scope, |machine| match machine.element(elements, index, cx.deeper()) {
                            Err(Fail) => machine.failed(elements, index, cx),
                            Ok(value) => value,
                        }))
                    }
                    _ => Ok(Val::Error),
                }
            }
            _ => Ok(Val::Error),
        }
    }

    /// Does something with another ad of plain names.
    pub(super) fn within<T>(&mut self, scope: Option<&'a Scope<'a>>, run: impl FnOnce(&mut Self) -> T) -> T {
        let outside = std::mem::replace(&mut self.scope, scope);
        let result = run(self);
        self.scope = outside;
        result
    }

    /// What HTCondor makes of an element whose evaluation fails.
    fn failed(&mut self, elements: Elements<'a>, index: usize, cx: Cx<'_, 'a>) -> Val<'a> {
        match elements {
            Elements::Exprs(exprs, _) => exprs.get(index).map_or(Val::Error, |expr| self.failure(expr, cx)),
            Elements::Values(_) => Val::Error,
        }
    }

    /// What HTCondor makes of an expression whose evaluation fails, where it goes on: nothing is known of a reference that leads nowhere, all else is an error.
    pub(super) fn failure(&mut self, expr: &'a Expr, cx: Cx<'_, 'a>) -> Val<'a> {
        let (Node::Reference(reference), Ok(cx)) = (&*expr.0, cx.inner()) else {
            return Val::Error;
        };
        match self.deref(reference, cx) {
            Err(Fail) => Val::Undefined,
            Ok(Found::Attribute(expr, scope)) => self.within(Some(scope), |machine| machine.failure(expr, cx)),
            Ok(_) => Val::Error,
        }
    }

    /// Evaluates an ad's attribute anew, without knowing what is being evaluated.
    pub(super) fn attribute_of(&mut self, scope: &'a Scope<'a>, name: &[u8], cx: Cx<'_, 'a>) -> Outcome<'a> {
        let cx = cx.anew(scope);
        match self.find(Name::of(name), Special::of(name), scope, cx.root)? {
            Found::Attribute(expr, scope) => {
                self.within(Some(scope), |machine| machine.eval(expr, Cx { lexical: Some(scope), ..cx }))
            }
            Found::Value(value) => Ok(value),
            Found::Nothing => Ok(Val::Undefined),
        }
    }

    /// Evaluates an element of a list.
    pub(super) fn element(&mut self, elements: Elements<'a>, index: usize, cx: Cx<'_, 'a>) -> Outcome<'a> {
        match elements {
            Elements::Exprs(exprs, scope) => match exprs.get(index) {
                Some(expr) => self.eval(expr, Cx { lexical: scope, ..cx }),
                None => Ok(Val::Undefined),
            },
            Elements::Values(values) => {
                self.step()?;
                // What was a span of time is a number of seconds when it is read from a list.
                Ok(match values.get(index).copied().unwrap_or(Val::Undefined) {
                    Val::Relative(seconds) => Val::Real(seconds),
                    value => value,
                })
            }
        }
    }

    fn reference(&mut self, reference: &'a Reference, cx: Cx<'_, 'a>) -> Outcome<'a> {
        match self.deref(reference, cx)? {
            Found::Attribute(expr, scope) => self.attribute(expr, scope, cx),
            Found::Value(_) if cx.depth == 0 => Err(Fail),
            Found::Value(value) => Ok(value),
            Found::Nothing => Ok(Val::Undefined),
        }
    }

    /// Evaluates an attribute, where one that is being evaluated already is undefined.
    fn attribute(&mut self, expr: &'a Expr, scope: &'a Scope<'a>, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let depth = cx.depth.checked_sub(1).ok_or(Fail)?;
        if let Node::Literal(value) = &*expr.0 {
            self.step()?;
            return Ok(literal(value));
        }
        let mut active = cx.active;
        while let Some(other) = active {
            if std::ptr::eq(other.attribute, expr) {
                return Ok(Val::Undefined);
            }
            active = other.up;
        }
        let here = Active { attribute: expr, up: cx.active };
        let cx = Cx { lexical: Some(scope), root: cx.root, depth, level: cx.level + 1, active: Some(&here) };
        self.within(Some(scope), |machine| machine.eval(expr, cx))
    }

    /// What a reference stands for.
    pub(super) fn deref(&mut self, reference: &'a Reference, cx: Cx<'_, 'a>) -> Result<Found<'a>, Fail> {
        let name = reference.named();
        match &reference.base {
            None => {
                let start = if reference.absolute { Some(cx.root.ok_or(Fail)?) } else { self.scope };
                let Some(start) = start else {
                    return Ok(Found::Nothing);
                };
                let found = self.find(name, reference.special, start, cx.root)?;
                match (found, self.alternate(start)) {
                    (Found::Nothing, Some(other)) if !reference.absolute => {
                        self.find(name, reference.special, other, cx.root)
                    }
                    (found, _) => Ok(found),
                }
            }
            Some(_) if cx.depth == 0 => Ok(Found::Value(Val::Error)),
            Some(_) if cx.level >= MAX_LEVEL => Err(Fail),
            Some(base) => {
                let base = self.eval(base, Cx { level: cx.level + 1, ..cx.deeper() })?;
                self.select(base, name, reference.special, cx)
            }
        }
    }

    /// `base.name`, which of a list is a list.
    pub(super) fn select(
        &mut self,
        base: Val<'a>,
        name: Name<'a>,
        special: Option<Special>,
        cx: Cx<'_, 'a>,
    ) -> Result<Found<'a>, Fail> {
        match base {
            Val::Undefined => Ok(Found::Nothing),
            Val::Ad(scope) => self.find(name, special, scope, cx.root),
            base => {
                let Some(elements) = base.elements() else {
                    return Ok(Found::Value(Val::Error));
                };
                if cx.level >= MAX_LEVEL {
                    return Err(Fail);
                }
                let scope = self.scope;
                let cx = Cx { root: scope.map(outermost), level: cx.level + 1, ..cx };
                let mut values = Vec::with_capacity(elements.len());
                for index in 0..elements.len() {
                    self.step()?;
                    self.scope = scope;
                    values.push(if cx.depth == 0 {
                        Val::Error
                    } else {
                        let element = self.element(elements, index, cx.deeper())?;
                        let value = match self.select(element, name, special, cx)? {
                            Found::Attribute(expr, scope) => self.attribute(expr, scope, cx)?,
                            Found::Value(value) => value,
                            Found::Nothing => Val::Undefined,
                        };
                        self.orphan(value, false)?
                    });
                }
                self.scope = scope;
                Ok(Found::Value(self.list(values, false)?))
            }
        }
    }

    /// A list or an ad without the ads around it.
    fn orphan(&mut self, value: Val<'a>, shared: bool) -> Outcome<'a> {
        Ok(match value {
            Val::List { exprs, .. } => Val::List { exprs, scope: None, shared },
            Val::Values { elements, .. } => Val::Values { elements, shared },
            Val::Ad(scope) if scope.parent.is_none() && scope.shared == shared => value,
            Val::Ad(scope) => Val::Ad(self.arena_scope(Scope { kind: scope.kind, parent: None, shared })?),
            value => value,
        })
    }

    /// Where a plain name is looked up that `scope` and those around it lack.
    pub(super) fn alternate(&self, scope: &'a Scope<'a>) -> Option<&'a Scope<'a>> {
        let is = |side: Option<&'a Scope<'a>>| side.is_some_and(|side| std::ptr::eq(side, scope));
        if is(self.my) {
            self.target
        } else if is(self.target) {
            self.my
        } else {
            self.borrowed.filter(|(borrower, _)| is(Some(borrower))).map(|(_, other)| other)
        }
    }

    /// The expressions of an ad.
    pub(super) fn attributes(&self, scope: &'a Scope<'a>) -> Vec<&'a Expr> {
        let ad = match scope.kind {
            Kind::Ad(ad) => ad,
            Kind::Left => &LEFT,
            Kind::Right => &RIGHT,
            Kind::Match => &MATCH,
        };
        ad.iter().map(|(_, expr)| expr).collect()
    }

    fn has(&self, scope: &'a Scope<'a>, name: Name<'_>) -> bool {
        !matches!(self.own(scope, name), Found::Nothing)
    }

    /// An attribute of the ad itself.
    pub(super) fn own(&self, scope: &'a Scope<'a>, name: Name<'_>) -> Found<'a> {
        let of = |ad: &'a Ad| ad.find(name).map_or(Found::Nothing, |expr| Found::Attribute(expr, scope));
        let side = |side: Option<&'a Scope<'a>>| side.map_or(Found::Nothing, |side| Found::Value(Val::Ad(side)));
        let is = |known: Name<'_>| name.is(known);
        match scope.kind {
            Kind::Ad(ad) => of(ad),
            Kind::Left | Kind::Right => {
                let (own, other) =
                    if matches!(scope.kind, Kind::Left) { (self.my, self.target) } else { (self.target, self.my) };
                if is(TARGET_NAME) || is(OTHER_NAME) {
                    side(other)
                } else if is(MY_NAME) || is(AD_NAME) {
                    side(own)
                } else {
                    Found::Nothing
                }
            }
            Kind::Match if is(LEFT_NAME) => side(self.my),
            Kind::Match if is(RIGHT_NAME) => side(self.target),
            Kind::Match if is(LCTX_NAME) => side(self.my.and_then(|my| my.parent)),
            Kind::Match if is(RCTX_NAME) => side(self.target.and_then(|target| target.parent)),
            Kind::Match => of(&MATCH),
        }
    }

    /// Looks a name up in an ad and those around it.
    pub(super) fn find(
        &self,
        name: Name<'_>,
        special: Option<Special>,
        start: &'a Scope<'a>,
        root: Option<&'a Scope<'a>>,
    ) -> Result<Found<'a>, Fail> {
        let mut scope = start;
        loop {
            match self.own(scope, name) {
                Found::Nothing => {}
                found => return Ok(found),
            }
            let parent = if root.is_some_and(|root| std::ptr::eq(root, scope)) { None } else { scope.parent };
            return Ok(match special {
                None => match parent {
                    Some(parent) => {
                        scope = parent;
                        continue;
                    }
                    None => Found::Nothing,
                },
                Some(Special::Own) => Found::Value(Val::Ad(scope)),
                Some(Special::Root) => Found::Value(Val::Ad(root.ok_or(Fail)?)),
                Some(Special::Parent) => parent.map_or(Found::Nothing, |parent| Found::Value(Val::Ad(parent))),
                Some(Special::CurrentTime) => Found::Value(Val::Integer(self.context.now)),
            });
        }
    }

    /// The value, for whoever asked.
    pub(super) fn to_value(&self, value: Val<'a>) -> Value {
        match value {
            Val::Undefined => Value::Undefined,
            Val::Error => Value::Error,
            Val::Boolean(truth) => Value::Boolean(truth),
            Val::Integer(number) => Value::Integer(number),
            Val::Real(number) => Value::Real(number),
            Val::String(text) => Value::String(text.into()),
            Val::Absolute(time) => Value::AbsoluteTime(time),
            Val::Relative(seconds) => Value::RelativeTime(seconds),
            Val::List { exprs, .. } => Value::List((*exprs).into()),
            Val::Values { elements, .. } => {
                Value::List(elements.iter().map(|element| Expr::from(self.to_value(*element))).collect())
            }
            Val::Ad(scope) => Value::Ad(self.to_ad(scope)),
        }
    }

    pub(super) fn to_ad(&self, scope: &Scope<'a>) -> Ad {
        match scope.kind {
            Kind::Ad(ad) => ad.clone(),
            Kind::Left => LEFT.clone(),
            Kind::Right => RIGHT.clone(),
            Kind::Match => {
                let mut ad = MATCH.clone();
                ad.insert("lCtx", LEFT.clone());
                ad.insert("rCtx", RIGHT.clone());
                for (name, side) in [("LEFT", self.my), ("RIGHT", self.target)] {
                    if let Some(Scope { kind: Kind::Ad(side), .. }) = side {
                        ad.insert(name, (*side).clone());
                    }
                }
                ad
            }
        }
    }

    /// The offset from UTC at a time.
    pub(super) fn offset(&self, secs: i64) -> i32 {
        (self.context.zone)(secs)
    }

    /// A time that is shown in the local zone.
    pub(super) fn local(&self, secs: i64) -> AbsoluteTime {
        AbsoluteTime { secs, offset: self.offset(secs) }
    }

    /// The time at which local clocks show `local`.
    pub(super) fn local_time(&self, local: i64) -> AbsoluteTime {
        time::in_zone(local, self.context.zone)
    }
}

/// The value of a literal. HTCondor takes a span of time in an expression for a number of seconds.
fn literal(value: &Value) -> Val<'_> {
    match value {
        Value::Undefined => Val::Undefined,
        Value::Error => Val::Error,
        Value::Boolean(truth) => Val::Boolean(*truth),
        Value::Integer(number) => Val::Integer(*number),
        Value::Real(number) => Val::Real(*number),
        Value::String(text) => Val::String(text),
        Value::AbsoluteTime(time) => Val::Absolute(*time),
        Value::RelativeTime(seconds) => Val::Real(*seconds),
        // Neither is ever a literal.
        Value::List(_) | Value::Ad(_) => Val::Error,
    }
}
