//! Operators on values.

use std::cmp::Ordering;

use super::AbsoluteTime;
use super::eval::Val;
use super::expr::{Binary, Unary};
use super::number::to_i32;

impl<'a> Val<'a> {
    /// Whether this counts as true, where it is a number or a boolean.
    pub(super) fn truth(self) -> Option<bool> {
        match self {
            Val::Boolean(truth) => Some(truth),
            Val::Integer(number) => Some(number != 0),
            Val::Real(number) => Some(number != 0.0),
            _ => None,
        }
    }

    /// Whether a list is of the kind that is never identical to those of the other.
    fn shared_list(self) -> Option<bool> {
        match self {
            Val::List { shared, .. } | Val::Values { shared, .. } => Some(shared),
            _ => None,
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Val::Boolean(_) | Val::Integer(_) | Val::Real(_))
    }

    fn is_time(self) -> bool {
        matches!(self, Val::Absolute(_) | Val::Relative(_))
    }

    fn as_real(self) -> f64 {
        match self {
            Val::Boolean(truth) => f64::from(u8::from(truth)),
            Val::Integer(number) => number as f64,
            Val::Real(number) => number,
            _ => 0.0,
        }
    }
}

pub(super) fn unary<'a>(operator: Unary, operand: Val<'a>) -> Val<'a> {
    match (operator, operand) {
        (_, Val::Error) => Val::Error,
        (_, Val::Undefined) => Val::Undefined,
        (Unary::Plus, Val::Integer(_) | Val::Real(_) | Val::Relative(_)) => operand,
        (Unary::Minus, Val::Integer(number)) => Val::Integer(number.wrapping_neg()),
        (Unary::Minus, Val::Real(number)) => Val::Real(-number),
        (Unary::Minus, Val::Relative(seconds)) => Val::Relative(-seconds),
        (Unary::Not, operand) => operand.truth().map_or(Val::Error, |truth| Val::Boolean(!truth)),
        (Unary::Complement, Val::Integer(number)) => Val::Integer(!number),
        _ => Val::Error,
    }
}

/// Any operator of two operands but subscripts.
pub(super) fn binary<'a>(operator: Binary, left: Val<'a>, right: Val<'a>) -> Val<'a> {
    use Binary::*;
    match operator {
        Is => identical(left, right).map_or(Val::Error, Val::Boolean),
        IsNot => identical(left, right).map_or(Val::Error, |same| Val::Boolean(!same)),
        Or => logical(left, right, true),
        And => logical(left, right, false),
        Default => {
            if matches!(left, Val::Undefined) {
                right
            } else {
                left
            }
        }
        _ => match (left, right) {
            (Val::Error, _) | (_, Val::Error) => Val::Error,
            (Val::Undefined, _) | (_, Val::Undefined) => Val::Undefined,
            _ => match operator {
                Less | LessOrEqual | NotEqual | Equal | GreaterOrEqual | Greater => compare(operator, left, right),
                Add | Subtract | Multiply | Divide | Remainder => arithmetic(operator, left, right),
                _ => bits(operator, left, right),
            },
        },
    }
}

fn logical<'a>(left: Val<'a>, right: Val<'a>, decisive: bool) -> Val<'a> {
    let boolean = |value: Val<'a>| match value {
        Val::Undefined | Val::Error => Some(value),
        value => value.truth().map(Val::Boolean),
    };
    let (Some(left), Some(right)) = (boolean(left), boolean(right)) else {
        return Val::Error;
    };
    match (left, right) {
        (Val::Boolean(truth), right) => {
            if truth == decisive {
                left
            } else {
                right
            }
        }
        (Val::Error, _) => Val::Error,
        (_, Val::Boolean(truth)) => {
            if truth == decisive {
                right
            } else {
                Val::Undefined
            }
        }
        _ => right,
    }
}

/// `=?=`; nothing where two lists or two ads are compared.
fn identical(left: Val<'_>, right: Val<'_>) -> Option<bool> {
    Some(match (left, right) {
        (Val::Undefined, Val::Undefined) | (Val::Error, Val::Error) => true,
        (Val::Boolean(a), Val::Boolean(b)) => a == b,
        (Val::Integer(a), Val::Integer(b)) => a == b,
        (Val::Real(a), Val::Real(b)) | (Val::Relative(a), Val::Relative(b)) => a == b,
        (Val::String(a), Val::String(b)) => a == b,
        (Val::Absolute(a), Val::Absolute(b)) => a == b,
        (Val::Ad(a), Val::Ad(b)) => return (a.shared != b.shared).then_some(false),
        (a, b) => match (a.shared_list(), b.shared_list()) {
            (Some(a), Some(b)) => return (a != b).then_some(false),
            _ => false,
        },
    })
}

/// The order of strings without regard to case.
pub(super) fn caseless(a: &[u8], b: &[u8]) -> Ordering {
    let folded = |bytes| <[u8]>::iter(bytes).map(u8::to_ascii_lowercase);
    folded(a).cmp(folded(b))
}

fn compare<'a>(operator: Binary, left: Val<'a>, right: Val<'a>) -> Val<'a> {
    use Binary::*;
    let order = match (left, right) {
        (Val::String(a), Val::String(b)) => match operator {
            Equal => return Val::Boolean(a.eq_ignore_ascii_case(b)),
            NotEqual => return Val::Boolean(!a.eq_ignore_ascii_case(b)),
            _ => Some(caseless(a, b)),
        },
        (Val::Absolute(a), Val::Absolute(b)) => Some(a.secs.cmp(&b.secs)),
        (Val::Relative(a), Val::Relative(b)) => a.partial_cmp(&b),
        (Val::Integer(a), Val::Integer(b)) => Some(a.cmp(&b)),
        (a, b) if a.is_number() && b.is_number() => match (a, b) {
            (Val::Real(_), _) | (_, Val::Real(_)) => a.as_real().partial_cmp(&b.as_real()),
            _ => Some(integer(a).cmp(&integer(b))),
        },
        _ => return Val::Error,
    };
    // Nothing is less than what is not a number, nor equal to it.
    Val::Boolean(match operator {
        Less => order == Some(Ordering::Less),
        LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        NotEqual => order != Some(Ordering::Equal),
        Equal => order == Some(Ordering::Equal),
        GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        _ => order == Some(Ordering::Greater),
    })
}

fn integer(value: Val<'_>) -> i64 {
    match value {
        Val::Boolean(truth) => i64::from(truth),
        Val::Integer(number) => number,
        _ => 0,
    }
}

fn arithmetic<'a>(operator: Binary, left: Val<'a>, right: Val<'a>) -> Val<'a> {
    use Binary::*;
    let fits = |value: Val<'a>| value.is_number() || value.is_time();
    if !fits(left) || !fits(right) {
        return Val::Error;
    }
    if left.is_time() || right.is_time() {
        return time_arithmetic(operator, left, right);
    }
    if matches!(left, Val::Real(_)) || matches!(right, Val::Real(_)) {
        let (a, b) = (left.as_real(), right.as_real());
        let result = match operator {
            Add => a + b,
            Subtract => a - b,
            Multiply => a * b,
            Divide => a / b,
            _ => return Val::Error,
        };
        return if result == f64::INFINITY { Val::Error } else { Val::Real(result) };
    }
    let (a, b) = (integer(left), integer(right));
    Val::Integer(match operator {
        Add => a.wrapping_add(b),
        Subtract => a.wrapping_sub(b),
        Multiply => a.wrapping_mul(b),
        _ if b == 0 => return Val::Error,
        Divide => a.checked_div(b).unwrap_or(i64::MAX),
        _ => a.wrapping_rem(b),
    })
}

fn time_arithmetic<'a>(operator: Binary, left: Val<'a>, right: Val<'a>) -> Val<'a> {
    use Binary::*;
    let moved = |time: AbsoluteTime, seconds: i64| {
        Val::Absolute(AbsoluteTime { secs: time.secs.wrapping_add(seconds), ..time })
    };
    match (operator, left, right) {
        (Add, Val::Absolute(time), Val::Relative(span)) | (Add, Val::Relative(span), Val::Absolute(time)) => {
            moved(time, i64::from(to_i32(span)))
        }
        (Subtract, Val::Absolute(time), Val::Relative(span)) => moved(time, i64::from(to_i32(span)).wrapping_neg()),
        (Subtract, Val::Absolute(a), Val::Absolute(b)) => Val::Relative(a.secs.wrapping_sub(b.secs) as f64),
        (Add, Val::Relative(a), Val::Relative(b)) => Val::Relative(a + b),
        (Subtract, Val::Relative(a), Val::Relative(b)) => Val::Relative(a - b),
        (Multiply, Val::Relative(span), Val::Integer(_) | Val::Real(_)) => Val::Relative(span * right.as_real()),
        (Divide, Val::Relative(span), Val::Integer(_) | Val::Real(_)) => Val::Relative(span / right.as_real()),
        (Multiply, Val::Integer(_) | Val::Real(_), Val::Relative(span)) => Val::Relative(left.as_real() * span),
        _ => Val::Error,
    }
}

fn bits<'a>(operator: Binary, left: Val<'a>, right: Val<'a>) -> Val<'a> {
    use Binary::*;
    let (Val::Integer(a), Val::Integer(b)) = (left, right) else {
        return Val::Error;
    };
    // Processors look at six bits of a shift's distance.
    let distance = |by: i64| (by & 63) as u32;
    Val::Integer(match operator {
        BitOr => a | b,
        BitXor => a ^ b,
        BitAnd => a & b,
        ShiftLeft => a.wrapping_shl(distance(b)),
        ShiftRight if a >= 0 => a.wrapping_shr(distance(b)),
        ShiftRight => a >> b.clamp(0, 63),
        ShiftRightUnsigned if a >= 0 => a.wrapping_shr(distance(b)),
        ShiftRightUnsigned => ((a >> 1) & i64::MAX).wrapping_shr(distance(b.wrapping_sub(1))),
        _ => return Val::Error,
    })
}
