//! What expressions evaluate to.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::{Ad, Expr};

/// A string of the language: bytes, as HTCondor's are, most often UTF-8. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Arc<[u8]>);

impl Text {
    /// The bytes as text; what is not UTF-8 becomes U+FFFD.
    pub fn to_str_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        Text(bytes.into())
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Text(bytes.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text(text.as_bytes().into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Text(text.into_bytes().into())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_str_lossy().fmt(f)
    }
}

/// A point in time, and the offset from UTC in which it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AbsoluteTime {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub secs: i64,
    /// Seconds east of UTC.
    pub offset: i32,
}

/// A value. `Display` writes it as HTCondor does: strings in quotes, reals with 15 digits and an exponent.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing is known: an attribute that is not there.
    Undefined,
    /// There is no meaning: a string added to a number.
    Error,
    /// Truth.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// A string.
    String(Text),
    /// A point in time.
    AbsoluteTime(AbsoluteTime),
    /// A span of time in seconds.
    RelativeTime(f64),
    /// A list, whose elements are not evaluated.
    List(Arc<[Expr]>),
    /// An ad, whose attributes are not evaluated.
    Ad(Ad),
}

impl Value {
    /// Whether this counts as true where a condition is asked for: true, and numbers other than 0. What is neither true nor false gives nothing.
    pub fn truth(&self) -> Option<bool> {
        match self {
            Value::Boolean(truth) => Some(*truth),
            Value::Integer(number) => Some(*number != 0),
            Value::Real(number) => Some(*number != 0.0),
            _ => None,
        }
    }

    /// A number (booleans are 1 and 0), or nothing.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Boolean(truth) => Some(f64::from(u8::from(*truth))),
            Value::Integer(number) => Some(*number as f64),
            Value::Real(number) => Some(*number),
            _ => None,
        }
    }

    /// An integer, or nothing: a real is none.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Boolean(truth) => Some(i64::from(*truth)),
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// A string's bytes, or nothing.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A string that is UTF-8, or nothing.
    pub fn as_str(&self) -> Option<&str> {
        self.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}

macro_rules! from {
    ($($kind:ty => $variant:ident),*) => {
        $(impl From<$kind> for Value {
            fn from(value: $kind) -> Self {
                Value::$variant(value.into())
            }
        }
        impl From<$kind> for Expr {
            fn from(value: $kind) -> Self {
                Value::from(value).into()
            }
        })*
    };
}
from! {
    bool => Boolean, i64 => Integer, i32 => Integer, u32 => Integer, f64 => Real, Text => String, &str => String, &[u8] => String, String => String,
    Vec<u8> => String, AbsoluteTime => AbsoluteTime, Vec<Expr> => List, Ad => Ad
}
