//! Frames over any byte stream.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use vo_wire::frame::{Frame, FrameReader, Message, write_message};

/// Reads frames from a stream.
#[derive(Debug)]
pub struct FrameSource<R> {
    stream: R,
    reader: FrameReader,
}

impl<R: AsyncRead + Unpin> FrameSource<R> {
    /// Frames of `stream`, from its next byte.
    pub fn new(stream: R) -> Self {
        FrameSource { stream, reader: FrameReader::new() }
    }

    /// The next frame; `None` when the stream ended between two frames. Cancel-safe.
    ///
    /// # Errors
    /// What reading gave; `UnexpectedEof` within a frame; `InvalidData` for what is no frame.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            if self.stream.read_buf(self.reader.buffer()).await? == 0 {
                return if self.reader.buffer().is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// A frame that has already arrived, without waiting: for taking a burst in one go.
    ///
    /// # Errors
    /// `InvalidData` for what is no frame.
    pub fn buffered(&mut self) -> io::Result<Option<Frame>> {
        self.reader.next_frame().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

/// Writes one message and flushes.
///
/// # Errors
/// What writing gave.
pub async fn send<W: AsyncWrite + Unpin, M: Message>(stream: &mut W, route: u64, message: &M) -> io::Result<()> {
    let mut bytes = Vec::new();
    write_message(route, message, &mut bytes);
    stream.write_all(&bytes).await?;
    stream.flush().await
}
