//! The traits by which drivers serve the kernel. Drivers implement them, the kernel uses them, `vmlinux` introduces
//! the two: neither side sees the other.
#![deny(unsafe_code)]

pub mod block;
pub mod tty_port;

/// A boxed future as the traits of this crate return it.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
