//! Conversions between numbers, and functions of them.

use super::super::eval::{Cx, Fail, Machine, Outcome, Val};
use super::super::expr::Call;
use super::super::number::{read_real, to_i32, to_i64};
use super::Function;

pub(super) fn to_integer(value: Val<'_>) -> Val<'_> {
    match value {
        Val::Undefined => Val::Undefined,
        Val::Boolean(truth) => Val::Integer(i64::from(truth)),
        Val::Integer(number) => Val::Integer(number),
        Val::Real(number) => Val::Integer(to_i64(number)),
        Val::Absolute(time) => Val::Integer(time.secs),
        Val::Relative(seconds) => Val::Integer(i64::from(to_i32(seconds))),
        Val::String(text) => read_real(text).map_or(Val::Error, |(number, _)| Val::Integer(to_i64(number))),
        _ => Val::Error,
    }
}

pub(super) fn to_real(value: Val<'_>) -> Val<'_> {
    match value {
        Val::Undefined => Val::Undefined,
        Val::Boolean(truth) => Val::Real(f64::from(u8::from(truth))),
        Val::Integer(number) => Val::Real(number as f64),
        Val::Real(number) => Val::Real(number),
        Val::Absolute(time) => Val::Real(time.secs as f64),
        Val::Relative(seconds) => Val::Real(f64::from(to_i32(seconds))),
        Val::String(text) => read_real(text).map_or(Val::Error, |(number, _)| Val::Real(number)),
        _ => Val::Error,
    }
}

pub(super) fn to_boolean(value: Val<'_>) -> Val<'_> {
    match value {
        Val::Undefined => Val::Undefined,
        Val::Relative(seconds) => Val::Boolean(to_i32(seconds) != 0),
        Val::String(text) if text.eq_ignore_ascii_case(b"false") => Val::Boolean(false),
        Val::String(text) if text.eq_ignore_ascii_case(b"true") => Val::Boolean(true),
        Val::String(_) => Val::Undefined,
        value => value.truth().map_or(Val::Error, Val::Boolean),
    }
}

impl<'a> Machine<'a> {
    pub(super) fn round(&mut self, function: Function, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        self.convert(call, cx, |_, value| {
            if let Val::Integer(_) = value {
                return Ok(value);
            }
            let Val::Real(number) = to_real(value) else {
                return Ok(Val::Error);
            };
            Ok(Val::Integer(to_i64(match function {
                Function::Floor => number.floor(),
                Function::Ceiling => number.ceil(),
                _ => number.round_ties_even(),
            })))
        })
    }

    pub(super) fn pow(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        Ok(match self.arguments(call, cx)? {
            Some([Val::Integer(base), Val::Integer(power)]) if power >= 0 => {
                Val::Integer(to_i64((base as f64).powf(power as f64) + 0.5))
            }
            Some([base, power]) => match (to_real(base), to_real(power)) {
                (Val::Real(base), Val::Real(power)) => Val::Real(base.powf(power)),
                _ => Val::Error,
            },
            None => Val::Error,
        })
    }

    pub(super) fn quantize(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let Some([value, base]) = self.arguments(call, cx)? else {
            return Ok(Val::Error);
        };
        let Val::Real(number) = to_real(value) else {
            return Ok(Val::Error);
        };
        let mut base = base;
        if let Some(elements) = base.elements() {
            // The first element that is large enough, or else multiples of the last.
            base = Val::Real(0.0);
            for index in 0..elements.len() {
                base = self.element(elements, index, cx)?;
                match to_real(base) {
                    Val::Real(enough) if enough >= number => return Ok(base),
                    Val::Real(_) => {}
                    _ => return Ok(Val::Error),
                }
            }
        }
        let Val::Real(real_base) = to_real(base) else {
            return Ok(Val::Error);
        };
        const EPSILON: f64 = 1e-8;
        Ok(match (value, base) {
            (value, Val::Integer(0)) => value,
            (Val::Integer(number), Val::Integer(base)) => {
                Val::Integer(number.wrapping_add(base).wrapping_sub(1).wrapping_div(base).wrapping_mul(base))
            }
            (_, Val::Integer(_)) => Val::Real((number / real_base).ceil() * real_base),
            (value, _) if real_base.abs() <= EPSILON => value,
            _ => Val::Real((number / real_base).ceil() * real_base),
        })
    }

    pub(super) fn random(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let limit = match &*call.arguments {
            [] => Val::Real(1.0),
            [limit] => self.eval(limit, cx)?,
            _ => return Ok(Val::Error),
        };
        let drawn = (self.context.random)() >> 1;
        match limit {
            Val::Integer(limit) => match u32::try_from(limit as i32) {
                Ok(limit) if limit > 0 => Ok(Val::Integer(i64::from(drawn % limit))),
                _ => Err(Fail),
            },
            Val::Real(limit) if limit <= 0.0 => Err(Fail),
            Val::Real(limit) => Ok(Val::Real(limit * (f64::from(drawn) / f64::from(i32::MAX)))),
            _ => Ok(Val::Error),
        }
    }
}
