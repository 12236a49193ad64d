//! The process's allocator: mimalloc, asked in its plain way.
//!
//! The `mimalloc` crate asks for every block by its alignment, also where any block would do. For blocks that are not
//! small, such as the 8 KiB into which hyper reads, mimalloc then reserves more than is wanted and aligns by itself,
//! which costs four times as much. Alignments up to 16 need no asking, as with C's `malloc`.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;

use libmimalloc_sys as mi;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Allocator;

/// What every block of at least this size is aligned to.
const ALIGN_MIN: usize = 16;

/// Gives back to the system what this thread freed and has not used for a second.
///
/// mimalloc does so only while it is asked for memory: a thread that falls silent after a rush would keep all that the
/// rush took. To be called now and then; it looks at each page of 64 KiB that the thread allocates from.
#[allow(unsafe_code, reason = "it is a function of C")]
pub(crate) fn collect() {
    // SAFETY: it touches the heap of this thread alone, which it makes if there is none.
    unsafe { mi::mi_collect(false) }
}

/// Keeps this process, and those it starts, on the system's ordinary pages. To be called before much is allocated; where
/// the system knows no other pages, or does not let us choose, nothing changes.
///
/// mimalloc asks for transparent huge pages (prctl(2), `PR_SET_THP_DISABLE`) wherever the system leaves that to programs.
/// Each of a dozen threads then holds 2 MiB for the few KiB that it needs: 21 MB at rest instead of 7, and no request
/// took less time for it (docs/performance.md).
pub fn stay_on_small_pages() {
    let _as_it_is = rustix::thread::disable_transparent_huge_pages(true);
}

fn is_plain(layout: Layout) -> bool {
    layout.align() <= ALIGN_MIN && layout.align() <= layout.size()
}

#[allow(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: each block comes from mimalloc and goes back to it. Its plain blocks are aligned to 16 bytes, those smaller
// than that to at least the power of two they hold; all others are asked for by their alignment.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size will do.
        let block = unsafe {
            if is_plain(layout) {
                mi::mi_malloc(layout.size())
            } else {
                mi::mi_malloc_aligned(layout.size(), layout.align())
            }
        };
        block.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size will do.
        let block = unsafe {
            if is_plain(layout) {
                mi::mi_zalloc(layout.size())
            } else {
                mi::mi_zalloc_aligned(layout.size(), layout.align())
            }
        };
        block.cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller has it from here.
        unsafe { mi::mi_free(block.cast::<c_void>()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let is_plain = is_plain(layout) && layout.align() <= size;
        // SAFETY: the caller has it from here, and any size will do.
        let block = unsafe {
            let block = block.cast::<c_void>();
            if is_plain { mi::mi_realloc(block, size) } else { mi::mi_realloc_aligned(block, size, layout.align()) }
        };
        block.cast()
    }
}
