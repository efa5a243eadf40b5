//! Tests of blocks in one thread and in several, of slabs that change hands, and of empty and sparse slabs.

use super::*;
use std::collections::HashSet;
use std::sync::{Mutex, mpsc};
use std::thread;

/// A block filled with a mark. Its drop checks the mark and frees the block.
struct Block {
    begin: *mut u8,
    bytes: usize,
    mark: u8,
}

// SAFETY: any thread may free a block, and nothing else has it.
unsafe impl Send for Block {}

impl Block {
    fn new(bytes: usize, mark: u8) -> Block {
        let begin = allocate(bytes);
        assert!(!begin.is_null() && begin.addr().is_multiple_of(16));
        // SAFETY: the block has that many bytes.
        unsafe { begin.write_bytes(mark, bytes) };
        Block { begin, bytes, mark }
    }

    fn slab(&self) -> &Slab {
        // SAFETY: the block is in use.
        unsafe { Slab::of(self.begin, slab_bytes(self.bytes)) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the block has that many bytes, which were written, and is freed once.
        unsafe {
            let bytes = std::slice::from_raw_parts(self.begin, self.bytes);
            assert!(bytes.iter().all(|&byte| byte == self.mark), "nobody else writes to a block");
            free(self.begin, self.bytes);
        }
    }
}

/// The heap of this thread.
fn own() -> &'static Heap {
    if HEAP.get().is_null() {
        drop(Block::new(1, 0));
    }
    // SAFETY: heaps are never freed.
    unsafe { HEAP.get().as_ref() }.expect("the thread has had a block")
}

/// How many slabs of the class of this size belong to this thread.
fn slabs_of(bytes: usize) -> usize {
    own().classes[class_of(bytes)].slabs.get()
}

/// Runs one of these tests at a time, so that no other test takes or leaves slabs of the classes that they count.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a test in its own thread, because the tests count what belongs to a thread while no other has any slab.
fn alone(run: impl FnOnce() + Send + 'static) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    in_a_thread(|| while !tidy() {});
    in_a_thread(run);
}

fn in_a_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(run).join().expect("its assertions hold")
}

/// The contents of 100 slabs, and how many blocks that is.
const BYTES: usize = 2048;
const COUNT: usize = 100 * SMALL_SLAB_BYTES / BYTES;

fn hundred_slabs() -> Vec<Block> {
    (0..COUNT).map(|n| Block::new(BYTES, n as u8)).collect()
}

#[test]
fn classes_hold_their_sizes_and_waste_little() {
    let mut largest = 0;
    for class in 0..CLASSES {
        let bytes = class_bytes(class);
        assert!(bytes > largest && bytes.is_multiple_of(16));
        assert_eq!((class_of(bytes), class_of(largest + 1)), (class, class));
        let parts = if bytes <= SMALL_BLOCK_MAX { 32 } else { 16 };
        assert!(bytes <= 512 || (bytes - largest) * parts <= largest, "{bytes}");
        largest = bytes;
    }
    assert_eq!((largest, class_of(0), block_bytes(1)), (BLOCK_MAX, 0, 16));
    for align in [32, 64, 128, 1024, 4096] {
        for bytes in (align..=BLOCK_MAX).step_by(align) {
            assert!(block_bytes(bytes).is_multiple_of(align), "{bytes} of {align}");
        }
    }
}

#[test]
fn blocks_never_overlap() {
    alone(|| {
        let mut random = 1_u64;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % below
        };
        let mut blocks: Vec<Block> = Vec::new();
        for round in 0..60_000 {
            if blocks.len() < 2000 && (round / 10_000) % 2 == 0 || blocks.is_empty() {
                let largest = [100, 1000, SMALL_BLOCK_MAX, BLOCK_MAX][next(4)];
                blocks.push(Block::new(1 + next(largest), next(256) as u8));
            } else {
                blocks.swap_remove(next(blocks.len()));
            }
        }
    });
}

#[test]
fn a_slab_that_is_empty_is_given_away() {
    alone(|| {
        let blocks = hundred_slabs();
        let slabs: HashSet<*const Slab> = blocks.iter().map(|block| ptr::from_ref(block.slab())).collect();
        assert_eq!((slabs.len(), slabs_of(BYTES)), (100, 100));
        drop(blocks);
        assert_eq!(slabs_of(BYTES), 1, "the one that blocks are taken from stays");
        assert!(purge(true) >= 99 * SMALL_SLAB_BYTES);
        drop(hundred_slabs());
        tidy();
        assert_eq!(slabs_of(BYTES), 0, "that one goes as well when there is time");
    });
}

#[test]
fn what_another_thread_frees_comes_back_slab_by_slab() {
    alone(|| {
        let mut blocks = hundred_slabs();
        let stays = blocks.swap_remove(COUNT / 2);
        in_a_thread(move || drop(blocks));
        assert_eq!(slabs_of(BYTES), 100, "its owner has not looked yet");
        own().collect(10);
        assert!((89..91).contains(&slabs_of(BYTES)));
        tidy();
        assert_eq!(slabs_of(BYTES), 1, "that with the block");
        let again: Vec<Block> = (0..COUNT / 100).map(|n| Block::new(BYTES, n as u8)).collect();
        drop((again, stays));
        assert_eq!(slabs_of(BYTES), 1);
    });
}

#[test]
fn blocks_freed_in_turns_come_back_once_each() {
    alone(|| {
        let mut blocks: Vec<Block> = (0..SMALL_SLAB_BYTES / BYTES).map(|n| Block::new(BYTES, n as u8)).collect();
        let mut begins: Vec<usize> = blocks.iter().map(|block| block.begin.addr()).collect();
        // The next list arrives when several lists of other threads exist, and one of this thread.
        for _ in 0..3 {
            let eight = blocks.split_off(blocks.len() - 8);
            in_a_thread(move || drop(eight));
            tidy();
        }
        blocks.truncate(4);
        blocks.extend((0..28).map(|n| Block::new(BYTES, n)));
        let mut again: Vec<usize> = blocks.iter().map(|block| block.begin.addr()).collect();
        begins.sort_unstable();
        again.sort_unstable();
        assert_eq!((again, slabs_of(BYTES)), (begins, 1));
    });
}

#[test]
fn threads_free_each_others_blocks() {
    alone(|| four_threads(20_000));
}

fn four_threads(rounds: usize) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| mpsc::channel::<Block>()).unzip();
    let threads: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(at, receiver)| {
            let to = senders.clone();
            thread::spawn(move || {
                for round in 0..rounds {
                    let bytes = 1 + (round * 7919 + at) % [64, 700, 3000][round % 3];
                    let block = Block::new(bytes, round as u8);
                    if round % 4 != at {
                        let _ = to[round % 4].send(block);
                    }
                    receiver.try_iter().take(2).for_each(drop);
                    if round % 1000 == 0 {
                        tidy();
                    }
                }
                drop(to);
                receiver.into_iter().for_each(drop);
                tidy();
            })
        })
        .collect();
    drop(senders);
    threads.into_iter().for_each(|thread| thread.join().expect("its assertions hold"));
}

#[test]
fn others_use_and_empty_what_a_thread_has_left() {
    alone(|| {
        // This thread already has a heap, so the next thread gets another.
        assert_eq!(slabs_of(BYTES), 0);
        let mut blocks = in_a_thread(hundred_slabs);
        let slabs: HashSet<*const Slab> = blocks.iter().map(|block| ptr::from_ref(block.slab())).collect();
        // A third thread, which existed before the heap was left, frees every second block.
        let going: Vec<Block> = blocks.extract_if(.., |block| block.mark % 2 == 0).collect();
        drop(going);
        let more: Vec<Block> = (0..COUNT / 4).map(|n| Block::new(BYTES, n as u8)).collect();
        assert!(more.iter().all(|block| slabs.contains(&ptr::from_ref(block.slab()))));
        assert!((50..53).contains(&slabs_of(BYTES)), "{}", slabs_of(BYTES));
        in_a_thread(move || drop(blocks));
        tidy();
        drop(more);
        assert_eq!(slabs_of(BYTES), 1);
        assert!(all_heaps().all(|heap| ptr::eq(heap, own()) || heap.classes[class_of(BYTES)].slabs.get() == 0));
    });
}

#[test]
fn large_blocks_have_slabs_of_their_own() {
    alone(|| {
        let bytes = 12 << 10;
        let blocks: Vec<Block> = (0..850).map(|n| Block::new(bytes, n as u8)).collect();
        assert_eq!(slabs_of(bytes), 10);
        assert!(!blocks.iter().any(|block| is_sparse(block.begin.addr())));
        in_a_thread(move || drop(blocks));
        while !tidy() {}
        assert_eq!(slabs_of(bytes), 0);
        assert!(purge(true) >= 10 * LARGE_SLAB_BYTES);
    });
}

#[test]
fn a_slab_changes_hands_while_a_block_of_it_is_freed() {
    alone(|| {
        for _ in 0..200 {
            own();
            let blocks = in_a_thread(|| (0..100).map(|n| Block::new(BYTES, n)).collect::<Vec<_>>());
            let freeing = thread::spawn(move || drop(blocks));
            // Takes over what the first of these threads has left while the second one frees blocks.
            let more: Vec<Block> = (0..200).map(|n| Block::new(BYTES, n)).collect();
            freeing.join().expect("its assertions hold");
            drop(more);
        }
        while !tidy() {}
        tidy();
        assert!(all_heaps().map(|heap| heap.classes[class_of(BYTES)].slabs.get()).sum::<usize>() <= 1);
    });
}

#[test]
fn what_lives_in_sparse_slabs_is_known_and_they_are_used_last() {
    alone(|| {
        let mut blocks = hundred_slabs();
        tidy();
        assert!(!blocks.iter().any(|block| block.slab().is_sparse()));
        let mut at = 0;
        blocks.retain(|_| {
            at += 1;
            at % (COUNT / 100) == 0
        });
        tidy();
        let sparse = blocks.iter().filter(|block| block.slab().is_sparse()).count();
        assert!((80..98).contains(&sparse), "{sparse}");
        let (now, ever) = sparse_slabs();
        assert!(now >= sparse && ever >= sparse);
        // The moved blocks find room elsewhere, and their slab is freed.
        let is_sparse = |block: &Block| block.slab().is_sparse();
        let moved: Vec<Block> =
            blocks.iter().filter(|block| is_sparse(block)).map(|block| Block::new(BYTES, block.mark)).collect();
        assert!(!moved.iter().any(is_sparse));
        blocks.retain(|block| !is_sparse(block));
        assert_eq!(slabs_of(BYTES), 100 - sparse);
    });
}

#[test]
fn a_thread_at_its_end_still_allocates_and_frees() {
    struct Last(Cell<Option<Block>>);
    impl Drop for Last {
        fn drop(&mut self) {
            drop(self.0.take());
            let blocks: Vec<Block> = (0..100).map(|n| Block::new(200, n)).collect();
            drop(blocks);
        }
    }
    thread_local!(static LAST: Last = const { Last(Cell::new(None)) });
    in_a_thread(|| {
        // Destructors run in the reverse of the order in which their values were made.
        LAST.with(|last| last.0.set(None));
        LAST.with(|last| last.0.set(Some(Block::new(200, 1))));
    });
    in_a_thread(|| {
        let block = Block::new(200, 1);
        LAST.with(|last| last.0.set(Some(block)));
    });
}
