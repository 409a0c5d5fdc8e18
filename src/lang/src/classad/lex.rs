//! Tokens.

use super::expr::Binary;
use super::parse::Fault;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    End,
    Integer(i64),
    Real(f64),
    Boolean(bool),
    Undefined,
    Error,
    String(Vec<u8>),
    Name(Vec<u8>),
    Operator(Binary),
    Plus,
    Minus,
    Not,
    Complement,
    Dot,
    Comma,
    Semicolon,
    Assign,
    Question,
    Colon,
    Open,
    Close,
    OpenList,
    CloseList,
    OpenBracket,
    CloseBracket,
}

impl Token {
    /// After these a minus sign is an operator; elsewhere it belongs to the number that follows.
    fn ends_operand(&self) -> bool {
        use Token::*;
        matches!(
            self,
            Integer(_)
                | Real(_)
                | Boolean(_)
                | String(_)
                | Undefined
                | Error
                | Name(_)
                | Dot
                | CloseBracket
                | Close
                | CloseList
        )
    }
}

/// A text, token by token.
pub(super) struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    /// In old ads a backslash in a string stands for itself, except before a quotation mark.
    old: bool,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t [u8], at: usize, old: bool) -> Self {
        Lexer { text, at, old }
    }

    /// The byte `ahead` bytes on; past the end a NUL, which is no token either.
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_while(&mut self, accept: impl Fn(u8) -> bool) {
        while self.at < self.text.len() && accept(self.peek(0)) {
            self.at += 1;
        }
    }

    fn slice(&self, from: usize) -> &'t [u8] {
        self.text.get(from..self.at).unwrap_or_default()
    }

    fn skip_blanks(&mut self) -> Result<(), Fault> {
        loop {
            self.skip_while(is_space);
            match (self.peek(0), self.peek(1)) {
                (b'/', b'/') => self.skip_while(|byte| byte != b'\n'),
                (b'/', b'*') => {
                    let rest = self.text.get(self.at + 2..).unwrap_or_default();
                    match rest.windows(2).position(|pair| pair == b"*/") {
                        Some(length) => self.at += length + 4,
                        None => return Err(Fault::new(self.at, "comment is never closed").expected("a closing `*/`")),
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    /// The next token, after `previous`, and where it begins.
    pub(super) fn next(&mut self, previous: &Token) -> Result<(usize, Token), Fault> {
        self.skip_blanks()?;
        let start = self.at;
        if start >= self.text.len() {
            return Ok((start, Token::End));
        }
        let token = match self.peek(0) {
            b'-' if !previous.ends_operand() => self.number()?,
            b'.' | b'0'..=b'9' => self.number()?,
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => self.word(),
            b'"' => Token::String(self.quoted(b'"')?),
            b'\'' => Token::Name(self.quoted(b'\'')?),
            _ => self.punctuation()?,
        };
        Ok((start, token))
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        if self.peek(0) == b'-' {
            self.at += 1;
            if !(self.peek(0).is_ascii_digit() || self.peek(0) == b'.' && self.peek(1).is_ascii_digit()) {
                return Ok(Token::Minus);
            }
        }
        let (digits, bad) = (self.at, |message: &str| Err(Fault::new(start, message)));
        let mut real = false;
        if self.peek(0) == b'0' && self.peek(1).eq_ignore_ascii_case(&b'x') {
            self.at += 2;
            if !self.peek(0).is_ascii_hexdigit() {
                return bad("number has no digit after `0x`");
            }
            self.skip_while(|byte| byte.is_ascii_hexdigit());
        } else {
            self.skip_while(|byte| byte.is_ascii_digit());
            let whole = self.slice(digits);
            real = matches!(self.peek(0), b'.' | b'e' | b'E');
            if !real && whole.first() == Some(&b'0') && whole.iter().any(|digit| *digit > b'7') {
                return bad("number begins with 0, but has other than octal digits");
            }
            if self.peek(0) == b'.' {
                self.at += 1;
                if whole.is_empty() && self.peek(0) == b'.' {
                    // HTCondor takes two points for one.
                    self.at += 1;
                }
                if !self.peek(0).is_ascii_digit() {
                    return if whole.is_empty() { Ok(Token::Dot) } else { bad("number has no digit after its point") };
                }
                self.skip_while(|byte| byte.is_ascii_digit());
            }
            if real && self.peek(0).eq_ignore_ascii_case(&b'e') {
                self.at += 1;
                if matches!(self.peek(0), b'+' | b'-') {
                    self.at += 1;
                }
                if !self.peek(0).is_ascii_digit() {
                    return bad("number has no digit in its exponent");
                }
                self.skip_while(|byte| byte.is_ascii_digit());
            }
        }
        let text = std::str::from_utf8(self.slice(start)).unwrap_or_default();
        if real {
            return Ok(Token::Real(text.parse().unwrap_or(0.0)));
        }
        if text.len() > 1 && text.starts_with('0') {
            return Err(Fault::new(start, "number begins with 0")
                .expected("a decimal number, as octal and hexadecimal ones don't exist here"));
        }
        // HTCondor reads what doesn't fit as 0, and of `-0x1F` only `-0`.
        Ok(Token::Integer(text.parse().unwrap_or(0)))
    }

    fn word(&mut self) -> Token {
        let start = self.at;
        self.skip_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let word = self.slice(start);
        let is = |keyword: &str| keyword.as_bytes().eq_ignore_ascii_case(word);
        match word.len() {
            2 if is("is") => Token::Operator(Binary::Is),
            4 if is("true") => Token::Boolean(true),
            4 if is("isnt") => Token::Operator(Binary::IsNot),
            5 if is("false") => Token::Boolean(false),
            5 if is("error") => Token::Error,
            9 if is("undefined") => Token::Undefined,
            _ => Token::Name(word.to_vec()),
        }
    }

    /// A string, or a name in single quotes.
    fn quoted(&mut self, quote: u8) -> Result<Vec<u8>, Fault> {
        let start = self.at;
        let unclosed = |lexer: &Self| {
            let (message, expected) = match quote {
                b'"' => ("quotation mark is never closed", "a closing `\"`"),
                _ => ("quoted name is never closed", "a closing `'`"),
            };
            let nul = lexer.text.get(lexer.at).is_some();
            Fault::new(start, if nul { "a NUL byte in quotes" } else { message }).expected(expected)
        };
        self.at += 1;
        if self.old {
            return self.quoted_old(quote).ok_or_else(|| unclosed(self));
        }
        let mut raw = Vec::new();
        // Strings side by side are one, and their escapes are read after they are joined.
        loop {
            let mut escaped = false;
            loop {
                match self.peek(0) {
                    0 => return Err(unclosed(self)),
                    byte if byte == quote && !escaped => break,
                    byte => {
                        raw.push(byte);
                        escaped = byte == b'\\' && !escaped;
                    }
                }
                self.at += 1;
            }
            self.at += 1;
            let end = self.at;
            self.skip_while(is_space);
            if self.peek(0) != quote {
                self.at = end;
                break;
            }
            self.at += 1;
        }
        unescape(&raw).ok_or_else(|| Fault::new(start, "`\\0` in quotes").expected("no NUL byte"))
    }

    fn quoted_old(&mut self, quote: u8) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            match self.peek(0) {
                0 => return None,
                byte if byte == quote => {
                    // A backslash before the last quotation mark of the line belongs to the string.
                    let last = matches!(self.peek(1), 0 | b'\n');
                    if text.last() != Some(&b'\\') || last {
                        self.at += 1;
                        return Some(text);
                    }
                    text.pop();
                    text.push(quote);
                }
                byte => text.push(byte),
            }
            self.at += 1;
        }
    }

    fn punctuation(&mut self) -> Result<Token, Fault> {
        use Binary::*;
        use Token::*;
        let start = self.at;
        let known = |token: Token, length: usize| (token, length);
        let (token, length) = match (self.peek(0), self.peek(1), self.peek(2)) {
            (b'*', ..) => known(Operator(Multiply), 1),
            (b'/', ..) => known(Operator(Divide), 1),
            (b'%', ..) => known(Operator(Remainder), 1),
            (b'+', ..) => known(Plus, 1),
            (b'-', ..) => known(Minus, 1),
            (b'~', ..) => known(Complement, 1),
            (b'^', ..) => known(Operator(BitXor), 1),
            (b':', ..) => known(Colon, 1),
            (b';', ..) => known(Semicolon, 1),
            (b',', ..) => known(Comma, 1),
            (b'[', ..) => known(OpenBracket, 1),
            (b']', ..) => known(CloseBracket, 1),
            (b'(', ..) => known(Open, 1),
            (b')', ..) => known(Close, 1),
            (b'{', ..) => known(OpenList, 1),
            (b'}', ..) => known(CloseList, 1),
            (b'&', b'&', _) => known(Operator(And), 2),
            (b'&', ..) => known(Operator(BitAnd), 1),
            (b'|', b'|', _) => known(Operator(Or), 2),
            (b'|', ..) => known(Operator(BitOr), 1),
            (b'<', b'=', _) => known(Operator(LessOrEqual), 2),
            (b'<', b'<', _) => known(Operator(ShiftLeft), 2),
            (b'<', ..) => known(Operator(Less), 1),
            (b'>', b'=', _) => known(Operator(GreaterOrEqual), 2),
            (b'>', b'>', b'>') => known(Operator(ShiftRightUnsigned), 3),
            (b'>', b'>', _) => known(Operator(ShiftRight), 2),
            (b'>', ..) => known(Operator(Greater), 1),
            (b'=', b'=', _) => known(Operator(Equal), 2),
            (b'=', b'?', b'=') => known(Operator(Is), 3),
            (b'=', b'?', _) => return Err(Fault::new(start, "incomplete operator `=?`").expected("`=?=`")),
            (b'=', b'!', b'=') => known(Operator(IsNot), 3),
            (b'=', ..) => known(Assign, 1),
            (b'!', b'=', _) => known(Operator(NotEqual), 2),
            (b'!', ..) => known(Not, 1),
            (b'?', ..) => {
                self.at += 1;
                self.skip_while(is_space);
                return Ok(if self.peek(0) == b':' {
                    self.at += 1;
                    Operator(Default)
                } else {
                    Question
                });
            }
            (byte, ..) => {
                let shown = crate::diagnostic::show(self.text.get(start..).map(first_character).unwrap_or_default());
                let fault = Fault::new(start, format!("unexpected character `{shown}`"));
                return Err(match byte {
                    0xe2 => fault.expected("plain quotation marks and hyphens, as a word processor's are others"),
                    _ => fault,
                });
            }
        };
        self.at += length;
        Ok(token)
    }
}

/// The first character, or the first byte of what is not UTF-8.
fn first_character(bytes: &[u8]) -> &[u8] {
    let length = (1..=4).find(|length| bytes.get(..*length).is_some_and(|start| std::str::from_utf8(start).is_ok()));
    bytes.get(..length.unwrap_or(1)).unwrap_or_default()
}

/// C's `isspace`.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// The bytes that escapes stand for; nothing if one stands for a NUL.
fn unescape(raw: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        text.push(match bytes.next() {
            // A backslash at the end stands for itself.
            None => b'\\',
            Some(b'a') => 7,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            Some(digit @ b'0'..=b'7') => {
                // Three digits at most, and no third one where the number would be too large for a byte.
                let mut number = digit - b'0';
                for limit in [8, 0o40] {
                    if number < limit
                        && let Some(digit) = bytes.next_if(|byte| matches!(byte, b'0'..=b'7'))
                    {
                        number = number * 8 + (digit - b'0');
                    } else {
                        break;
                    }
                }
                match number {
                    0 => return None,
                    number => number,
                }
            }
            Some(byte) => byte,
        });
    }
    Some(text)
}
