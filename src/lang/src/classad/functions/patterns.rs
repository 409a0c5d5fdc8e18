//! Functions of regular expressions.

use std::sync::Arc;

use super::super::eval::{Cx, Fail, Machine, Outcome, Val};
use super::super::expr::Call;
use super::super::pattern::{Options, Pattern};
use super::Function;
use super::strings::items;

/// What a search costs, in steps.
fn cost(pattern: &[u8], subject: &[u8]) -> usize {
    8 + pattern.len() / 4 + subject.len() / 16
}

impl<'a> Machine<'a> {
    /// A compiled pattern. One that stands in the expression itself is compiled once.
    fn pattern(
        &mut self,
        call: &'a Call,
        pattern: &[u8],
        options: Options,
        subject: &[u8],
    ) -> Result<Option<Arc<Pattern>>, Fail> {
        self.work(cost(pattern, subject))?;
        let newline = subject.last() == Some(&b'\n');
        let compile = || Pattern::new(pattern, options, newline).map(Arc::new);
        let literal = !newline
            && call.arguments.iter().enumerate().all(|(index, argument)| index == 1 || argument.as_literal().is_some());
        if literal {
            return Ok(call.compiled.get_or_compile(compile));
        }
        // Compiling is what takes time.
        self.work(pattern.len() * 8 + 100)?;
        Ok(compile())
    }

    /// Arguments of which an error or an undefined one decides, and the last may be options.
    fn pattern_arguments(
        &mut self,
        call: &'a Call,
        cx: Cx<'_, 'a>,
        least: usize,
    ) -> Result<Result<Vec<Val<'a>>, Val<'a>>, Fail> {
        let Some(values) = self.between(call, cx, least, least + 1)? else {
            return Ok(Err(Val::Error));
        };
        Ok(if values.iter().any(|value| matches!(value, Val::Error)) {
            Err(Val::Error)
        } else if values.iter().any(|value| matches!(value, Val::Undefined)) {
            Err(Val::Undefined)
        } else {
            Ok(values)
        })
    }

    pub(super) fn regexp(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let values = match self.pattern_arguments(call, cx, 2)? {
            Ok(values) => values,
            Err(result) => return Ok(result),
        };
        let (pattern, subject, options) = match values.as_slice() {
            [Val::String(pattern), Val::String(subject)] => (*pattern, *subject, &b""[..]),
            [Val::String(pattern), Val::String(subject), Val::String(options)] => (*pattern, *subject, *options),
            _ => return Ok(Val::Error),
        };
        self.search(call, pattern, Options::of(options), subject)
    }

    fn search(&mut self, call: &'a Call, pattern: &[u8], options: Options, subject: &[u8]) -> Outcome<'a> {
        Ok(match self.pattern(call, pattern, options, subject)? {
            Some(compiled) => compiled.matches(subject).map_or(Val::Error, Val::Boolean),
            None => Val::Error,
        })
    }

    pub(super) fn regexp_member(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let values = match self.pattern_arguments(call, cx, 2)? {
            Ok(values) => values,
            Err(result) => return Ok(result),
        };
        let (pattern, list, options) = match values.as_slice() {
            [Val::String(pattern), list] => (*pattern, *list, &b""[..]),
            [Val::String(pattern), list, Val::String(options)] => (*pattern, *list, *options),
            _ => return Ok(Val::Error),
        };
        let Some(elements) = list.elements() else {
            return Ok(Val::Error);
        };
        let mut undefined = false;
        for index in 0..elements.len() {
            match self.element(elements, index, cx) {
                Ok(Val::String(subject)) => {
                    if matches!(self.search(call, pattern, Options::of(options), subject)?, Val::Boolean(true)) {
                        return Ok(Val::Boolean(true));
                    }
                }
                Ok(Val::Undefined) => undefined = true,
                Ok(_) | Err(Fail) => return Ok(Val::Error),
            }
        }
        Ok(if undefined { Val::Undefined } else { Val::Boolean(false) })
    }

    pub(super) fn string_list_regexp_member(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let (pattern, list, separators, options) = match self.between(call, cx, 2, 4)?.as_deref() {
            Some([Val::String(pattern), Val::String(list)]) => (*pattern, *list, &b", "[..], &b""[..]),
            Some([Val::String(pattern), Val::String(list), Val::String(separators)]) => {
                (*pattern, *list, *separators, &b""[..])
            }
            Some([Val::String(pattern), Val::String(list), Val::String(separators), Val::String(options)]) => {
                (*pattern, *list, *separators, *options)
            }
            _ => return Ok(Val::Error),
        };
        let options = Options::of(&options.to_ascii_lowercase());
        let Some(compiled) = self.pattern(call, pattern, options, b"")? else {
            return Ok(Val::Error);
        };
        let (mut any, mut found) = (false, false);
        for item in items(list, separators) {
            any = true;
            self.work(cost(pattern, item))?;
            // One that ends in too many steps is no match.
            found |= compiled.matches(item) == Ok(true);
        }
        Ok(if any { Val::Boolean(found) } else { Val::Undefined })
    }

    pub(super) fn substitute(&mut self, function: Function, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let values = match self.pattern_arguments(call, cx, 3)? {
            Ok(values) => values,
            Err(result) => return Ok(result),
        };
        let (pattern, subject, replacement, options) = match values.as_slice() {
            [Val::String(pattern), Val::String(subject), Val::String(replacement)] => {
                (*pattern, *subject, *replacement, &b""[..])
            }
            [Val::String(pattern), Val::String(subject), Val::String(replacement), Val::String(options)] => {
                (*pattern, *subject, *replacement, *options)
            }
            _ => return Ok(Val::Error),
        };
        let whole = function != Function::RegexpS || options.contains(&b'f');
        let all = function == Function::ReplaceAll || options.contains(&b'g');
        let Some(compiled) = self.pattern(call, pattern, Options::of(options), subject)? else {
            return Ok(Val::Error);
        };
        let (mut out, mut at, mut empty) = (Vec::new(), 0, false);
        loop {
            // Past the end of the subject HTCondor's search fails.
            if at > subject.len() {
                return Ok(Val::Error);
            }
            self.work(cost(pattern, subject))?;
            let Ok(found) = compiled.find(subject, at, empty) else {
                return Ok(Val::Error);
            };
            let Some(groups) = found else {
                if !empty {
                    break;
                }
                // After an empty match comes a byte as it is.
                out.push(subject.get(at).copied().unwrap_or(0));
                at += 1;
                empty = false;
                continue;
            };
            let Some(Some((start, end))) = groups.first().copied() else {
                return Ok(Val::Error);
            };
            if whole {
                out.extend_from_slice(subject.get(at..start).unwrap_or_default());
            }
            let taken = groups.iter().rposition(Option::is_some).unwrap_or(0);
            let mut rest = replacement.iter().copied().peekable();
            while let Some(byte) = rest.next() {
                match (byte, rest.peek()) {
                    (b'\\', Some(digit @ b'0'..=b'9')) => {
                        let group = usize::from(digit - b'0');
                        rest.next();
                        if group > taken {
                            return Ok(Val::Error);
                        }
                        if let Some(Some((start, end))) = groups.get(group) {
                            out.extend_from_slice(subject.get(*start..*end).unwrap_or_default());
                        }
                    }
                    (byte, _) => out.push(byte),
                }
            }
            self.work(out.len() / 1024)?;
            at = end;
            empty = start == end;
            if !all {
                break;
            }
        }
        if whole {
            out.extend_from_slice(subject.get(at..).unwrap_or_default());
        }
        self.string(out)
    }
}
