//! `$$(…)`: what the machine that runs a job fills in.

use crate::classad::{Context, Expr, Value};

/// Reads `$$(name)`, `$$(name:default)` or `$$([expression])`: what is asked for, and what to take if it is undefined.
///
/// # Errors
/// What is wrong, in one line.
pub(super) fn parse(written: &[u8]) -> Result<(Expr, Option<&[u8]>), String> {
    let inner = written.strip_prefix(b"$$(").and_then(|rest| rest.strip_suffix(b")"));
    let inner = inner.ok_or("`$$(` is never closed")?;
    if let Some(text) = inner.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) {
        // In old arguments, quotes stand behind backslashes.
        let unescaped = || Expr::parse_old(String::from_utf8_lossy(text).replace("\\\"", "\""));
        let expr = Expr::parse_old(text).or_else(|fault| unescaped().map_err(|_| fault));
        let expr = expr.map_err(|fault| format!("`$$([…])` is no ClassAd expression: {}", fault.message))?;
        return Ok((expr, None));
    }
    let mut parts = inner.splitn(2, |byte| *byte == b':');
    let (name, default) = (parts.next().unwrap_or_default().trim_ascii(), parts.next());
    let plain = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let expr = plain.then(|| Expr::parse_old([b"TARGET.", name].concat()).ok()).flatten();
    Ok((expr.ok_or("`$$()` names no attribute of a machine")?, default))
}

/// The text that a machine fills in for `$$(…)`; in the context, `MY` is the job and `TARGET` the machine.
///
/// # Errors
/// What has no value there, in one line.
pub fn fill_in(written: &[u8], context: &Context<'_>) -> Result<Vec<u8>, String> {
    let (expr, default) = parse(written)?;
    match (context.evaluate(&expr), default) {
        (Value::String(text), _) => Ok(text.to_vec()),
        (Value::Undefined, Some(default)) => Ok(default.to_vec()),
        (Value::Undefined | Value::Error, _) => {
            Err(format!("{} has no value on the machine that was to run it", String::from_utf8_lossy(written)))
        }
        (value, _) => Ok(value.to_string().into_bytes()),
    }
}
