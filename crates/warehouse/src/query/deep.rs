//! Planning on a stack of its own size.
//!
//! Parser, planner and optimizer walk trees by recursion, and a statement's tree may be as deep as
//! [`crate::sql::front`] lets it be: deeper than the stack of a runtime's thread bears.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::{SqlResult, internal};

/// Stack of the thread that plans a statement. Only what is used of it is memory.
const STACK_BYTES: usize = 256 << 20;

/// Runs a future to its end on a thread with a large stack. Meant for what computes and does not
/// wait. If the caller goes away, the thread ends by itself and its result is dropped there.
pub(crate) async fn deep<F>(work: F) -> SqlResult<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (done, result) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("plan".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // Nobody may be waiting any more.
            let _ = done.send(runtime.block_on(work));
        })
        .map_err(internal)?;
    result.await.map_err(|_| internal("planning the statement failed"))
}
