//! The allocator of ONNX Runtime, which is the C library's and not this program's.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" {
    fn mallopt(parameter: c_int, value: c_int) -> c_int;
    fn malloc_trim(pad: usize) -> c_int;
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
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

/// Loads that run now, and those that ever began.
static LOADING: AtomicUsize = AtomicUsize::new(0);
static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// Tells what one load allocates, where no other runs meanwhile: the allocator counts for the whole process.
pub(crate) struct Meter {
    begun: usize,
    before: Option<usize>,
}

impl Meter {
    /// A load begins.
    pub(crate) fn start() -> Meter {
        let begun = BEGUN.fetch_add(1, Ordering::SeqCst) + 1;
        let alone = LOADING.fetch_add(1, Ordering::SeqCst) == 0;
        Meter { begun, before: if alone { in_use() } else { None } }
    }

    /// Bytes that are in use since then; `None` where that cannot be told.
    pub(crate) fn grown(&self) -> Option<u64> {
        let grown = in_use()?.checked_sub(self.before?)?;
        let alone = BEGUN.load(Ordering::SeqCst) == self.begun;
        u64::try_from(grown).ok().filter(|_| alone)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        LOADING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Bytes that the C library has given out and not got back; `None` where it cannot tell.
fn in_use() -> Option<usize> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// `struct mallinfo2` of glibc's malloc.h.
        #[repr(C)]
        #[derive(Default)]
        struct Information {
            fields: [usize; 10],
        }
        /// `hblkhd`, the bytes of blocks on pages of their own, and `uordblks`, those of all others.
        const OWN_PAGES_TAKEN: usize = 4;
        const OTHERS_TAKEN: usize = 7;

        // Since glibc 2.33; a build for an older one must still link.
        // SAFETY: the name ends in a zero; the symbol, if there is one, is the function that malloc.h declares.
        let information = unsafe {
            let symbol = dlsym(std::ptr::null_mut(), c"mallinfo2".as_ptr());
            if symbol.is_null() {
                return None;
            }
            let mallinfo2 = std::mem::transmute::<*mut c_void, extern "C" fn() -> Information>(symbol);
            mallinfo2()
        };
        Some(information.fields[OWN_PAGES_TAKEN] + information.fields[OTHERS_TAKEN])
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
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

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn malloc(size: usize) -> *mut c_void;
        fn free(block: *mut c_void);
    }

    /// One test, since the counts are of the process.
    #[test]
    fn a_load_that_is_alone_is_measured_and_others_are_not() {
        let meter = Meter::start();
        // SAFETY: the blocks are not used.
        let blocks = unsafe { [malloc(8 << 20), malloc(1000)] };
        let grown = meter.grown().unwrap();
        assert!((8 << 20..9 << 20).contains(&grown), "{grown}");
        let second = Meter::start();
        assert_eq!((meter.grown(), second.grown()), (None, None));
        drop((meter, second));
        assert_eq!(Meter::start().grown().map(|grown| grown < 100_000), Some(true));
        // SAFETY: each is freed once.
        blocks.into_iter().for_each(|block| unsafe { free(block) });
    }
}
