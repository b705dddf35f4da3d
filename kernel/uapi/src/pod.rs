//! Plain old data: structs that may be copied to and from a guest byte by byte.
//!
//! The structs come from another crate (`linux-raw-sys`), so the marker must be ours (orphan rule). This file is one
//! of the named exceptions of the `unsafe` rule.
#![allow(unsafe_code)]

use core::mem::{MaybeUninit, size_of};

/// A type for which every bit pattern is a value and which is copied to guests as its bytes.
///
/// # Safety
/// The type is `Copy`, `repr(C)` or primitive, holds no reference and accepts any bit pattern. Padding is allowed
/// only where the kernel creates values with [`zeroed`], so that no kernel memory leaks through it.
pub unsafe trait Pod: Copy + 'static {}

/// Implements [`Pod`] for the named types; the caller vouches for the trait's conditions.
#[macro_export]
macro_rules! pod {
    ($($t:ty),* $(,)?) => {
        // SAFETY: listed by hand; each is a C struct of integers, arrays and raw pointers from the kernel headers.
        $(unsafe impl $crate::pod::Pod for $t {})*
    };
}

pod!(u8, i8, u16, i16, u32, i32, u64, i64, usize, isize);

// SAFETY: an array of plain data is plain data.
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

/// A value with all bytes zero (padding included).
pub fn zeroed<T: Pod>() -> T {
    // SAFETY: every bit pattern is a value of a Pod type.
    unsafe { MaybeUninit::<T>::zeroed().assume_init() }
}

/// The bytes of a value.
pub fn bytes_of<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: the value is live for the borrow and Pod types are readable as bytes (made by `zeroed`, see the trait).
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The bytes of a slice of values.
pub fn bytes_of_slice<T: Pod>(values: &[T]) -> &[u8] {
    // SAFETY: as `bytes_of`, for a contiguous run.
    unsafe { core::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Reads a value from the front of `bytes`; `None` if they are too few.
pub fn read_from<T: Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: the length was checked, any bit pattern is a value, and the read is declared unaligned.
    Some(unsafe { core::ptr::read_unaligned(bytes.as_ptr().cast()) })
}
