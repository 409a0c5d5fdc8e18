//! Parsed expressions.

use std::sync::{Arc, OnceLock};

use super::ad::{Key, Name};
use super::functions::Function;
use super::pattern::Pattern;
use super::{Ad, Text, Value};

/// A parsed expression. Cheap to clone. `Display` writes it as HTCondor does, with the parentheses of its text;
/// what HTCondor writes can't always be read again, such as `a.'odd name'`.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr(pub(super) Arc<Node>);

#[derive(Debug, PartialEq)]
pub(super) enum Node {
    /// Anything but a list or an ad.
    Literal(Value),
    List(Arc<[Expr]>),
    Ad(Ad),
    Reference(Reference),
    Parentheses(Expr),
    Unary(Unary, Expr),
    Binary(Binary, Expr, Expr),
    Conditional(Expr, Expr, Expr),
    Call(Call),
}

/// `name`, `.name` or `base.name`.
#[derive(Debug, PartialEq)]
pub(super) struct Reference {
    pub(super) base: Option<Expr>,
    pub(super) absolute: bool,
    pub(super) name: Text,
    pub(super) key: Key,
    pub(super) special: Option<Special>,
}

impl Reference {
    pub(super) fn new(base: Option<Expr>, absolute: bool, name: Text) -> Self {
        Reference { base, absolute, key: Key::of(&name), special: Special::of(&name), name }
    }

    pub(super) fn named(&self) -> Name<'_> {
        Name { key: self.key, text: &self.name }
    }
}

/// A call. A function that isn't known is an error when it is evaluated.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    /// As it was written.
    pub(super) name: Text,
    pub(super) function: Option<Function>,
    pub(super) arguments: Box<[Expr]>,
    pub(super) compiled: Compiled,
}

/// The pattern of a call whose pattern and options are literals, once it was needed; nothing in it if it can't be read.
#[derive(Debug, Default)]
pub(super) struct Compiled(OnceLock<Option<Arc<Pattern>>>);

impl Compiled {
    pub(super) fn get_or_compile(&self, compile: impl FnOnce() -> Option<Arc<Pattern>>) -> Option<Arc<Pattern>> {
        self.0.get_or_init(compile).clone()
    }
}

impl PartialEq for Compiled {
    /// It follows from what stands beside it.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Names that mean something in every scope that doesn't define them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    /// `toplevel`, `root`
    Root,
    /// `self`, `MY`
    Own,
    /// `parent`
    Parent,
    /// `CurrentTime`
    CurrentTime,
}

impl Special {
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        const NAMES: [(&str, Special); 6] = [
            ("my", Special::Own),
            ("self", Special::Own),
            ("root", Special::Root),
            ("toplevel", Special::Root),
            ("parent", Special::Parent),
            ("currenttime", Special::CurrentTime),
        ];
        NAMES.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, special)| *special)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unary {
    Plus,
    Minus,
    Not,
    Complement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Less,
    LessOrEqual,
    NotEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    Is,
    IsNot,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Or,
    And,
    BitOr,
    BitXor,
    BitAnd,
    ShiftLeft,
    ShiftRight,
    ShiftRightUnsigned,
    Subscript,
    /// `a ?: b`
    Default,
}

impl Expr {
    pub(super) fn new(node: Node) -> Self {
        Expr(Arc::new(node))
    }

    /// The value, if the expression is a literal.
    pub fn as_literal(&self) -> Option<&Value> {
        match &*self.0 {
            Node::Literal(value) => Some(value),
            _ => None,
        }
    }
}

impl From<Value> for Expr {
    fn from(value: Value) -> Self {
        Expr::new(match value {
            Value::List(elements) => Node::List(elements),
            Value::Ad(ad) => Node::Ad(ad),
            value => Node::Literal(value),
        })
    }
}
