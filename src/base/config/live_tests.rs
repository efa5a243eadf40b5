//! Passwords of the configuration leave no copies in memory. The test looks at all memory of its own process.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use zeroize::{Zeroize, Zeroizing};

use super::Config;
use crate::base::random::Random;

/// What a word is exclusive-ored with, so that the word itself is in no memory.
const MASK: u8 = 0x55;
const PIECE: usize = 1 << 20;

/// A word that nobody else has.
fn masked(random: &mut Random) -> Vec<u8> {
    (0..24).map(|_| (b'a' + random.below(26) as u8) ^ MASK).collect()
}

/// The text `name word`, which is overwritten once it was used.
fn line(name: &str, masked: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(128));
    text.extend_from_slice(name.as_bytes());
    text.extend(masked.iter().map(|byte| byte ^ MASK));
    text
}

fn is_at(piece: &[u8], at: usize, masked: &[u8]) -> bool {
    piece.get(at..at + masked.len()).is_some_and(|part| part.iter().zip(masked).all(|(byte, of)| byte ^ MASK == *of))
}

/// How often a word is in memory that can be written.
fn copies(masked: &[u8]) -> usize {
    let maps = BufReader::new(File::open("/proc/self/maps").expect("Linux"));
    let mut memory = File::open("/proc/self/mem").expect("a process may read its own memory");
    let (mut piece, mut found) = (vec![0; PIECE], 0);
    for map in maps.lines().map_while(Result::ok).filter(|map| map.contains(" rw")) {
        let range = map.split(' ').next().and_then(|range| range.split_once('-'));
        let ends = range.map(|(from, to)| [from, to].map(|end| u64::from_str_radix(end, 16).unwrap_or(0)));
        let Some([mut from, to]) = ends else { continue };
        // A map may be gone meanwhile.
        while from < to && memory.seek(SeekFrom::Start(from)).is_ok() {
            let wanted = PIECE.min((to - from) as usize);
            let Ok(read) = memory.read(&mut piece[..wanted]) else { break };
            let firsts = memchr::memchr_iter(masked[0] ^ MASK, &piece[..read]);
            found += firsts.filter(|at| is_at(&piece[..read], *at, masked)).count();
            piece[..read].zeroize();
            // What lies over the border of two pieces is seen with the next one.
            let step = if read == PIECE { read - masked.len() } else { read };
            if step == 0 {
                break;
            }
            from += step as u64;
        }
    }
    found
}

#[test]
fn a_password_that_was_replaced_is_in_no_memory() {
    let mut random = Random::from_seed(std::process::id().into());
    let (old, new) = (masked(&mut random), masked(&mut random));
    let config = Config::from_text(&line("requirepass ", &old)).expect("a configuration");
    assert!(copies(&old) > 0, "it is in use");
    let change = |word: &[u8]| {
        let word = line("", word);
        config.set(&[(b"requirepass", &word)], true, |_, _, _| Ok(())).expect("it can be set");
    };
    change(&new);
    assert_eq!(copies(&old), 0);
    assert!(copies(&new) > 0, "CONFIG GET shows it");
    change(b"");
    assert_eq!(copies(&new), 0);
    drop(config);
}

#[test]
fn a_secret_does_not_show_itself() {
    let config = Config::from_text(b"requirepass hunter2\ntls-key-file-pass hunter2\nhttp-token hunter2\n");
    let config = config.expect("a configuration");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(*config.settings().requirepass, *b"hunter2");
    assert_eq!(config.get(&[b"requirepass"]), [(b"requirepass".to_vec(), b"hunter2".to_vec())]);
}
