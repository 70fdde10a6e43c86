//! What the programs of all targets have in common: the entry that libFuzzer calls, and a bound on the memory of one input.
//!
//! libFuzzer's own bound looks at what is resident, once a second. An allocation that is as large as some field says, and never written to,
//! passes it; here it ends the program at once, with the input in a file.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

pub use henge::fuzz::{TARGETS, Target, target};
pub use libfuzzer_sys;

/// Memory that one input may take at most, beside what it is long.
const BYTES_MAX: usize = 64 << 20;
const BYTES_MAX_EACH: usize = 1_024;

/// Taken now, and how much may be.
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static CEILING: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The system's allocator, counted.
pub struct Counted;

fn take(bytes: usize) {
    let taken = TAKEN.fetch_add(bytes, Relaxed).saturating_add(bytes);
    if taken > CEILING.load(Relaxed) {
        // Telling takes memory as well.
        CEILING.store(usize::MAX, Relaxed);
        panic!("an input takes {taken} bytes of memory: the last of them were {bytes}");
    }
}

fn give_back(bytes: usize) {
    TAKEN.fetch_sub(bytes, Relaxed);
}

// SAFETY: all is done by the system's allocator, which keeps to the contract; beside it numbers are counted.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        take(bytes);
        give_back(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Feeds `target`, within the bound.
pub fn feed(target: &Target, input: &[u8]) {
    let ceiling = TAKEN.load(Relaxed).saturating_add(BYTES_MAX + BYTES_MAX_EACH * input.len());
    CEILING.store(ceiling, Relaxed);
    (target.feed)(input);
    CEILING.store(usize::MAX, Relaxed);
}

/// A program that feeds the target of this name with what libFuzzer thinks of.
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        #[global_allocator]
        static ALLOCATOR: $crate::Counted = $crate::Counted;

        $crate::libfuzzer_sys::fuzz_target!(|input: &[u8]| {
            static TARGET: std::sync::LazyLock<&$crate::Target> = std::sync::LazyLock::new(|| $crate::target($name));
            $crate::feed(*TARGET, input)
        });
    };
}
