//! Texts to expressions and ads. The grammar is HTCondor's, with its depth of nesting.

use super::expr::{Binary, Call, Compiled, Node, Reference, Unary};
use super::functions::Function;
use super::lex::{Lexer, Token, is_space};
use super::{Ad, Expr, MAX_HEIGHT, MAX_TEXT, Text, Value, Zone, time};

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
        Parser::new(text.as_ref(), 0, false, None)?.whole()
    }

    /// Reads an expression. Times in it that name no zone are of `zone` from now on, as they are in HTCondor, not of the zone in which the expression is evaluated.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse_in(text: impl AsRef<[u8]>, zone: Zone<'_>) -> Result<Self, Fault> {
        Parser::new(text.as_ref(), 0, false, Some(zone))?.whole()
    }

    /// Reads an expression as `eval()` does, which asks for no end after `a ? b : c`.
    pub(super) fn parse_for_eval(text: &[u8], zone: Zone<'_>) -> Option<Self> {
        let mut parser = Parser::new(text, 0, false, Some(zone)).ok()?;
        let parsed = parser.expression().ok()?;
        let conditional = matches!(*parsed.expr.0, Node::Conditional(..));
        (conditional || parser.token == Token::End).then_some(parsed.expr)
    }

    /// Reads an expression of an old ad: a backslash in a string stands for itself, except before a quotation mark.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse_old(text: impl AsRef<[u8]>) -> Result<Self, Fault> {
        Parser::new(text.as_ref(), 0, true, None)?.whole()
    }
}

impl Ad {
    /// Reads an ad in the new syntax: `[ a = 1; b = {1, 2} ]`.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, Fault> {
        Parser::new(text.as_ref(), 0, false, None)?.whole_ad()
    }

    /// Reads an ad in the new syntax; see [`Expr::parse_in`].
    ///
    /// # Errors
    /// The first fault.
    pub fn parse_in(text: impl AsRef<[u8]>, zone: Zone<'_>) -> Result<Self, Fault> {
        Parser::new(text.as_ref(), 0, false, Some(zone))?.whole_ad()
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
    let expr = Parser::new(line, start + equals + 1, true, None)?.whole()?;
    Ok(Some((name.into(), expr)))
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
    /// The zone of times that name none, if it is known.
    zone: Option<Zone<'t>>,
}

impl<'t> Parser<'t> {
    fn new(text: &'t [u8], at: usize, old: bool, zone: Option<Zone<'t>>) -> Result<Self, Fault> {
        if text.len() > MAX_TEXT {
            return Err(too_long());
        }
        let mut parser = Parser { lexer: Lexer::new(text, at, old), token: Token::End, start: at, depth: 0, zone };
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

    fn whole(mut self) -> Result<Expr, Fault> {
        let parsed = self.expression()?;
        self.end()?;
        Ok(parsed.expr)
    }

    fn whole_ad(mut self) -> Result<Ad, Fault> {
        let (ad, _) = self.ad()?;
        self.end()?;
        Ok(ad)
    }

    /// Begins a call within others. Whoever ends well takes one off `depth`; after a fault, nobody looks at it.
    fn enter(&mut self) -> Result<(), Fault> {
        if self.depth >= MAX_DEPTH {
            return Err(Fault::new(self.start, "nested too deeply")
                .expected("fewer parentheses, lists and calls in one another"));
        }
        self.depth += 1;
        Ok(())
    }

    fn make(&self, node: Node, inner: usize) -> Result<Parsed, Fault> {
        if inner >= MAX_HEIGHT {
            return Err(Fault::new(self.start, "expression is too long").expected("fewer operands in one chain"));
        }
        Ok(Parsed { expr: Expr::new(node), height: inner + 1 })
    }

    // The functions that call each other are small, so that the stack has room for many.

    fn expression(&mut self) -> Result<Parsed, Fault> {
        self.enter()?;
        let condition = self.binary(0)?;
        let parsed = if self.token == Token::Question { self.conditional(condition)? } else { condition };
        self.depth -= 1;
        Ok(parsed)
    }

    fn conditional(&mut self, condition: Parsed) -> Result<Parsed, Fault> {
        self.advance()?;
        let then = self.expression()?;
        self.expect(&Token::Colon, "`:` and what holds otherwise")?;
        let otherwise = self.expression()?;
        let height = condition.height.max(then.height).max(otherwise.height);
        self.make(Node::Conditional(condition.expr, then.expr, otherwise.expr), height)
    }

    /// Operators that bind as `least` does, or more tightly; all of them group to the left.
    fn binary(&mut self, least: u8) -> Result<Parsed, Fault> {
        let mut left = self.unary()?;
        while let Some((operator, binding)) = self.operator().filter(|(_, binding)| *binding >= least) {
            left = self.operation(left, operator, binding)?;
        }
        Ok(left)
    }

    fn operation(&mut self, left: Parsed, operator: Binary, binding: u8) -> Result<Parsed, Fault> {
        self.advance()?;
        let right = self.binary(binding + 1)?;
        let height = left.height.max(right.height);
        self.make(Node::Binary(operator, left.expr, right.expr), height)
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
        self.enter()?;
        let operator = match self.token {
            Token::Plus => Some(Unary::Plus),
            Token::Minus => Some(Unary::Minus),
            Token::Not => Some(Unary::Not),
            Token::Complement => Some(Unary::Complement),
            _ => None,
        };
        let parsed = match operator {
            Some(operator) => self.negation(operator)?,
            None => self.postfix()?,
        };
        self.depth -= 1;
        Ok(parsed)
    }

    fn negation(&mut self, operator: Unary) -> Result<Parsed, Fault> {
        self.advance()?;
        let operand = self.unary()?;
        self.make(Node::Unary(operator, operand.expr), operand.height)
    }

    fn postfix(&mut self) -> Result<Parsed, Fault> {
        self.enter()?;
        let mut left = self.primary()?;
        loop {
            left = match self.token {
                Token::OpenBracket => self.subscript(left)?,
                Token::Operator(Binary::Default) => self.or_default(left)?,
                Token::Dot => self.selection(left)?,
                _ => break,
            };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn subscript(&mut self, left: Parsed) -> Result<Parsed, Fault> {
        self.advance()?;
        let right = self.expression()?;
        self.expect(&Token::CloseBracket, "`]` after a subscript")?;
        let height = left.height.max(right.height);
        self.make(Node::Binary(Binary::Subscript, left.expr, right.expr), height)
    }

    fn or_default(&mut self, left: Parsed) -> Result<Parsed, Fault> {
        self.advance()?;
        let right = self.postfix()?;
        let height = left.height.max(right.height);
        self.make(Node::Binary(Binary::Default, left.expr, right.expr), height)
    }

    fn selection(&mut self, left: Parsed) -> Result<Parsed, Fault> {
        self.advance()?;
        let name = self.name("the name of an attribute after `.`")?;
        self.make(Node::Reference(Reference::new(Some(left.expr), false, name)), left.height)
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
            Token::Name(_) => self.name_or_call(),
            Token::Open => self.parentheses(),
            Token::OpenBracket => self.ad_expression(),
            Token::OpenList => self.list(),
            _ => self.leaf(),
        }
    }

    fn name_or_call(&mut self) -> Result<Parsed, Fault> {
        let name = self.name("a name")?;
        if self.token == Token::Open {
            return self.call(name);
        }
        self.make(Node::Reference(Reference::new(None, false, name)), 0)
    }

    fn parentheses(&mut self) -> Result<Parsed, Fault> {
        self.advance()?;
        let inner = self.expression()?;
        self.expect(&Token::Close, "an operator, or `)`")?;
        self.make(Node::Parentheses(inner.expr), inner.height)
    }

    fn ad_expression(&mut self) -> Result<Parsed, Fault> {
        let (ad, height) = self.ad()?;
        self.make(Node::Ad(ad), height)
    }

    fn list(&mut self) -> Result<Parsed, Fault> {
        self.advance()?;
        let (elements, height) = self.sequence(&Token::CloseList, "`,` or `}`")?;
        self.make(Node::List(elements.into()), height)
    }

    fn leaf(&mut self) -> Result<Parsed, Fault> {
        if !matches!(
            self.token,
            Token::Dot
                | Token::Undefined
                | Token::Error
                | Token::Boolean(_)
                | Token::Integer(_)
                | Token::Real(_)
                | Token::String(_)
        ) {
            return Err(self.unexpected("a value, a name, or `(`"));
        }
        let value = match self.advance()? {
            Token::Dot => {
                let name = self.name("the name of an attribute after `.`")?;
                return self.make(Node::Reference(Reference::new(None, true, name)), 0);
            }
            Token::Boolean(truth) => Value::Boolean(truth),
            Token::Integer(number) => Value::Integer(number),
            Token::Real(number) => Value::Real(number),
            Token::String(text) => Value::String(text.into()),
            Token::Error => Value::Error,
            _ => Value::Undefined,
        };
        self.make(Node::Literal(value), 0)
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
        self.called(name, arguments, height, start)
    }

    fn called(&mut self, name: Text, arguments: Vec<Expr>, height: usize, start: usize) -> Result<Parsed, Fault> {
        let function = Function::of(&name);
        // Times in text become values as soon as they are read.
        if let [only] = arguments.as_slice()
            && let Some(Value::String(text)) = only.as_literal()
        {
            let read = match function {
                Some(Function::AbsTime) => match time::parse_absolute(text) {
                    Some((local, Some(offset))) => Some(Value::AbsoluteTime(time::at_offset(local, offset))),
                    Some((local, None)) => self.zone.map(|zone| Value::AbsoluteTime(time::in_zone(local, zone))),
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
        let call = Call { name, function, arguments: arguments.into(), compiled: Compiled::default() };
        self.make(Node::Call(call), height)
    }

    fn ad(&mut self) -> Result<(Ad, usize), Fault> {
        self.expect(&Token::OpenBracket, "`[`")?;
        let (mut ad, mut height) = (Ad::new(), 0);
        if self.token == Token::CloseBracket {
            self.advance()?;
            return Ok((ad, height));
        }
        loop {
            self.skip_semicolons()?;
            let start = self.start;
            let name = self.name("the name of an attribute")?;
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
            self.skip_semicolons()?;
            if self.token == Token::CloseBracket {
                self.advance()?;
                return Ok((ad, height));
            }
        }
    }

    fn skip_semicolons(&mut self) -> Result<(), Fault> {
        while self.token == Token::Semicolon {
            self.advance()?;
        }
        Ok(())
    }
}
