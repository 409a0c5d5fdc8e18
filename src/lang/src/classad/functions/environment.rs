//! Functions of argument lists and environments, in HTCondor's two syntaxes.

use std::collections::BTreeMap;

use super::super::eval::{Cx, Machine, Outcome, Val};
use super::super::expr::Call;

const BLANKS: &[u8] = b" \t\n\r";

/// Words with blanks between them; with `quotes`, single quotes keep blanks, and two of them in quotes are one. Nothing if a quote is never closed.
fn words(text: &[u8], quotes: bool) -> Option<Vec<Vec<u8>>> {
    let (mut words, mut word) = (Vec::new(), None::<Vec<u8>>);
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if BLANKS.contains(&byte) {
            words.extend(word.take());
        } else if byte == b'\'' && quotes {
            let word = word.get_or_insert_default();
            loop {
                match bytes.next()? {
                    b'\'' if bytes.next_if_eq(&b'\'').is_none() => break,
                    byte => word.push(byte),
                }
            }
        } else {
            word.get_or_insert_default().push(byte);
        }
    }
    words.extend(word);
    Some(words)
}

/// Words with blanks between them, those with blanks or quotes in single quotes.
fn join<'w>(words: impl Iterator<Item = &'w [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for word in words {
        if !out.is_empty() {
            out.push(b' ');
        }
        if word.is_empty() {
            out.extend_from_slice(b"''");
        }
        for byte in word {
            if !BLANKS.contains(byte) && *byte != b'\'' {
                out.push(*byte);
                continue;
            }
            // Quoted parts side by side are one.
            if out.last() == Some(&b'\'') {
                out.pop();
            } else {
                out.push(b'\'');
            }
            if *byte == b'\'' {
                out.push(b'\'');
            }
            out.extend_from_slice(&[*byte, b'\'']);
        }
    }
    out
}

/// Variables by name. What is no assignment but has `$$` in it is kept as it is.
#[derive(Default)]
struct Environment(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Environment {
    fn set(&mut self, entry: &[u8]) -> Option<()> {
        match entry.iter().position(|byte| *byte == b'=') {
            Some(0) => return None,
            Some(place) => self.0.insert(entry.get(..place)?.to_vec(), Some(entry.get(place + 1..)?.to_vec())),
            None if entry.windows(2).any(|pair| pair == b"$$") => self.0.insert(entry.to_vec(), None),
            None => return None,
        };
        Some(())
    }

    fn render(&self) -> Vec<u8> {
        let entries: Vec<Vec<u8>> = self
            .0
            .iter()
            .map(|(name, value)| match value {
                Some(value) => [name, &b"="[..], value].concat(),
                None => name.clone(),
            })
            .collect();
        join(entries.iter().map(Vec::as_slice))
    }
}

impl<'a> Machine<'a> {
    /// The version of a syntax, 2 unless an argument says otherwise.
    fn syntax(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Result<Option<bool>, super::super::eval::Fail> {
        Ok(match &*call.arguments {
            [_] => Some(true),
            [_, version] => match self.eval(version, cx)? {
                Val::Integer(version) => match version as i32 {
                    1 => Some(false),
                    2 => Some(true),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        })
    }

    pub(super) fn args_to_list(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let (Some(quotes), Some(text)) = (self.syntax(call, cx)?, call.arguments.first()) else {
            return Ok(Val::Error);
        };
        let Val::String(text) = self.eval(text, cx)? else {
            return Ok(Val::Error);
        };
        self.work(text.len() / 16)?;
        match words(text, quotes) {
            Some(words) => {
                let words = words.into_iter().map(|word| self.string(word)).collect::<Result<Vec<_>, _>>()?;
                self.list(words, true)
            }
            None => Ok(Val::Error),
        }
    }

    pub(super) fn list_to_args(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let (Some(quotes), Some(list)) = (self.syntax(call, cx)?, call.arguments.first()) else {
            return Ok(Val::Error);
        };
        let Some(elements) = self.eval(list, cx)?.elements() else {
            return Ok(Val::Error);
        };
        let mut words = Vec::with_capacity(elements.len());
        for index in 0..elements.len() {
            match self.element(elements, index, cx)? {
                Val::String(word) => words.push(word),
                _ => return Ok(Val::Error),
            }
        }
        self.work(words.iter().map(|word| word.len() / 16).sum())?;
        if quotes {
            return self.string(join(words.into_iter()));
        }
        if words.iter().any(|word| word.iter().any(|byte| BLANKS.contains(byte))) {
            return Ok(Val::Error);
        }
        let mut out = Vec::new();
        for word in words {
            if !out.is_empty() {
                out.push(b' ');
            }
            out.extend_from_slice(word);
        }
        self.string(out)
    }

    pub(super) fn merge_environment(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let mut environment = Environment::default();
        for argument in &call.arguments {
            let text = match self.eval(argument, cx)? {
                Val::Undefined => continue,
                Val::String(text) => text,
                _ => return Ok(Val::Error),
            };
            self.work(text.len() / 16)?;
            let set = words(text, true).and_then(|words| words.iter().try_for_each(|word| environment.set(word)));
            if set.is_none() {
                return Ok(Val::Error);
            }
        }
        self.string(environment.render())
    }

    pub(super) fn env_v1_to_v2(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        const DELIMITERS: &[u8] = b"!#$%&*+,-/:;<>?@^`|~\x1f";
        self.convert(call, cx, |machine, value| {
            let text = match value {
                Val::Undefined => return Ok(Val::Undefined),
                Val::String(text) => text,
                _ => return Ok(Val::Error),
            };
            machine.work(text.len() / 16)?;
            let (delimiter, text) = match text.split_first() {
                Some((first, rest)) if DELIMITERS.contains(first) => (*first, rest),
                _ => (b';', text),
            };
            let mut environment = Environment::default();
            for entry in text.split(|byte| *byte == delimiter || *byte == b'\n') {
                let start = entry.iter().position(|byte| !BLANKS.contains(byte)).unwrap_or(entry.len());
                let entry = entry.get(start..).unwrap_or_default();
                if !entry.is_empty() && environment.set(entry).is_none() {
                    return Ok(Val::Error);
                }
            }
            machine.string(environment.render())
        })
    }
}
