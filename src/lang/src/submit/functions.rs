//! The macro functions of condor_submit, from values to a value.
//!
//! Source: HTCondor manual, "Submit description file macros"; checked against 24.12.

use crate::classad::{Context, Expr, Value};
use crate::nearest;

/// A function of the submit language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Int,
    Real,
    String,
    Eval,
    Choice,
    Substr,
    /// `$F…` and `$DIRNAME`.
    File(Parts),
    Basename,
    RandomInteger,
    RandomChoice,
}

/// What `$F` with its letters keeps of a file name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Parts {
    path: bool,
    dirs: usize,
    name: bool,
    extension: bool,
    full: bool,
    quoted: bool,
    for_arguments: bool,
    bare: bool,
    slash: Option<u8>,
}

/// What a function may need besides its words.
pub(super) trait Scope {
    /// The value of a macro, fully expanded.
    fn lookup(&self, name: &[u8]) -> Option<Vec<u8>>;
    /// A random number.
    fn random(&self) -> u64;
    /// The directory from which the job's relative file names count.
    fn here(&self) -> Vec<u8>;
}

/// The function of this name (the word between `$` and `(`).
pub(super) fn find(name: &[u8]) -> Option<Function> {
    Some(match name {
        b"INT" => Function::Int,
        b"REAL" => Function::Real,
        b"STRING" => Function::String,
        b"EVAL" => Function::Eval,
        b"CHOICE" => Function::Choice,
        b"SUBSTR" => Function::Substr,
        b"RANDOM_INTEGER" => Function::RandomInteger,
        b"RANDOM_CHOICE" => Function::RandomChoice,
        b"BASENAME" => Function::Basename,
        b"DIRNAME" => Function::File(Parts { path: true, ..Parts::default() }),
        _ => {
            let mut parts = Parts::default();
            for letter in name.strip_prefix(b"F")? {
                match letter.to_ascii_lowercase() {
                    b'f' => parts.full = true,
                    b'p' => parts.path = true,
                    b'd' => parts.dirs += 1,
                    b'n' => parts.name = true,
                    b'x' => parts.extension = true,
                    b'q' => parts.quoted = true,
                    b'a' => parts.for_arguments = true,
                    b'b' => parts.bare = true,
                    b'w' => parts.slash = Some(b'\\'),
                    b'u' => parts.slash = Some(b'/'),
                    _ => return None,
                }
            }
            Function::File(parts)
        }
    })
}

impl Function {
    /// Does it give another value each time?
    pub(super) fn is_random(self) -> bool {
        matches!(self, Function::RandomInteger | Function::RandomChoice)
    }

    /// The value for the text between its parentheses.
    ///
    /// # Errors
    /// What is wrong with it, in one line, and what would be right.
    pub(super) fn call(self, body: &[u8], scope: &dyn Scope) -> Result<Vec<u8>, (String, String)> {
        let words: Vec<&[u8]> = body.split(|b| *b == b',').map(<[u8]>::trim_ascii).collect();
        // Where a name may be an expression, or a text, blanks belong to it.
        let (whole, format) = match body.iter().position(|b| *b == b',') {
            Some(comma) => (body.get(..comma).unwrap_or_default(), body.get(comma + 1..)),
            None => (body, None),
        };
        let named = |name: &[u8]| scope.lookup(name).unwrap_or_else(|| name.to_vec());
        let word = |i: usize| words.get(i).copied().filter(|word| !word.is_empty());
        let value = |i: usize| word(i).map(|name| scope.lookup(name).unwrap_or_else(|| name.to_vec()));
        let number = |i: usize, what: &str| -> Result<i64, (String, String)> {
            let text = value(i).unwrap_or_default();
            integer(&text).ok_or_else(|| (format!("`{}` is no {what}", shown(&text)), "a whole number".to_owned()))
        };
        let bad = |what: &str, expected: &str| Err((what.to_owned(), expected.to_owned()));
        match self {
            Function::Int => {
                let text = named(whole);
                let Some(number) = integer(&text) else {
                    return bad(&format!("`{}` is no whole number", shown(&text)), "a whole number");
                };
                match format {
                    Some(format) => print(format, Argument::Int(number)),
                    None => Ok(number.to_string().into_bytes()),
                }
            }
            Function::Real => {
                let text = named(whole);
                let Some(number) = real(&text) else {
                    return bad(&format!("`{}` is no number", shown(&text)), "a number");
                };
                let Some(format) = format else {
                    return Ok(general(number, 16, true, false).into_bytes());
                };
                let mut text = print(format, Argument::Real(number))?;
                if !text.contains(&b'.') {
                    text.extend_from_slice(b".0");
                }
                Ok(text)
            }
            Function::String => {
                let text = named(whole);
                let text = match evaluate(&text) {
                    Some(Value::String(text)) => text.as_ref().to_vec(),
                    _ => text,
                };
                match format {
                    Some(format) => print(format, Argument::String(&text)),
                    None => Ok(text),
                }
            }
            Function::Eval => Ok(match evaluate(&named(body)) {
                Some(Value::String(text)) => text.as_ref().to_vec(),
                Some(value) => value.to_string().into_bytes(),
                None => Vec::new(),
            }),
            Function::Choice => {
                let index = number(0, "index")?;
                // What is empty is no item.
                let items: Vec<&[u8]> = words.iter().skip(1).copied().filter(|item| !item.is_empty()).collect();
                let list: Vec<Vec<u8>> = match items.as_slice() {
                    [name] => match scope.lookup(name) {
                        Some(list) => {
                            let items = list.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                            items.filter(|item| !item.is_empty()).map(<[u8]>::to_vec).collect()
                        }
                        None => {
                            return bad(
                                &format!("there is no list `{}`", shown(name)),
                                "the name of a macro, or two items or more",
                            );
                        }
                    },
                    [] => return bad("there is no list to choose from", "`$CHOICE(index, item, item, …)`"),
                    items => items.iter().map(|item| item.to_vec()).collect(),
                };
                match usize::try_from(index).ok().and_then(|index| list.get(index)) {
                    Some(item) => Ok(item.clone()),
                    None => bad(
                        &format!("index {index} is out of range"),
                        &format!("there are {} item(s), from 0 on", list.len()),
                    ),
                }
            }
            Function::Substr => {
                if words.len() > 3 {
                    return bad("too many words", "`$SUBSTR(name, start, length)`");
                }
                let start = number(1, "start")?;
                let most = if word(2).is_some() { Some(number(2, "length")?) } else { None };
                let Some(text) = scope.lookup(whole) else {
                    return Ok(Vec::new());
                };
                let length = text.len() as i64;
                let start = if start < 0 { (length + start).max(0) } else { start.min(length) };
                let left = length - start;
                let taken = match most {
                    None => left,
                    Some(most) if most < 0 => (left + most).max(0),
                    Some(most) => most.min(left),
                };
                let range = start as usize..(start + taken) as usize;
                Ok(text.get(range).unwrap_or_default().to_vec())
            }
            Function::RandomInteger => {
                let (low, high) = (number(0, "lowest number")?, number(1, "highest number")?);
                let step = if word(2).is_some() { number(2, "step")? } else { 1 };
                if low > high || step < 1 {
                    return bad("nothing to choose from", "a number, one that is not smaller, and a step from 1 on");
                }
                let choices = (i128::from(high) - i128::from(low)) / i128::from(step) + 1;
                let chosen = i128::from(scope.random()) % choices;
                Ok((i128::from(low) + chosen * i128::from(step)).to_string().into_bytes())
            }
            Function::RandomChoice => {
                let mut given = words.iter().filter(|word| !word.is_empty());
                let list = match (given.next(), given.next()) {
                    (Some(only), None) => named(only),
                    _ => body.to_vec(),
                };
                let items: Vec<&[u8]> =
                    list.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty()).collect();
                let at = usize::try_from(scope.random() % items.len().max(1) as u64).unwrap_or(0);
                match items.get(at) {
                    Some(item) => Ok(item.to_vec()),
                    None => bad("there is no list to choose from", "`$RANDOM_CHOICE(item, item, …)`"),
                }
            }
            Function::File(parts) => Ok(parts.of(&named(body), &|| scope.here())),
            Function::Basename => {
                let parts = Parts { name: true, extension: true, ..Parts::default() };
                let base = parts.of(&named(whole), &|| scope.here());
                let end = format.map(<[u8]>::trim_ascii).and_then(|end| base.strip_suffix(end));
                Ok(end.map_or_else(|| base.clone(), <[u8]>::to_vec))
            }
        }
    }
}

impl Parts {
    fn of(self, name: &[u8], here: &dyn Fn() -> Vec<u8>) -> Vec<u8> {
        let unquoted = match name {
            [quote @ (b'"' | b'\''), inner @ .., last] if quote == last => inner,
            name => name,
        };
        let mut full = Vec::new();
        if self.full && !unquoted.starts_with(b"/") {
            full.extend(here());
            full.push(b'/');
        }
        full.extend_from_slice(unquoted);
        let base = full.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        let (path, file) = full.split_at(base);
        let dot = file.iter().rposition(|b| *b == b'.').filter(|dot| *dot > 0).unwrap_or(file.len());
        let (stem, extension) = file.split_at(dot);
        // With a directory, an extension is that of a whole name.
        let with_name = self.name || self.extension && (self.path || self.dirs > 0);
        let mut out: Vec<u8> = if self.path || self.dirs > 0 || self.name || self.extension {
            let mut out = Vec::new();
            let mut dir = path;
            if self.dirs > 0 {
                // The parent directory; with each further `d`, one more.
                let mut from = path.len();
                for _ in 0..self.dirs {
                    let Some(inner) = from.checked_sub(1).and_then(|end| path.get(..end)) else { break };
                    from = inner.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
                }
                dir = path.get(from..).unwrap_or_default();
            }
            if self.path || self.dirs > 0 {
                let strip = self.bare && !self.name && !self.extension;
                out.extend_from_slice(if strip { dir.strip_suffix(b"/").unwrap_or(dir) } else { dir });
            }
            if with_name {
                out.extend_from_slice(stem);
            }
            if self.extension {
                let strip = self.bare && !with_name;
                out.extend_from_slice(if strip {
                    extension.strip_prefix(b".").unwrap_or(extension)
                } else {
                    extension
                });
            }
            out
        } else {
            full
        };
        if let Some(slash) = self.slash {
            out.iter_mut().filter(|b| matches!(b, b'/' | b'\\')).for_each(|b| *b = slash);
        }
        if self.quoted {
            let quote = if self.for_arguments { b'\'' } else { b'"' };
            out.insert(0, quote);
            out.push(quote);
        }
        out
    }
}

enum Argument<'a> {
    Int(i64),
    Real(f64),
    String(&'a [u8]),
}

/// Widest field and highest precision of a format: more would be a slip, and take memory for nothing.
const WIDEST: usize = 1024;

/// `argument` as printf prints it in `format`, which must hold one conversion of its kind.
fn print(format: &[u8], argument: Argument<'_>) -> Result<Vec<u8>, (String, String)> {
    let bad = || {
        let expected = match argument {
            Argument::Int(_) => "a format such as %d, %05d or %x",
            Argument::Real(_) => "a format such as %.3f or %g",
            Argument::String(_) => "a format such as %s or %-10s",
        };
        (format!("`{}` is no format for it", shown(format)), expected.to_owned())
    };
    let start = format.iter().position(|b| *b == b'%').ok_or_else(bad)?;
    let (before, rest) = format.split_at(start);
    let mut rest = rest.get(1..).unwrap_or_default();
    let (mut left, mut plus, mut space, mut zero, mut sharp) = (false, false, false, false, false);
    while let [flag @ (b'-' | b'+' | b' ' | b'0' | b'#'), tail @ ..] = rest {
        match flag {
            b'-' => left = true,
            b'+' => plus = true,
            b' ' => space = true,
            b'0' => zero = true,
            _ => sharp = true,
        }
        rest = tail;
    }
    let mut digits = || -> Option<usize> {
        let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, tail) = rest.split_at(count);
        rest = tail;
        let number = if number.is_empty() { 0 } else { str::from_utf8(number).ok()?.parse().ok()? };
        (number <= WIDEST).then_some(number)
    };
    let width = digits().ok_or_else(bad)?;
    let precision = match rest.first() {
        Some(b'.') => {
            rest = rest.get(1..).unwrap_or_default();
            let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let (number, tail) = rest.split_at(count);
            rest = tail;
            let number = str::from_utf8(number).ok().and_then(|n| if n.is_empty() { Some(0) } else { n.parse().ok() });
            Some(number.filter(|number| *number <= WIDEST).ok_or_else(bad)?)
        }
        _ => None,
    };
    let mut long = false;
    while let [size @ (b'l' | b'h' | b'L' | b'z' | b'j'), tail @ ..] = rest {
        long |= *size != b'h';
        rest = tail;
    }
    // What is negative has the bits of a C integer of its size.
    let bits = |number: i64| match i32::try_from(number) {
        Ok(number) if !long => u64::from(number.cast_unsigned()),
        _ => number.cast_unsigned(),
    };
    let (conversion, after) = rest.split_first().ok_or_else(bad)?;
    if after.contains(&b'%') || before.contains(&b'%') {
        return Err(bad());
    }
    let sign = |negative: bool| {
        if negative {
            "-"
        } else if plus {
            "+"
        } else if space {
            " "
        } else {
            ""
        }
    };
    let (sign, mut body): (&str, Vec<u8>) = match (&argument, conversion) {
        (Argument::Int(n), b'd' | b'i') => (sign(*n < 0), n.unsigned_abs().to_string().into_bytes()),
        (Argument::Int(n), b'u') => ("", bits(*n).to_string().into_bytes()),
        (Argument::Int(n), b'x') => (if sharp && *n != 0 { "0x" } else { "" }, format!("{:x}", bits(*n)).into_bytes()),
        (Argument::Int(n), b'X') => (if sharp && *n != 0 { "0X" } else { "" }, format!("{:X}", bits(*n)).into_bytes()),
        (Argument::Int(n), b'o') => (if sharp { "0" } else { "" }, format!("{:o}", bits(*n)).into_bytes()),
        (Argument::Real(n), b'f' | b'F') if n.is_finite() => {
            let point = if sharp && precision == Some(0) { "." } else { "" };
            (sign(n.is_sign_negative()), format!("{:.*}{point}", precision.unwrap_or(6), n.abs()).into_bytes())
        }
        (Argument::Real(n), b'e' | b'E') if n.is_finite() => {
            let text = exponent(n.abs(), precision.unwrap_or(6), *conversion == b'E');
            (sign(n.is_sign_negative()), text.into_bytes())
        }
        (Argument::Real(n), b'g' | b'G') if n.is_finite() => {
            let text = general(n.abs(), precision.unwrap_or(6).max(1), *conversion == b'G', sharp);
            (sign(n.is_sign_negative()), text.into_bytes())
        }
        (Argument::Real(n), b'a' | b'A' | b'e' | b'E' | b'f' | b'F' | b'g' | b'G') if !n.is_finite() => {
            (sign(n.is_sign_negative()), if n.is_nan() { b"nan".to_vec() } else { b"inf".to_vec() })
        }
        (Argument::String(text), b's') => {
            ("", text.get(..precision.unwrap_or(usize::MAX).min(text.len())).unwrap_or_default().to_vec())
        }
        _ => return Err(bad()),
    };
    if let (Argument::Int(_), Some(precision)) = (&argument, precision) {
        let missing = precision.saturating_sub(body.len());
        body.splice(0..0, std::iter::repeat_n(b'0', missing));
    }
    let missing = width.saturating_sub(sign.len() + body.len());
    let zero = zero && !left && !(matches!(argument, Argument::Int(_)) && precision.is_some());
    let zero = zero && !matches!(argument, Argument::String(_));
    let mut out = before.to_vec();
    if !left && !zero {
        out.extend(std::iter::repeat_n(b' ', missing));
    }
    out.extend_from_slice(sign.as_bytes());
    if zero {
        out.extend(std::iter::repeat_n(b'0', missing));
    }
    out.extend(body);
    if left {
        out.extend(std::iter::repeat_n(b' ', missing));
    }
    out.extend_from_slice(after);
    Ok(out)
}

/// `%e` of a number that is not negative.
fn exponent(number: f64, precision: usize, capital: bool) -> String {
    let text = format!("{number:.precision$e}");
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, power) = match power.strip_prefix('-') {
        Some(power) => ('-', power),
        None => ('+', power),
    };
    let e = if capital { 'E' } else { 'e' };
    format!("{mantissa}{e}{sign}{power:0>2}")
}

/// `%g` of a number: `precision` digits, without zeros at the end unless `sharp`.
fn general(number: f64, precision: usize, capital: bool, sharp: bool) -> String {
    if !number.is_finite() {
        return number.to_string();
    }
    let scientific = format!("{:.*e}", precision.saturating_sub(1), number);
    let power: i32 = scientific.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    let trim = |text: String| match text.contains('.') && !sharp {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    let digits = i32::try_from(precision).unwrap_or(i32::MAX);
    if power < -4 || power >= digits {
        let text = exponent(number, precision.saturating_sub(1), capital);
        let at = text.find(['e', 'E']).unwrap_or(text.len());
        let (mantissa, power) = text.split_at(at);
        return format!("{}{power}", trim(mantissa.to_owned()));
    }
    trim(format!("{:.*}", usize::try_from(digits - 1 - power).unwrap_or(0), number))
}

/// The value of a text as an expression, if it is one.
pub(super) fn evaluate(text: &[u8]) -> Option<Value> {
    Some(Context::new(None, None, 0).evaluate(&Expr::parse_old(text).ok()?))
}

/// A text as a whole number: fractions are cut off, expressions evaluated.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    if let Some(number) = str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
        return Some(number);
    }
    match evaluate(text)? {
        Value::Integer(number) => Some(number),
        Value::Real(number) if number.abs() < 9e18 => Some(number as i64),
        Value::Boolean(value) => Some(value.into()),
        _ => None,
    }
}

fn real(text: &[u8]) -> Option<f64> {
    match evaluate(text)? {
        Value::Integer(number) => Some(number as f64),
        Value::Real(number) => Some(number),
        Value::Boolean(value) => Some(if value { 1.0 } else { 0.0 }),
        _ => None,
    }
}

fn shown(text: &[u8]) -> String {
    crate::diagnostic::show(text)
}

/// A function whose name is like `name`, for a hint.
pub(super) fn like(name: &str) -> Option<&'static str> {
    const NAMES: [&str; 11] = [
        "ENV",
        "INT",
        "REAL",
        "STRING",
        "EVAL",
        "CHOICE",
        "SUBSTR",
        "BASENAME",
        "DIRNAME",
        "RANDOM_INTEGER",
        "RANDOM_CHOICE",
    ];
    nearest(name, NAMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Scope for Fixed {
        fn lookup(&self, name: &[u8]) -> Option<Vec<u8>> {
            let known: [(&[u8], &[u8]); 9] = [
                (b"n", b"5"),
                (b"f", b"/a/b/c.d.txt"),
                (b"q", b"\"a b/c d\""),
                (b"l", b"a, b,c"),
                (b"blank", b",x, "),
                (b"s", b"abcdef"),
                (b"t", b"\"abc\""),
                (b"r", b"rel/x"),
                (b"dot", b".bashrc"),
            ];
            known.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_vec())
        }

        fn random(&self) -> u64 {
            7
        }

        fn here(&self) -> Vec<u8> {
            b"/home".to_vec()
        }
    }

    /// Expected values: condor_submit 24.12.
    #[test]
    fn functions_give_what_htcondor_gives() {
        let check = |call: &str, expected: &str| {
            let (name, body) = call.split_once('(').unwrap_or((call, ""));
            let function = find(name.as_bytes()).ok_or(("no function".to_owned(), String::new()));
            let given = function.and_then(|f| f.call(body.as_bytes(), &Fixed));
            let given = given.map_or_else(|(why, _)| why, |text| String::from_utf8_lossy(&text).into_owned());
            assert_eq!(given, expected, "{call}");
        };
        for (call, expected) in [
            ("INT(n", "5"),
            ("INT(n,%03d", "005"),
            ("INT(n, %d ", " 5 "),
            ("INT(-7,%x", "fffffff9"),
            ("INT(-7,%lx", "fffffffffffffff9"),
            ("INT(n,", "`` is no format for it"),
            ("INT( n", "` n` is no whole number"),
            ("INT(2.7", "2"),
            ("INT(n,%5d|", "    5|"),
            ("INT(n,a%db", "a5b"),
            ("INT(n,%+d", "+5"),
            ("INT(true", "1"),
            ("INT(7*2,%x", "e"),
            ("INT(7/2", "3"),
            ("INT(3.9*2", "7"),
            ("REAL(1/3.0", "0.3333333333333333"),
            ("EVAL(1+2", "3"),
            ("EVAL(nope", "undefined"),
            ("EVAL(t", "abc"),
            ("EVAL(1 +", ""),
            ("EVAL({1,2}", "{ 1,2 }"),
            ("INT(14,%x", "e"),
            ("INT(n,%-4d|", "5   |"),
            ("INT(-3,%04d", "-003"),
            ("INT(n,%s", "`%s` is no format for it"),
            ("INT(x", "`x` is no whole number"),
            ("INT(", "`` is no whole number"),
            ("REAL(n", "5"),
            ("REAL(n,%.2f", "5.00"),
            ("REAL(1e10", "10000000000"),
            ("REAL(2,%.0f", "2.0"),
            ("REAL(n,%g", "5.0"),
            ("REAL(2,%#.0f", "2."),
            ("REAL(0.0001234,%e", "1.234000e-04"),
            ("REAL(123456789,%g", "1.23457e+08"),
            ("REAL(2,%d", "`%d` is no format for it"),
            ("STRING(t", "abc"),
            ("STRING(t,%6s", "   abc"),
            ("STRING(t,%-5.2s|", "ab   |"),
            ("STRING(plain", "plain"),
            ("STRING( t ", " t "),
            ("STRING(t,[%s]", "[abc]"),
            ("STRING(t,%s,x", "abc,x"),
            ("STRING(t,x", "`x` is no format for it"),
            ("CHOICE(0,", "there is no list to choose from"),
            ("CHOICE(1,l", "b"),
            ("CHOICE(1,x,,y", "y"),
            ("CHOICE(0,blank", "x"),
            ("CHOICE(1,blank", "index 1 is out of range"),
            ("CHOICE(2,p q, r ,s", "s"),
            ("CHOICE(3,l", "index 3 is out of range"),
            ("CHOICE(0,nope", "there is no list `nope`"),
            ("SUBSTR(s,2", "cdef"),
            ("SUBSTR(s,-2", "ef"),
            ("SUBSTR(s,1,3", "bcd"),
            ("SUBSTR(s,-3,2", "de"),
            ("SUBSTR(s,1,-1", "bcde"),
            ("SUBSTR(nope,1", ""),
            ("SUBSTR(nope,,2", "`` is no start"),
            ("SUBSTR(s,1,2,3", "too many words"),
            ("SUBSTR(s,0,99", "abcdef"),
            ("SUBSTR(s,-99,-99", ""),
            ("RANDOM_INTEGER(3,3", "3"),
            ("RANDOM_INTEGER(0,9,3", "9"),
            ("RANDOM_INTEGER(3,1", "nothing to choose from"),
            ("RANDOM_CHOICE(q1", "q1"),
            ("RANDOM_CHOICE(x,y", "y"),
            ("RANDOM_CHOICE(l,", "b"),
            ("RANDOM_CHOICE(l", "b"),
            ("Fp(f", "/a/b/"),
            ("Fd(f", "b/"),
            ("Fdd(f", "a/b/"),
            ("Fn(f", "c.d"),
            ("Fx(f", ".txt"),
            ("Fnx(f", "c.d.txt"),
            ("Ff(f", "/a/b/c.d.txt"),
            ("Fq(f", "\"/a/b/c.d.txt\""),
            ("Fqa(f", "'/a/b/c.d.txt'"),
            ("Fbx(f", "txt"),
            ("Fbp(f", "/a/b"),
            ("Fbd(f", "b"),
            ("Fw(f", "\\a\\b\\c.d.txt"),
            ("BASENAME(f", "c.d.txt"),
            ("BASENAME(f, .txt", "c.d"),
            ("BASENAME(f,.x", "c.d.txt"),
            ("Fpd(f", "b/"),
            ("Fpx(f", "/a/b/c.d.txt"),
            ("Fdxb(f", "b/c.d.txt"),
            ("DIRNAME(f", "/a/b/"),
            ("F(f", "/a/b/c.d.txt"),
            ("Fpn(f", "/a/b/c.d"),
            ("Fdn(f", "b/c.d"),
            ("Fp(r", "rel/"),
            ("Fd(r", "rel/"),
            ("Ff(r", "/home/rel/x"),
            ("Ffp(r", "/home/rel/"),
            ("Fp(x", ""),
            ("Fd(x", ""),
            ("Fn(a/b.c", "b"),
            ("Fp(q", "a b/"),
            ("Fq(q", "\"a b/c d\""),
            ("Fn(q", "c d"),
            ("Fn(dot", ".bashrc"),
            ("Fx(dot", ""),
        ] {
            check(call, expected);
        }
    }
}
