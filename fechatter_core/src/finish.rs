//! Work that continues after its caller stopped waiting.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Work that a separate task finishes if this future is dropped before it completes.
///
/// The waiting task does the work itself, because a task for each piece of work would have to be
/// allocated, and passed between threads twice.
#[derive(Debug)]
#[must_use = "work is done while it is waited for"]
pub struct Finish<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send> + Send + 'static> Finish<F> {
    /// Wraps work that runs to its end even if this is dropped before or during it, as long as it
    /// is dropped inside a runtime.
    pub fn new(work: F) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Finish<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out, so that work that has panicked is not polled again.
        let Some(mut work) = self.0.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some(work);
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Finish<F> {
    fn drop(&mut self) {
        if let Some(work) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_is_finished_also_if_nobody_waits_any_more() {
        let (go_on, goes_on) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let mut work = Finish::new(async move {
            goes_on.await.unwrap();
            done.send(7).unwrap();
        });
        assert!((&mut work).now_or_never().is_none());
        drop(work);
        go_on.send(()).unwrap();
        assert_eq!(is_done.await, Ok(7));
    }

    #[tokio::test]
    async fn its_outcome_is_that_of_the_work() {
        assert_eq!(Finish::new(async { 7 }).await, 7);
        let failed = AssertUnwindSafe(Finish::new(async { panic!("no") })).catch_unwind().await;
        assert!(failed.is_err());
    }
}
