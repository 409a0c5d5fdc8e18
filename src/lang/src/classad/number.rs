//! Numbers as C reads, converts and prints them.

use super::lex::is_space;

/// A real to an `int`, as x86 does: what doesn't fit is the least.
pub(super) fn to_i32(number: f64) -> i32 {
    let whole = number.trunc();
    if (-2_147_483_648.0..=2_147_483_647.0).contains(&whole) { whole as i32 } else { i32::MIN }
}

/// A real to a `long long`, as x86 does: what doesn't fit is the least.
pub(super) fn to_i64(number: f64) -> i64 {
    let whole = number.trunc();
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&whole) { whole as i64 } else { i64::MIN }
}

/// `%.*E`.
pub(super) fn exponential(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$E}");
    let (mantissa, exponent) = text.split_once('E').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{mantissa}E{sign}{exponent:0>2}")
}

/// `%.*G`, of a finite number.
pub(super) fn general(number: f64, precision: usize) -> String {
    let precision = precision.max(1);
    let scientific = exponential(number, precision - 1);
    let (mantissa, exponent) = scientific.split_once('E').unwrap_or((&scientific, "+00"));
    let power: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    match usize::try_from(i64::try_from(precision).unwrap_or(0) - 1 - i64::from(power)) {
        Ok(decimals) if power >= -4 => trim(&format!("{number:.decimals$}")),
        _ => format!("{}E{exponent}", trim(mantissa)),
    }
}

/// `strtod`: the number that the text begins with, and the bytes it takes; nothing if there is none.
pub(super) fn read_real(text: &[u8]) -> Option<(f64, usize)> {
    let blanks = text.iter().take_while(|byte| is_space(**byte)).count();
    let rest = text.get(blanks..).unwrap_or_default();
    let sign = usize::from(matches!(rest.first(), Some(b'+' | b'-')));
    let negative = rest.first() == Some(&b'-');
    let body = rest.get(sign..).unwrap_or_default();
    let signed = |number: f64| if negative { -number } else { number };
    let starts = |word: &str| body.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
    let used = |length: usize| blanks + sign + length;
    if starts("infinity") {
        return Some((signed(f64::INFINITY), used(8)));
    }
    if starts("inf") {
        return Some((signed(f64::INFINITY), used(3)));
    }
    if starts("nan") {
        // In parentheses there may be more.
        let tail = body.get(3..).unwrap_or_default();
        let inner = tail.iter().skip(1).take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let length = if tail.first() == Some(&b'(') && tail.get(inner + 1) == Some(&b')') { inner + 2 } else { 0 };
        return Some((f64::NAN, used(3 + length)));
    }
    if starts("0x")
        && let Some((number, length)) = read_hexadecimal(body.get(2..).unwrap_or_default())
    {
        return Some((signed(number), used(2 + length)));
    }
    let digits = |from: usize| body.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(0);
    let mut length = whole;
    if body.get(whole) == Some(&b'.') {
        let fraction = digits(whole + 1);
        if whole + fraction == 0 {
            return None;
        }
        length = whole + 1 + fraction;
    }
    if length == 0 {
        return None;
    }
    if body.get(length).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'e')) {
        let exponent = length + 1 + usize::from(matches!(body.get(length + 1), Some(b'+' | b'-')));
        let count = digits(exponent);
        if count > 0 {
            length = exponent + count;
        }
    }
    let number = std::str::from_utf8(body.get(..length)?).ok()?.parse().ok()?;
    Some((signed(number), used(length)))
}

/// What follows `0x`: hexadecimal digits with a point and a binary exponent.
fn read_hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    let (mut number, mut scale, mut length, mut digits, mut point) = (0.0_f64, 0_i32, 0, 0, false);
    for byte in text {
        match char::from(*byte).to_digit(16) {
            Some(digit) => {
                digits += 1;
                number = number * 16.0 + f64::from(digit);
                scale -= if point { 4 } else { 0 };
            }
            None if *byte == b'.' && !point => point = true,
            None => break,
        }
        length += 1;
    }
    if digits == 0 {
        return None;
    }
    if text.get(length).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'p')) {
        let sign = usize::from(matches!(text.get(length + 1), Some(b'+' | b'-')));
        let exponent: Vec<u8> =
            text.iter().skip(length + 1 + sign).take_while(|byte| byte.is_ascii_digit()).copied().collect();
        if !exponent.is_empty() {
            let power = exponent
                .iter()
                .fold(0_i32, |power, digit| power.saturating_mul(10).saturating_add(i32::from(digit - b'0')));
            let negative = text.get(length + 1) == Some(&b'-');
            scale = scale.saturating_add(if negative { power.saturating_neg() } else { power });
            length += 1 + sign + exponent.len();
        }
    }
    // In two steps, so that the power alone doesn't overflow.
    let half = scale / 2;
    Some((number * 2_f64.powi(half) * 2_f64.powi(scale - half), length))
}

/// `atoi`.
pub(super) fn read_int(text: &[u8]) -> i32 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let number = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0_i32, |n, digit| n.saturating_mul(10).saturating_add(i32::from(digit - b'0')));
    if negative { -number } else { number }
}
