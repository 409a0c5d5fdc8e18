//! Functions of strings.

use std::collections::BTreeSet;

use super::super::eval::{Cx, Fail, Machine, Outcome, Val};
use super::super::expr::Call;
use super::super::lex::is_space;
use super::super::number::{read_real, to_i64};
use super::super::ops::caseless;
use super::Function;

/// The items of a string list: what is between `separators`, without blanks around it, and no empty ones.
pub(super) struct Items<'t> {
    rest: &'t [u8],
    separators: &'t [u8],
}

pub(super) fn items<'t>(list: &'t [u8], separators: &'t [u8]) -> Items<'t> {
    Items { rest: list, separators }
}

impl<'t> Iterator for Items<'t> {
    type Item = &'t [u8];

    fn next(&mut self) -> Option<&'t [u8]> {
        let start = self.rest.iter().position(|byte| !self.separators.contains(byte) && !is_space(*byte))?;
        let rest = self.rest.get(start..)?;
        let end = rest.iter().position(|byte| self.separators.contains(byte)).unwrap_or(rest.len());
        let (item, rest) = rest.split_at(end);
        self.rest = rest;
        let length = item.iter().rposition(|byte| !is_space(*byte)).map_or(0, |last| last + 1);
        item.get(..length)
    }
}

/// The order of versions, as strverscmp(3) has it: digits by the numbers they make.
fn natural(a: &[u8], b: &[u8]) -> i32 {
    let at = |text: &[u8], place: usize| text.get(place).copied().unwrap_or(0);
    let difference = |place: usize| i32::from(at(a, place).cast_signed()) - i32::from(at(b, place).cast_signed());
    let digit = |text: &[u8], place: usize| at(text, place).is_ascii_digit();
    let count = |place: usize| i32::try_from(place).unwrap_or(i32::MAX);
    let Some(first) = (0..a.len().max(b.len())).find(|place| at(a, *place) != at(b, *place)) else {
        return 0;
    };
    let mut number = first;
    while number > 0 && digit(a, number - 1) {
        number -= 1;
    }
    if number == first && !(digit(a, first) && digit(b, first)) {
        return difference(first);
    }
    let zeros = |text: &[u8]| {
        let mut end = number;
        while at(text, end) == b'0' {
            end += 1;
        }
        // A last zero is a digit of the number.
        if end > number && !digit(text, end) { end - 1 } else { end }
    };
    let (zeros_a, zeros_b) = (zeros(a), zeros(b));
    if zeros_a != zeros_b {
        return count(zeros_b) - count(zeros_a);
    }
    if zeros_a > number {
        return difference(first);
    }
    let end = |text: &[u8]| {
        let mut end = zeros_a;
        while digit(text, end) {
            end += 1;
        }
        end
    };
    match (end(a), end(b)) {
        (end_a, end_b) if end_a != end_b => count(end_a) - count(end_b),
        _ => difference(first),
    }
}

impl<'a> Machine<'a> {
    /// The value as text, if it has one.
    fn text(&mut self, value: Val<'a>) -> Result<Option<&'a [u8]>, Fail> {
        Ok(match self.text_value(value)? {
            Val::String(text) => Some(text),
            _ => None,
        })
    }

    pub(super) fn strcat(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let mut joined = Vec::new();
        for argument in &call.arguments {
            if cx.depth == 0 {
                return Err(Fail);
            }
            let value = self.eval(argument, cx.deeper())?;
            match self.text_value(value)? {
                Val::String(text) => {
                    self.work(text.len() / 16)?;
                    joined.extend_from_slice(text);
                }
                other => return Ok(other),
            }
        }
        self.string(joined)
    }

    pub(super) fn join(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        // With a list as the last of one or two arguments, its elements are joined.
        let list = match &*call.arguments {
            [list] | [_, list] => {
                if cx.depth == 0 {
                    return Err(Fail);
                }
                self.eval(list, cx.deeper()).ok().and_then(Val::elements)
            }
            _ => None,
        };
        let (separators, count) = match list {
            Some(elements) => (call.arguments.len() - 1, call.arguments.len() - 1 + elements.len()),
            None => (call.arguments.len(), call.arguments.len()),
        };
        let (mut joined, mut separator, mut undefined, mut defined) = (Vec::new(), &b""[..], false, false);
        for index in 0..count {
            if cx.depth == 0 {
                return Err(Fail);
            }
            let value = match (call.arguments.get(index), list) {
                (Some(argument), _) if index < separators => self.eval(argument, cx.deeper())?,
                (_, Some(elements)) => self.element(elements, index - separators, cx.deeper())?,
                _ => Val::Undefined,
            };
            let text = match self.text_value(value)? {
                Val::String(text) => text,
                Val::Undefined => {
                    undefined = true;
                    continue;
                }
                _ => return Ok(Val::Error),
            };
            self.work(text.len() / 16)?;
            if index == 0 && separators > 0 {
                separator = text;
                continue;
            }
            if !joined.is_empty() {
                joined.extend_from_slice(separator);
            }
            defined = true;
            joined.extend_from_slice(text);
        }
        if undefined && !defined { Ok(Val::Undefined) } else { self.string(joined) }
    }

    pub(super) fn change_case(&mut self, call: &'a Call, cx: Cx<'_, 'a>, upper: bool) -> Outcome<'a> {
        self.convert(call, cx, |machine, value| match machine.text_value(value)? {
            Val::String(text) => {
                machine.string(if upper { text.to_ascii_uppercase() } else { text.to_ascii_lowercase() })
            }
            other => Ok(other),
        })
    }

    pub(super) fn substr(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let Some(arguments) = self.between(call, cx, 2, 3)? else {
            return Ok(Val::Error);
        };
        if arguments.iter().any(|value| matches!(value, Val::Undefined)) {
            return Ok(Val::Undefined);
        }
        let (text, offset, length) = match arguments.as_slice() {
            [Val::String(text), Val::Integer(offset)] => (*text, *offset, None),
            [Val::String(text), Val::Integer(offset), Val::Integer(length)] => (*text, *offset, Some(*length)),
            _ => return Ok(Val::Error),
        };
        // HTCondor looks at the lower 32 bits.
        let (offset, length) = (i64::from(offset as i32), length.map(|length| i64::from(length as i32)));
        let size = i64::try_from(text.len()).unwrap_or(i64::MAX);
        let offset = if offset < 0 { (size + offset).max(0) } else { offset.min(size) };
        let length = match length {
            None => size - offset,
            Some(length) if length < 0 => (size - offset + length).max(0),
            Some(length) => length.min(size - offset),
        };
        let at = |place: i64| usize::try_from(place).unwrap_or(0);
        Ok(Val::String(text.get(at(offset)..at(offset + length)).unwrap_or_default()))
    }

    /// The arguments of a comparison; or its value, if they aren't two texts.
    #[allow(clippy::type_complexity)]
    fn two_texts(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Result<Result<(&'a [u8], &'a [u8]), Val<'a>>, Fail> {
        let Some([a, b]) = self.arguments(call, cx)? else {
            return Ok(Err(Val::Error));
        };
        if matches!(a, Val::Undefined) || matches!(b, Val::Undefined) {
            return Ok(Err(Val::Undefined));
        }
        Ok(self.text(a)?.zip(self.text(b)?).ok_or(Val::Error))
    }

    pub(super) fn compare_strings(&mut self, call: &'a Call, cx: Cx<'_, 'a>, without_case: bool) -> Outcome<'a> {
        let (a, b) = match self.two_texts(call, cx)? {
            Ok(texts) => texts,
            Err(value) => return Ok(value),
        };
        let order = if without_case { caseless(a, b) } else { a.cmp(b) };
        Ok(Val::Integer(order as i64))
    }

    pub(super) fn compare_versions(&mut self, function: Function, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let (a, b) = match self.two_texts(call, cx)? {
            Ok(texts) => texts,
            Err(value) => return Ok(value),
        };
        let order = natural(a, b);
        Ok(match function {
            Function::VersionLe => Val::Boolean(order <= 0),
            Function::VersionLt => Val::Boolean(order < 0),
            Function::VersionGe => Val::Boolean(order >= 0),
            Function::VersionGt => Val::Boolean(order > 0),
            Function::VersionEq => Val::Boolean(order == 0),
            _ => Val::Integer(i64::from(order)),
        })
    }

    pub(super) fn version_in_range(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let Some([tested, least, most]) = self.arguments(call, cx)? else {
            return Ok(Val::Error);
        };
        if matches!(least, Val::Undefined) || matches!(most, Val::Undefined) {
            return Ok(Val::Undefined);
        }
        let (Some(tested), Some(least), Some(most)) = (self.text(tested)?, self.text(least)?, self.text(most)?) else {
            return Ok(Val::Error);
        };
        Ok(Val::Boolean(natural(least, tested) <= 0 && natural(tested, most) <= 0))
    }

    pub(super) fn string_lists_intersect(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let arguments = match self.between(call, cx, 2, 3) {
            Ok(Some(arguments)) => arguments,
            Ok(None) | Err(Fail) => return Ok(Val::Error),
        };
        if arguments.iter().any(|value| matches!(value, Val::Error)) {
            return Ok(Val::Error);
        }
        if arguments.iter().any(|value| matches!(value, Val::Undefined)) {
            return Ok(Val::Undefined);
        }
        let (a, b, separators) = match arguments.as_slice() {
            [Val::String(a), Val::String(b)] | [Val::String(a), Val::String(b), Val::String(b"")] => {
                (*a, *b, &b" ,"[..])
            }
            [Val::String(a), Val::String(b), Val::String(separators)] => (*a, *b, *separators),
            _ => return Ok(Val::Error),
        };
        self.work(a.len() + b.len())?;
        let parts = |list: &'a [u8]| list.split(move |byte| separators.contains(byte)).filter(|part| !part.is_empty());
        let known: BTreeSet<_> = parts(b).collect();
        Ok(Val::Boolean(parts(a).any(|part| known.contains(part))))
    }

    /// A string list, and its separators, which are the second argument.
    fn string_list(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Result<Option<Items<'a>>, Fail> {
        Ok(match self.between(call, cx, 1, 2)?.as_deref() {
            Some([Val::String(list)]) => Some(items(list, b", ")),
            Some([Val::String(list), Val::String(separators)]) => Some(items(list, separators)),
            _ => None,
        })
    }

    pub(super) fn string_list_size(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        Ok(match self.string_list(call, cx)? {
            Some(items) => Val::Integer(i64::try_from(items.count()).unwrap_or(i64::MAX)),
            None => Val::Error,
        })
    }

    pub(super) fn string_list_summary(&mut self, function: Function, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let Some(items) = self.string_list(call, cx)? else {
            return Ok(Val::Error);
        };
        let (mut result, of): (f64, fn(f64, f64) -> f64) = match function {
            Function::StringListMin => (f64::from(f32::MAX), |item, least| if item < least { item } else { least }),
            // The least positive number of C's `float`, and so the maximum of negative numbers.
            Function::StringListMax => {
                (f64::from(f32::MIN_POSITIVE), |item, most| if item > most { item } else { most })
            }
            _ => (0.0, |item, sum| item + sum),
        };
        let (mut count, mut real) = (0_u32, false);
        for item in items {
            let Some((number, _)) = read_real(item) else {
                return Ok(Val::Error);
            };
            count += 1;
            real |= !item.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-'));
            result = of(number, result);
        }
        if count == 0 {
            return Ok(if matches!(function, Function::StringListMin | Function::StringListMax) {
                Val::Undefined
            } else {
                Val::Real(0.0)
            });
        }
        if function == Function::StringListAvg {
            result /= f64::from(count);
        }
        Ok(if real { Val::Real(result) } else { Val::Integer(to_i64(result)) })
    }

    pub(super) fn string_list_member(&mut self, function: Function, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let Some(arguments) = self.between(call, cx, 2, 3)? else {
            return Ok(Val::Error);
        };
        let text = |value: &Val<'a>, missing: &'static [u8]| match value {
            Val::Undefined => Some(missing),
            Val::String(text) => Some(*text),
            _ => None,
        };
        let (Some(wanted), Some(list)) =
            (arguments.first().and_then(|value| text(value, b"")), arguments.get(1).and_then(|value| text(value, b"")))
        else {
            return Ok(Val::Error);
        };
        const SEPARATORS: &[u8] = b", \t\r\n";
        let Some(separators) = arguments.get(2).map_or(Some(SEPARATORS), |value| text(value, SEPARATORS)) else {
            return Ok(Val::Error);
        };
        if let [Val::Undefined, Val::Undefined, ..] = arguments.as_slice() {
            return Ok(Val::Undefined);
        }
        self.work((wanted.len() + list.len()) / 16)?;
        let folded = matches!(function, Function::StringListIMember | Function::StringListISubsetMatch);
        let fold = |item: &[u8]| if folded { item.to_ascii_lowercase() } else { item.to_vec() };
        if matches!(function, Function::StringListMember | Function::StringListIMember) {
            let is = |item: &[u8]| if folded { item.eq_ignore_ascii_case(wanted) } else { item == wanted };
            return Ok(Val::Boolean(items(list, separators).any(is)));
        }
        if wanted.is_empty() {
            return Ok(Val::Boolean(true));
        }
        let known: BTreeSet<_> = items(list, separators).map(fold).collect();
        let mut wanted = items(wanted, separators).peekable();
        Ok(Val::Boolean(wanted.peek().is_some() && wanted.all(|item| known.contains(&fold(item)))))
    }

    pub(super) fn split_at(&mut self, call: &'a Call, cx: Cx<'_, 'a>, slot: bool) -> Outcome<'a> {
        self.convert(call, cx, |machine, value| {
            let Val::String(text) = value else {
                return Ok(Val::Error);
            };
            let (first, second) = match text.iter().position(|byte| *byte == b'@') {
                Some(place) => (text.get(..place).unwrap_or_default(), text.get(place + 1..).unwrap_or_default()),
                None if slot => (&b""[..], text),
                None => (text, &b""[..]),
            };
            machine.list(vec![Val::String(first), Val::String(second)], true)
        })
    }

    pub(super) fn split(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let (text, separators) = match self.between(call, cx, 1, 2)?.as_deref() {
            Some([Val::String(text)]) => (*text, &b", \t"[..]),
            Some([Val::String(text), Val::String(separators)]) => (*text, *separators),
            _ => return Ok(Val::Error),
        };
        self.work(text.len() / 16)?;
        // Blanks beside a separator belong to it; a separator after itself has an empty item between.
        let (mut parts, mut start, mut last) = (Vec::new(), 0, None);
        for (place, byte) in text.iter().enumerate().filter(|(_, byte)| separators.contains(byte)) {
            if place > start {
                parts.push(Val::String(text.get(start..place).unwrap_or_default()));
            } else if last == Some(*byte) {
                parts.push(Val::String(b""));
            }
            if !is_space(*byte) {
                last = Some(*byte);
            }
            start = place + 1;
        }
        if text.len() > start {
            parts.push(Val::String(text.get(start..).unwrap_or_default()));
        }
        self.list(parts, true)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (a, b, order) in [
            ("1.9", "1.10", Ordering::Less),
            ("10.0.2", "9.12", Ordering::Greater),
            ("1.01", "1.1", Ordering::Less),
            ("a", "a", Ordering::Equal),
            ("8.9.0", "8.9.00", Ordering::Greater),
        ] {
            assert_eq!(natural(a.as_bytes(), b.as_bytes()).cmp(&0), order, "{a} {b}");
        }
    }
}
