//! The allocator of ONNX Runtime, which is the C library's and not this program's.

/// Gives the operating system back what is free in it. Without this, the weights of a model that was unloaded stay
/// resident, in pieces between what others hold.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: it takes a number, may be called by any thread at any time, and touches only what nobody holds.
        unsafe { malloc_trim(0) };
    }
}
