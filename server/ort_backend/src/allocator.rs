//! The allocator of ONNX Runtime, which is the C library's and not this program's.

use std::ffi::c_int;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" {
    fn mallopt(parameter: c_int, value: c_int) -> c_int;
    fn malloc_trim(pad: usize) -> c_int;
}

/// `M_MMAP_THRESHOLD` of glibc's malloc.h.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MMAP_THRESHOLD: c_int = -3;

/// Blocks of this size or more are pages of their own, which go back to the operating system when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_PAGES: c_int = 1 << 20;

/// Keeps large blocks, weights above all, on pages of their own. Left to itself, glibc stops doing so for blocks like
/// the largest that was ever freed, and what a model that is unloaded had stays resident.
pub(crate) fn keep_large_blocks_apart() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers, and changes only how later blocks are allocated.
    unsafe {
        mallopt(MMAP_THRESHOLD, OWN_PAGES);
    }
}

/// Gives the operating system back what is free. Without this, what is small of a model that was unloaded stays
/// resident, in pieces between what others hold.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number, may be called by any thread at any time, and touches only what nobody holds.
    unsafe {
        malloc_trim(0);
    }
}

/// Ends the process at once, with `code`. For one whose threads may still be inside ONNX Runtime: an orderly exit takes
/// the library apart under them, and they crash.
pub fn exit_at_once(code: u8) -> ! {
    unsafe extern "C" {
        fn _exit(code: c_int) -> !;
    }
    // SAFETY: it takes a number and does not return.
    unsafe { _exit(code.into()) }
}
