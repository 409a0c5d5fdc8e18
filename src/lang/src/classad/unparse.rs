//! Values, expressions and ads to text, as HTCondor writes them.

use std::fmt::{self, Write as _};

use super::expr::{Binary, Call, Node, Reference, Unary};
use super::{Ad, Expr, Text, Value, number, time};

/// Which of HTCondor's two ways of writing.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// What `string()` and expressions in ads of the new syntax show.
    New,
    /// What `condor_q -long` shows: shorter reals, strings without escapes but for the quotation mark, `=?=`.
    Old,
    /// As the new one, with lists and ads over several lines, indented by that much.
    Pretty(usize),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(f, self, Style::New)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_expr(f, self, Style::New)
    }
}

impl fmt::Display for Ad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_ad(f, self, Style::New)
    }
}

/// Writes in the old syntax.
struct Old<T>(T);

impl fmt::Display for Old<&Value> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(f, self.0, Style::Old)
    }
}

impl fmt::Display for Old<&Expr> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_expr(f, self.0, Style::Old)
    }
}

impl Expr {
    /// As `unparse()` has it.
    pub(super) fn pretty(&self) -> String {
        struct Pretty<'a>(&'a Expr);
        impl fmt::Display for Pretty<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_expr(f, self.0, Style::Pretty(0))
            }
        }
        Pretty(self).to_string()
    }
}

impl Value {
    /// The value as `condor_q -long` and `-af:V` write it: `0.5`, `"C:\dir"`.
    pub fn old_syntax(&self) -> impl fmt::Display + '_ {
        Old(self)
    }
}

impl Expr {
    /// The expression as `condor_q -long` writes it: `x =?= 0.5`.
    pub fn old_syntax(&self) -> impl fmt::Display + '_ {
        Old(self)
    }
}

fn write_value(f: &mut fmt::Formatter<'_>, value: &Value, style: Style) -> fmt::Result {
    match value {
        Value::Undefined => f.write_str("undefined"),
        Value::Error => f.write_str("error"),
        Value::Boolean(truth) => write!(f, "{truth}"),
        Value::Integer(number) => write!(f, "{number}"),
        Value::Real(number) => write_real(f, *number, style),
        Value::String(text) => write_quoted(f, text, b'"', style),
        Value::AbsoluteTime(time) => write!(f, "absTime(\"{}\")", time::show_absolute(*time)),
        Value::RelativeTime(seconds) => write!(f, "relTime(\"{}\")", time::show_relative(*seconds)),
        Value::List(elements) => write_list(f, elements, style),
        Value::Ad(ad) => write_ad(f, ad, style),
    }
}

fn write_real(f: &mut fmt::Formatter<'_>, number: f64, style: Style) -> fmt::Result {
    if number == 0.0 {
        f.write_str(if number.is_sign_negative() { "-0.0" } else { "0.0" })
    } else if number.is_nan() {
        f.write_str("real(\"NaN\")")
    } else if number.is_infinite() {
        f.write_str(if number > 0.0 { "real(\"INF\")" } else { "real(\"-INF\")" })
    } else if style == Style::Old {
        let text = number::general(number, 16);
        f.write_str(&text)?;
        if text.contains(['.', 'E']) { Ok(()) } else { f.write_str(".0") }
    } else {
        f.write_str(&number::exponential(number, 15))
    }
}

/// A string within `quote`s.
fn write_quoted(f: &mut fmt::Formatter<'_>, text: &[u8], quote: u8, style: Style) -> fmt::Result {
    f.write_char(char::from(quote))?;
    if style == Style::Old {
        for (number, part) in text.split(|byte| *byte == quote).enumerate() {
            if number > 0 {
                f.write_str("\\\"")?;
            }
            f.write_str(&String::from_utf8_lossy(part))?;
        }
    } else {
        write_escaped(f, text, quote)?;
    }
    f.write_char(char::from(quote))
}

fn write_escaped(f: &mut fmt::Formatter<'_>, text: &[u8], quote: u8) -> fmt::Result {
    for byte in text {
        let escape = match byte {
            7 => 'a',
            8 => 'b',
            9 => 't',
            10 => 'n',
            11 => 'v',
            12 => 'f',
            13 => 'r',
            b'\\' => '\\',
            byte if *byte == quote => char::from(quote),
            b' '..=b'~' => {
                f.write_char(char::from(*byte))?;
                continue;
            }
            byte => {
                write!(f, "\\{byte:03o}")?;
                continue;
            }
        };
        write!(f, "\\{escape}")?;
    }
    Ok(())
}

/// A name, in single quotes where it would be read as something else.
fn write_name(f: &mut fmt::Formatter<'_>, name: &[u8]) -> fmt::Result {
    const RESERVED: [&str; 7] = ["error", "false", "is", "isnt", "parent", "true", "undefined"];
    let plain = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && !RESERVED.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(name));
    if plain { f.write_str(&String::from_utf8_lossy(name)) } else { write_quoted(f, name, b'\'', Style::New) }
}

fn write_list(f: &mut fmt::Formatter<'_>, elements: &[Expr], style: Style) -> fmt::Result {
    if let Style::Pretty(indent) = style {
        const INDENT: usize = 3;
        let (outer, inner) = (indent + INDENT, indent + 2 * INDENT);
        write!(f, "\n{:outer$}{{", "")?;
        for (number, element) in elements.iter().enumerate() {
            write!(f, "{}\n{:inner$}", if number > 0 { "," } else { "" }, "")?;
            write_expr(f, element, Style::Pretty(inner))?;
        }
        return write!(f, "\n{:outer$}}}", "");
    }
    f.write_str("{ ")?;
    write_sequence(f, elements, style)?;
    f.write_str(" }")
}

fn write_sequence(f: &mut fmt::Formatter<'_>, elements: &[Expr], style: Style) -> fmt::Result {
    for (number, element) in elements.iter().enumerate() {
        if number > 0 {
            f.write_char(',')?;
        }
        write_expr(f, element, style)?;
    }
    Ok(())
}

fn write_ad(f: &mut fmt::Formatter<'_>, ad: &Ad, style: Style) -> fmt::Result {
    const INDENT: usize = 4;
    let (inner, outer, within) = match style {
        Style::Pretty(indent) => (Style::Pretty(indent + 2 * INDENT), Some(indent + INDENT), indent + 2 * INDENT),
        style => (style, None, 0),
    };
    match outer {
        Some(outer) => write!(f, "\n{:outer$}[", "")?,
        None => f.write_str("[ ")?,
    }
    for (number, (name, value)) in ad.iter().enumerate() {
        if number > 0 {
            f.write_str("; ")?;
        }
        if outer.is_some() {
            write!(f, "\n{:within$}", "")?;
        }
        write_name(f, name)?;
        f.write_str(" = ")?;
        write_expr(f, value, inner)?;
    }
    match outer {
        Some(outer) => write!(f, "\n{:outer$}]", ""),
        None => f.write_str(" ]"),
    }
}

fn raw<'a>(name: &'a Text) -> std::borrow::Cow<'a, str> {
    name.to_str_lossy()
}

fn write_expr(f: &mut fmt::Formatter<'_>, expr: &Expr, style: Style) -> fmt::Result {
    match &*expr.0 {
        Node::Literal(value) => write_value(f, value, style),
        Node::List(elements) => write_list(f, elements, style),
        Node::Ad(ad) => write_ad(f, ad, style),
        Node::Reference(Reference { base: Some(base), name, .. }) => {
            write_expr(f, base, style)?;
            write!(f, ".{}", raw(name))
        }
        Node::Reference(Reference { base: None, absolute, name, .. }) => {
            f.write_str(if *absolute { "." } else { "" })?;
            write_name(f, name)
        }
        Node::Parentheses(inner) => {
            f.write_char('(')?;
            write_expr(f, inner, style)?;
            f.write_char(')')
        }
        Node::Unary(operator, operand) => {
            f.write_str(match operator {
                Unary::Plus => " +",
                Unary::Minus => " -",
                Unary::Not => " !",
                Unary::Complement => " ~",
            })?;
            write_expr(f, operand, style)
        }
        Node::Binary(Binary::Subscript, list, index) => {
            write_expr(f, list, style)?;
            f.write_char('[')?;
            write_expr(f, index, style)?;
            f.write_char(']')
        }
        Node::Binary(operator, left, right) => {
            write_expr(f, left, style)?;
            f.write_str(sign(*operator, style))?;
            write_expr(f, right, style)
        }
        Node::Conditional(condition, then, otherwise) => {
            write_expr(f, condition, style)?;
            f.write_str(" ? ")?;
            write_expr(f, then, style)?;
            f.write_str(" : ")?;
            write_expr(f, otherwise, style)
        }
        Node::Call(Call { name, arguments, .. }) => {
            write!(f, "{}(", raw(name))?;
            write_sequence(f, arguments, style)?;
            f.write_char(')')
        }
    }
}

fn sign(operator: Binary, style: Style) -> &'static str {
    use Binary::*;
    match operator {
        Less => " < ",
        LessOrEqual => " <= ",
        NotEqual => " != ",
        Equal => " == ",
        GreaterOrEqual => " >= ",
        Greater => " > ",
        Is if style == Style::Old => " =?= ",
        Is => " is ",
        IsNot if style == Style::Old => " =!= ",
        IsNot => " isnt ",
        Add => " + ",
        Subtract => " - ",
        Multiply => " * ",
        Divide => " / ",
        Remainder => " % ",
        Or => " || ",
        And => " && ",
        BitOr => " | ",
        BitXor => " ^ ",
        BitAnd => " & ",
        ShiftLeft => " << ",
        ShiftRight => " >> ",
        ShiftRightUnsigned => " >>> ",
        Subscript => " [] ",
        Default => " ?: ",
    }
}
