//! Reading request bodies into memory, within limits.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::time::Sleep;

use crate::answer::Refusal;
use crate::shared::Shared;
use crate::upstream::request::RequestBody;

/// Bodies up to this size are not counted against the memory for bodies: connections are limited already.
const UNCOUNTED: u64 = 64 << 10;

/// Memory that a request's body takes; given back on drop.
#[derive(Debug, Default)]
pub struct Budget {
    shared: Option<Arc<Shared>>,
    bytes: u64,
}

impl Budget {
    fn grow(&mut self, shared: &Arc<Shared>, to: u64) -> Result<(), Refusal> {
        if to <= UNCOUNTED || to <= self.bytes {
            return Ok(());
        }
        let more = to - self.bytes;
        let before = shared.buffered.fetch_add(more, Relaxed);
        self.bytes = to;
        self.shared = Some(shared.clone());
        if before + more > shared.config.limits.buffered_bytes_max {
            return Err(Refusal::Memory);
        }
        Ok(())
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.buffered.fetch_sub(self.bytes, Relaxed);
        }
    }
}

/// Reads a body of at most `max` bytes that must be there within `patience`.
///
/// # Errors
/// [`Refusal::LargeBody`] (before anything is read, where the length is declared), `SlowBody`, `BrokenBody`, `Memory`.
pub async fn collect<B>(
    shared: &Arc<Shared>,
    mut body: B,
    max: u64,
    patience: Duration,
) -> Result<(RequestBody, Budget), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut budget = Budget::default();
    let mut collected = RequestBody::default();
    let declared = body.size_hint().lower();
    if declared > max {
        return Err(Refusal::LargeBody(max));
    }
    budget.grow(shared, declared)?;
    // A timer only for bodies that do not come with their head.
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    while !body.is_end_stream() {
        let frame = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending => {
                let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                timer.as_mut().poll(cx).map(|()| Err(Refusal::SlowBody(patience.as_millis() as u64)))
            }
        });
        let Some(frame) = frame.await? else { break };
        let frame = frame.map_err(|error| Refusal::BrokenBody(error.to_string()))?;
        if let Ok(piece) = frame.into_data() {
            let len = (collected.len() + piece.len()) as u64;
            if len > max {
                return Err(Refusal::LargeBody(max));
            }
            budget.grow(shared, len)?;
            collected.push(piece);
        }
    }
    Ok((collected, budget))
}
