//! Questions to the user while a connection is made.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use super::ShownKey;

/// What a [`Prompter`]'s methods return.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptKind {
    /// The passphrase of a private key in a file.
    Passphrase,
    /// The account's password.
    Password,
    /// Whatever the server wants to know: a password, a one-time code.
    KeyboardInteractive,
}

/// One question with a one-line answer.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// The gateway, or jump host, on whose behalf it is asked, as the user named it.
    pub host: String,
    /// What is asked for.
    pub kind: PromptKind,
    /// Lines to show above the question: the server's title and instruction, or what was wrong with the last answer. May be
    /// empty. From the server, with control characters removed.
    pub instruction: String,
    /// The question itself, ready to print, such as `Enter passphrase for key ~/.ssh/id_ed25519: `.
    pub text: String,
    /// Whether the answer may be shown while it is typed.
    pub echo: bool,
}

/// An unknown host key, to be accepted or not.
#[derive(Clone, Debug)]
pub struct HostKeyQuestion {
    /// The host as the user named it.
    pub host: String,
    /// The key it showed, and the name it would be remembered by.
    pub key: ShownKey,
    /// File that the key will be appended to when accepted; without any, it is trusted for this connection only.
    pub file: Option<PathBuf>,
}

/// Answers questions, usually by a person at a terminal. Called from one task at a time for each connection, but several
/// connections may ask at once: an implementation that owns one terminal must take turns.
pub trait Prompter: Send + Sync {
    /// Whether anyone can answer. If not, nothing is asked: what would need an answer is skipped or refused.
    fn interactive(&self) -> bool;

    /// Asks for one line, without its newline; `None` cancels the connection.
    fn ask(&self, prompt: Prompt) -> Answer<'_, Option<String>>;

    /// Whether an unknown host key may be trusted from now on.
    fn confirm_host_key(&self, question: HostKeyQuestion) -> Answer<'_, bool>;

    /// Shows text that asks nothing: a server's banner, a key added to `known_hosts`. Control characters other than
    /// newlines are already removed. Called also when not interactive.
    fn info(&self, host: &str, text: &str);
}

/// Answers nothing: for reconnecting from the background, and for scripts.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPrompter;

impl Prompter for NoPrompter {
    fn interactive(&self) -> bool {
        false
    }

    fn ask(&self, _: Prompt) -> Answer<'_, Option<String>> {
        Box::pin(async { None })
    }

    fn confirm_host_key(&self, _: HostKeyQuestion) -> Answer<'_, bool> {
        Box::pin(async { false })
    }

    fn info(&self, _: &str, _: &str) {}
}

/// Text from a server, made safe for a terminal: control characters except newlines become spaces, trailing space goes, and
/// length is bounded.
pub(super) fn printable(text: &str) -> String {
    const MOST: usize = 4096;
    let clean: String = text.chars().take(MOST).map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    clean.trim_end().to_owned()
}
