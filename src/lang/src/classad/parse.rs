//! Texts to expressions and ads. The grammar is HTCondor's, with its depth of nesting.

use super::expr::{Binary, Call, Node, Reference, Special, Unary};
use super::functions::Function;
use super::lex::{Lexer, Token, is_space};
use super::{Ad, Expr, MAX_HEIGHT, MAX_TEXT, Text, Value, time};

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {message}{}", .expected.map(|e| format!(", expected {e}")).unwrap_or_default())]
pub struct Fault {
    /// Bytes of the text before the place.
    pub offset: usize,
    /// A lower-case fragment.
    pub message: String,
    /// What would have been right in this place.
    pub expected: Option<&'static str>,
}

impl Fault {
    pub(super) fn new(offset: usize, message: impl Into<String>) -> Self {
        Fault { offset, message: message.into(), expected: None }
    }

    pub(super) fn expected(mut self, what: &'static str) -> Self {
        self.expected = Some(what);
        self
    }

    /// The finding as a diagnostic of the text `name`, in which the expression begins at byte `start`.
    pub fn diagnostic(&self, name: &str, text: &[u8], start: usize) -> crate::Diagnostic {
        let offset = u32::try_from(start + self.offset).unwrap_or(u32::MAX);
        let diagnostic =
            crate::diagnostic::Source::new(name, text).at(offset, crate::Severity::Error, self.message.clone());
        match self.expected {
            Some(expected) => diagnostic.expected(expected),
            None => diagnostic,
        }
    }
}

/// Most calls of the parser in one another, as HTCondor counts them: a pair of parentheses takes three.
const MAX_DEPTH: usize = 500;

impl Expr {
    /// Reads an expression.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, Fault> {
        let mut parser = Parser::new(text.as_ref(), 0, false)?;
        let parsed = parser.expression()?;
        parser.end()?;
        Ok(parsed.expr)
    }

    /// Reads an expression as `eval()` does, which asks for no end after `a ? b : c`.
    pub(super) fn parse_for_eval(text: &[u8]) -> Option<Self> {
        let mut parser = Parser::new(text, 0, false).ok()?;
        let parsed = parser.expression().ok()?;
        let conditional = matches!(*parsed.expr.0, Node::Conditional(..));
        (conditional || parser.token == Token::End).then_some(parsed.expr)
    }

    /// Reads an expression of an old ad: a backslash in a string stands for itself, except before a quotation mark.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse_old(text: impl AsRef<[u8]>) -> Result<Self, Fault> {
        let mut parser = Parser::new(text.as_ref(), 0, true)?;
        let parsed = parser.expression()?;
        parser.end()?;
        Ok(parsed.expr)
    }
}

impl Ad {
    /// Reads an ad in the new syntax: `[ a = 1; b = {1, 2} ]`.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, Fault> {
        let mut parser = Parser::new(text.as_ref(), 0, false)?;
        let (ad, _) = parser.ad()?;
        parser.end()?;
        Ok(ad)
    }

    /// Reads an ad in the old syntax, `Name = expression` on each line; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// Every line's fault; offsets count from the start of the text.
    pub fn parse_old(text: impl AsRef<[u8]>) -> Result<Self, Vec<Fault>> {
        let text = text.as_ref();
        if text.len() > MAX_TEXT {
            return Err(vec![too_long()]);
        }
        let (mut ad, mut faults, mut start) = (Ad::new(), Vec::new(), 0);
        for line in text.split(|byte| *byte == b'\n') {
            match old_line(line) {
                Ok(Some((name, value))) => ad.insert(name, value),
                Ok(None) => {}
                Err(fault) => faults.push(Fault { offset: fault.offset + start, ..fault }),
            }
            start += line.len() + 1;
        }
        if faults.is_empty() { Ok(ad) } else { Err(faults) }
    }
}

fn old_line(line: &[u8]) -> Result<Option<(Text, Expr)>, Fault> {
    let Some(start) = line.iter().position(|byte| !is_space(*byte)).filter(|start| line.get(*start) != Some(&b'#'))
    else {
        return Ok(None);
    };
    let rest = line.get(start..).unwrap_or_default();
    let Some(equals) = rest.iter().position(|byte| *byte == b'=') else {
        return Err(Fault::new(start, "line has no `=`").expected("`Name = expression`"));
    };
    let name = rest.get(..equals).unwrap_or_default().trim_ascii();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if name.is_empty() || name.first().is_some_and(u8::is_ascii_digit) || !name.iter().all(plain) {
        return Err(
            Fault::new(start, "not the name of an attribute").expected("letters, digits and `_` before the `=`")
        );
    }
    let mut parser = Parser::new(line, start + equals + 1, true)?;
    let parsed = parser.expression()?;
    parser.end()?;
    Ok(Some((name.into(), parsed.expr)))
}

fn too_long() -> Fault {
    Fault::new(MAX_TEXT, "text is too long").expected("16 MiB at most")
}

struct Parsed {
    expr: Expr,
    height: usize,
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    token: Token,
    /// Where `token` begins.
    start: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn new(text: &'t [u8], at: usize, old: bool) -> Result<Self, Fault> {
        if text.len() > MAX_TEXT {
            return Err(too_long());
        }
        let mut parser = Parser { lexer: Lexer::new(text, at, old), token: Token::End, start: at, depth: 0 };
        parser.advance()?;
        Ok(parser)
    }

    /// Takes the token, and reads the next.
    fn advance(&mut self) -> Result<Token, Fault> {
        let (start, next) = self.lexer.next(&self.token)?;
        self.start = start;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn unexpected(&self, expected: &'static str) -> Fault {
        let message = match &self.token {
            Token::End => "the text ends here",
            Token::Assign => "unexpected `=`; a comparison is `==`",
            _ => "unexpected word or sign",
        };
        Fault::new(self.start, message).expected(expected)
    }

    fn expect(&mut self, token: &Token, expected: &'static str) -> Result<(), Fault> {
        if self.token != *token {
            return Err(self.unexpected(expected));
        }
        self.advance().map(drop)
    }

    fn end(&mut self) -> Result<(), Fault> {
        if self.token == Token::End { Ok(()) } else { Err(self.unexpected("an operator, or the end")) }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth >= MAX_DEPTH {
            return Err(Fault::new(self.start, "nested too deeply")
                .expected("fewer parentheses, lists and calls in one another"));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn make(&self, node: Node, inner: usize) -> Result<Parsed, Fault> {
        if inner >= MAX_HEIGHT {
            return Err(Fault::new(self.start, "expression is too long").expected("fewer operands in one chain"));
        }
        Ok(Parsed { expr: Expr::new(node), height: inner + 1 })
    }

    fn expression(&mut self) -> Result<Parsed, Fault> {
        self.nested(|parser| {
            let condition = parser.binary(0)?;
            if parser.token != Token::Question {
                return Ok(condition);
            }
            parser.advance()?;
            let then = parser.expression()?;
            parser.expect(&Token::Colon, "`:` and what holds otherwise")?;
            let otherwise = parser.expression()?;
            let height = condition.height.max(then.height).max(otherwise.height);
            parser.make(Node::Conditional(condition.expr, then.expr, otherwise.expr), height)
        })
    }

    /// Operators that bind as `least` does, or more tightly; all of them group to the left.
    fn binary(&mut self, least: u8) -> Result<Parsed, Fault> {
        let mut left = self.unary()?;
        while let Some((operator, binding)) = self.operator().filter(|(_, binding)| *binding >= least) {
            self.advance()?;
            let right = self.binary(binding + 1)?;
            let height = left.height.max(right.height);
            left = self.make(Node::Binary(operator, left.expr, right.expr), height)?;
        }
        Ok(left)
    }

    fn operator(&self) -> Option<(Binary, u8)> {
        use Binary::*;
        let operator = match self.token {
            Token::Plus => Add,
            Token::Minus => Subtract,
            Token::Operator(operator) => operator,
            _ => return None,
        };
        let binding = match operator {
            Or => 0,
            And => 1,
            BitOr => 2,
            BitXor => 3,
            BitAnd => 4,
            Equal | NotEqual | Is | IsNot => 5,
            Less | LessOrEqual | Greater | GreaterOrEqual => 6,
            ShiftLeft | ShiftRight | ShiftRightUnsigned => 7,
            Add | Subtract => 8,
            Multiply | Divide | Remainder => 9,
            Subscript | Default => return None,
        };
        Some((operator, binding))
    }

    fn unary(&mut self) -> Result<Parsed, Fault> {
        self.nested(|parser| {
            let operator = match parser.token {
                Token::Plus => Unary::Plus,
                Token::Minus => Unary::Minus,
                Token::Not => Unary::Not,
                Token::Complement => Unary::Complement,
                _ => return parser.postfix(),
            };
            parser.advance()?;
            let operand = parser.unary()?;
            parser.make(Node::Unary(operator, operand.expr), operand.height)
        })
    }

    fn postfix(&mut self) -> Result<Parsed, Fault> {
        self.nested(|parser| {
            let mut left = parser.primary()?;
            loop {
                match parser.token {
                    Token::OpenBracket => {
                        parser.advance()?;
                        let right = parser.expression()?;
                        parser.expect(&Token::CloseBracket, "`]` after a subscript")?;
                        let height = left.height.max(right.height);
                        left = parser.make(Node::Binary(Binary::Subscript, left.expr, right.expr), height)?;
                    }
                    Token::Operator(Binary::Default) => {
                        parser.advance()?;
                        let right = parser.postfix()?;
                        let height = left.height.max(right.height);
                        left = parser.make(Node::Binary(Binary::Default, left.expr, right.expr), height)?;
                    }
                    Token::Dot => {
                        parser.advance()?;
                        let name = parser.name("the name of an attribute after `.`")?;
                        let reference =
                            Reference { base: Some(left.expr), absolute: false, special: Special::of(&name), name };
                        left = parser.make(Node::Reference(reference), left.height)?;
                    }
                    _ => return Ok(left),
                }
            }
        })
    }

    fn name(&mut self, expected: &'static str) -> Result<Text, Fault> {
        if !matches!(self.token, Token::Name(_)) {
            return Err(self.unexpected(expected));
        }
        match self.advance()? {
            Token::Name(name) => Ok(name.into()),
            _ => Err(self.unexpected(expected)),
        }
    }

    fn primary(&mut self) -> Result<Parsed, Fault> {
        match &self.token {
            Token::Name(_) => {
                let name = self.name("a name")?;
                if self.token == Token::Open {
                    return self.call(name);
                }
                self.make(
                    Node::Reference(Reference { base: None, absolute: false, special: Special::of(&name), name }),
                    0,
                )
            }
            Token::Dot => {
                self.advance()?;
                let name = self.name("the name of an attribute after `.`")?;
                self.make(
                    Node::Reference(Reference { base: None, absolute: true, special: Special::of(&name), name }),
                    0,
                )
            }
            Token::Open => {
                self.advance()?;
                let inner = self.expression()?;
                self.expect(&Token::Close, "an operator, or `)`")?;
                self.make(Node::Parentheses(inner.expr), inner.height)
            }
            Token::OpenBracket => {
                let (ad, height) = self.ad()?;
                self.make(Node::Ad(ad), height)
            }
            Token::OpenList => {
                self.advance()?;
                let (elements, height) = self.sequence(&Token::CloseList, "`,` or `}`")?;
                self.make(Node::List(elements.into()), height)
            }
            Token::Undefined
            | Token::Error
            | Token::Boolean(_)
            | Token::Integer(_)
            | Token::Real(_)
            | Token::String(_) => {
                let value = match self.advance()? {
                    Token::Boolean(truth) => Value::Boolean(truth),
                    Token::Integer(number) => Value::Integer(number),
                    Token::Real(number) => Value::Real(number),
                    Token::String(text) => Value::String(text.into()),
                    Token::Error => Value::Error,
                    _ => Value::Undefined,
                };
                self.make(Node::Literal(value), 0)
            }
            _ => Err(self.unexpected("a value, a name, or `(`")),
        }
    }

    /// Expressions with commas between them, and `close`.
    fn sequence(&mut self, close: &Token, expected: &'static str) -> Result<(Vec<Expr>, usize), Fault> {
        let (mut elements, mut height) = (Vec::new(), 0);
        if self.token != *close {
            loop {
                let element = self.expression()?;
                height = height.max(element.height);
                elements.push(element.expr);
                let separator = self.token == Token::Comma || self.token == Token::Semicolon && *close == Token::Close;
                if !separator {
                    break;
                }
                self.advance()?;
            }
        }
        self.expect(close, expected)?;
        Ok((elements, height))
    }

    fn call(&mut self, name: Text) -> Result<Parsed, Fault> {
        let start = self.start;
        self.advance()?;
        let (arguments, height) = self.sequence(&Token::Close, "an operator, `,` or `)`")?;
        let function = Function::of(&name);
        // Times in text become values as soon as they are read.
        if let [only] = arguments.as_slice()
            && let Some(Value::String(text)) = only.as_literal()
        {
            let read = match function {
                Some(Function::AbsTime) => match time::parse_absolute(text) {
                    Some((local, Some(offset))) => Some(Value::AbsoluteTime(time::at_offset(local, offset))),
                    Some((_, None)) => None,
                    None => {
                        return Err(
                            Fault::new(start, "not a time").expected("a time such as \"2026-05-31T12:00:00+02:00\"")
                        );
                    }
                },
                Some(Function::RelTime) => match time::parse_relative(text) {
                    Some(seconds) => Some(Value::RelativeTime(seconds)),
                    None => {
                        return Err(Fault::new(start, "not a span of time").expected("a span such as \"1+02:03:04\""));
                    }
                },
                _ => None,
            };
            if let Some(value) = read {
                return self.make(Node::Literal(value), 0);
            }
        }
        self.make(Node::Call(Call { name, function, arguments: arguments.into() }), height)
    }

    fn ad(&mut self) -> Result<(Ad, usize), Fault> {
        self.expect(&Token::OpenBracket, "`[`")?;
        let (mut ad, mut height) = (Ad::new(), 0);
        loop {
            match self.token {
                Token::Semicolon => drop(self.advance()?),
                Token::CloseBracket => {
                    self.advance()?;
                    return Ok((ad, height));
                }
                _ => {
                    let start = self.start;
                    let name = self.name("the name of an attribute, or `]`")?;
                    if name.is_empty() {
                        return Err(Fault::new(start, "the name of an attribute is empty"));
                    }
                    self.expect(&Token::Assign, "`=` after the name of an attribute")?;
                    let value = self.expression()?;
                    height = height.max(value.height);
                    ad.insert(name, value.expr);
                    if !matches!(self.token, Token::Semicolon | Token::CloseBracket) {
                        return Err(self.unexpected("an operator, `;` or `]`"));
                    }
                }
            }
        }
    }
}
