//! The words of `arguments` and `environment`, in their old and their new syntax.

use super::template::{Atom, Late};

/// Elements of a value with the offsets they came from.
pub(super) type Piece = (Atom, u32);

/// What is wrong, where, and what was expected.
pub(super) type Fault = (u32, &'static str, &'static str);

fn is(piece: &Piece, byte: u8) -> bool {
    piece.0 == Atom::Byte(byte)
}

pub(super) fn is_blank(piece: &Piece) -> bool {
    matches!(piece.0, Atom::Byte(b) if b.is_ascii_whitespace())
}

/// True when the whole value stands in double quotes: the new syntax.
pub(super) fn is_new(value: &[Piece]) -> bool {
    value.first().is_some_and(|p| is(p, b'"'))
}

/// Words of an `arguments` value.
pub(super) fn arguments(value: &[Piece]) -> Result<Vec<Vec<Piece>>, Fault> {
    if is_new(value) { new_words(value) } else { old_words(value) }
}

/// Old syntax: words parted by white space; `\"` is a double quote, also in what the machine fills in, any other backslash itself.
fn old_words(value: &[Piece]) -> Result<Vec<Vec<Piece>>, Fault> {
    let asked = |piece: &Piece, byte: u8| piece.0 == Atom::Late(Late::Machine(byte, false));
    let mut words = Vec::new();
    for word in value.split(is_blank).filter(|w| !w.is_empty()) {
        let mut out = Vec::with_capacity(word.len());
        let mut pieces = word.iter().peekable();
        while let Some(piece) = pieces.next() {
            let quote = |next: &&Piece| is(piece, b'\\') && is(next, b'"') || asked(piece, b'\\') && asked(next, b'"');
            match pieces.next_if(quote) {
                Some(quote) => out.push(*quote),
                None if is(piece, b'"') => {
                    let expected = "`\\\"`, or the whole value in double quotes";
                    return Err((piece.1, "double quote inside a value that doesn't begin with one", expected));
                }
                None => out.push(*piece),
            }
        }
        words.push(out);
    }
    Ok(words)
}

/// New syntax: the whole in double quotes, each inner one doubled; words parted by white space outside
/// single quotes, inside which a single quote is doubled.
fn new_words(value: &[Piece]) -> Result<Vec<Vec<Piece>>, Fault> {
    let mut words = Vec::new();
    let mut word: Option<Vec<Piece>> = None;
    let mut quoted: Option<u32> = None;
    let inner = unquote(value)?;
    let mut pieces = inner.iter().peekable();
    while let Some(piece) = pieces.next() {
        if is(piece, b'\'') {
            let doubled = quoted.is_some() && pieces.next_if(|next| is(next, b'\'')).is_some();
            let word = word.get_or_insert_default();
            match quoted {
                Some(_) if doubled => word.push(*piece),
                Some(_) => quoted = None,
                None => quoted = Some(piece.1),
            }
        } else if quoted.is_none() && is_blank(piece) {
            words.extend(word.take());
        } else {
            word.get_or_insert_default().push(*piece);
        }
    }
    if let Some(at) = quoted {
        return Err((at, "single quote is never closed", "a closing `'` (a `'` of the text is doubled: `''`)"));
    }
    words.extend(word);
    Ok(words)
}

fn unquote(value: &[Piece]) -> Result<Vec<Piece>, Fault> {
    let Some((opening, rest)) = value.split_first() else {
        return Ok(Vec::new());
    };
    let mut out = Vec::with_capacity(rest.len());
    let mut pieces = rest.iter().peekable();
    let asked = Atom::Late(Late::Machine(b'"', false));
    while let Some(piece) = pieces.next() {
        if piece.0 == asked {
            pieces.next_if(|next| next.0 == asked);
        }
        if !is(piece, b'"') || pieces.next_if(|next| is(next, b'"')).is_some() {
            out.push(*piece);
        } else {
            return match pieces.find(|p| !is_blank(p)) {
                None => Ok(out),
                Some(_) => {
                    let expected = "the end of the value (a `\"` of the text is doubled: `\"\"`)";
                    Err((piece.1, "text goes on after the closing double quote", expected))
                }
            };
        }
    }
    Err((opening.1, "double quote is never closed", "a closing `\"`"))
}

/// Entries of an `environment` value, each split at its first `=` into name and value.
#[allow(clippy::type_complexity)]
pub(super) fn environment(value: &[Piece]) -> Result<Vec<(Vec<Piece>, Vec<Piece>)>, Fault> {
    let entries = if is_new(value) { new_words(value)? } else { old_entries(value) };
    let split = |entry: Vec<Piece>| {
        let at = entry.first().map_or(0, |p| p.1);
        match entry.iter().position(|p| is(p, b'=')) {
            Some(0) => Err((at, "environment variable has no name", "`NAME=value`")),
            Some(end) => {
                let (name, value) = entry.split_at(end);
                Ok((name.to_vec(), value.get(1..).unwrap_or_default().to_vec()))
            }
            None => Err((at, "environment variable has no value", "`NAME=value`")),
        }
    };
    entries.into_iter().map(split).collect()
}

/// Old syntax: `A=1;B=2`, or parted by `|` when it begins with one. White space before a name doesn't
/// count, after it everything does.
fn old_entries(value: &[Piece]) -> Vec<Vec<Piece>> {
    let delimiter = if value.first().is_some_and(|p| is(p, b'|')) { b'|' } else { b';' };
    let entries = value.split(|p| is(p, delimiter));
    let entries = entries.map(|e| e.iter().skip_while(|p| is_blank(p)).copied().collect::<Vec<_>>());
    entries.filter(|e| !e.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<Piece> {
        text.bytes().map(Atom::Byte).zip(0..).collect()
    }

    fn text(pieces: &[Piece]) -> String {
        let bytes = pieces.iter().map(|(atom, _)| match atom {
            Atom::Byte(b) => *b,
            Atom::Late(_) => b'?',
        });
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
    }

    /// Expected values: condor_submit 24.12.
    #[test]
    fn arguments_are_split_as_htcondor_splits_them() {
        let check = |value: &str, expected: Result<&[&str], u32>| {
            let words = arguments(&pieces(value)).map(|w| w.iter().map(|w| text(w)).collect::<Vec<_>>());
            match (&words, expected) {
                (Ok(words), Ok(expected)) => assert_eq!(words, expected, "{value}"),
                (Err((at, ..)), Err(expected)) => assert_eq!(*at, expected, "{value}"),
                _ => panic!("{value}: {words:?}, expected {expected:?}"),
            }
        };
        check("", Ok(&[]));
        check("a  b\tc", Ok(&["a", "b", "c"]));
        check(r#"a \"b c\" d"#, Ok(&["a", "\"b", "c\"", "d"]));
        check(r#"a\b \\ x\\" \'"#, Ok(&[r"a\b", r"\\", r#"x\""#, r"\'"]));
        check("'a b'", Ok(&["'a", "b'"]));
        check(r#"a "b""#, Err(2));
        check(r#""""#, Ok(&[]));
        check(r#""a ""q"" 'it''s x' b""#, Ok(&["a", "\"q\"", "it's x", "b"]));
        check(r#""'' a''b 'x'y x' 'z""#, Ok(&["", "ab", "xy", "x z"]));
        check(r#""a\b""#, Ok(&[r"a\b"]));
        check(r#""'""'""#, Ok(&["\""]));
        check(r#""a b" c"#, Err(4));
        check(r#""a"#, Err(0));
        check(r#"""#, Err(0));
        check(r#""a 'b""#, Err(3));
    }

    #[test]
    fn environments_are_split_as_htcondor_splits_them() {
        let check = |value: &str, expected: Result<&[(&str, &str)], u32>| {
            let entries = environment(&pieces(value))
                .map(|e| e.iter().map(|(name, value)| (text(name), text(value))).collect::<Vec<_>>());
            match (&entries, expected) {
                (Ok(entries), Ok(expected)) => {
                    let entries: Vec<_> = entries.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                    assert_eq!(entries, expected, "{value}");
                }
                (Err((at, ..)), Err(expected)) => assert_eq!(*at, expected, "{value}"),
                _ => panic!("{value}: {entries:?}, expected {expected:?}"),
            }
        };
        check("A=1;B=2 ; C=x y", Ok(&[("A", "1"), ("B", "2 "), ("C", "x y")]));
        check("A=1;;B=2;", Ok(&[("A", "1"), ("B", "2")]));
        check("| A=1|B=2", Ok(&[("A", "1"), ("B", "2")]));
        check("A=b=c; D=", Ok(&[("A", "b=c"), ("D", "")]));
        check(r#"A="b""#, Ok(&[("A", "\"b\"")]));
        check(r#""A=1 B='x y' C=""q""""#, Ok(&[("A", "1"), ("B", "x y"), ("C", "\"q\"")]));
        check("\"  A=1\tB=2  \"", Ok(&[("A", "1"), ("B", "2")]));
        check("A", Err(0));
        check("B=1; A", Err(5));
        check(r#""A""#, Err(1));
        check(r#""=x""#, Err(1));
        check(r#""A=1 B=2" C"#, Err(8));
    }
}
