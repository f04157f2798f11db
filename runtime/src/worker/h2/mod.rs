//! An HTTP/2 client connection: one task that reads frames, runs the requests that they make, and writes what those have
//! to say, all of one turn at once. Each stream goes the same way as an HTTP/1 request.

mod answer;
mod body;
mod driver;
mod handle;
mod slots;
mod stream;
mod streaming;
mod timing;
mod tunnel;

pub use answer::{bodyless, instead, own, whole};
pub use body::H2Body;
pub use driver::serve;
pub use handle::Handle;
pub use stream::deliver;
pub use streaming::{Broken, Manner, Source, stream, without_digests};
pub use tunnel::StreamIo;

/// Runs futures that stay on their thread.
#[derive(Clone, Copy)]
pub struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
