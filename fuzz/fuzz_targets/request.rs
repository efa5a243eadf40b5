//! Any bytes from a client: the decoder gives the same commands and the same error, however the bytes are split in
//! transit.
//!
//! The first byte chooses the limits, the second one the splits. The rest is the client's input.
#![no_main]

use ironkeep::resp::request::{Progress, ProtocolError};
use ironkeep::resp::{Request, RequestLimits};
use libfuzzer_sys::fuzz_target;

type Decoded = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>, usize);

/// Decodes what arrives in pieces of the lengths that `cut` gives.
fn decode(bytes: &[u8], limits: RequestLimits, mut cut: impl FnMut() -> usize) -> Decoded {
    let (mut commands, mut at, mut arrived) = (Vec::new(), 0, 0);
    let mut request = Request::new();
    while arrived < bytes.len() {
        arrived = (arrived + cut()).min(bytes.len());
        loop {
            match request.decode(&bytes[at..arrived], limits) {
                Ok(Progress::Complete(taken)) => {
                    assert!(taken > 0 && taken <= arrived - at);
                    commands.push(request.args(&bytes[at..]).from(0).map(<[u8]>::to_vec).collect());
                    request.reset();
                    at += taken;
                }
                Ok(Progress::Incomplete) => {
                    assert!(request.wanted(arrived - at) <= 2 * (arrived - at));
                    break;
                }
                Err(error) => return (commands, Some(error), at),
            }
        }
    }
    (commands, None, at)
}

fuzz_target!(|input: &[u8]| {
    let [choice, cuts, bytes @ ..] = input else { return };
    let limits = RequestLimits {
        bulk_max_bytes: if choice & 1 == 0 { 512 << 20 } else { 1000 },
        authenticated: choice & 2 == 0,
    };
    let whole = decode(bytes, limits, || bytes.len());
    let mut state = u32::from(*cuts);
    let pieces = decode(bytes, limits, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Now and then a long piece, otherwise a few bytes.
        1 + (state >> 24) as usize % if *cuts == 0 { 1 } else { usize::from(*cuts) }
    });
    assert_eq!(whole, pieces);
});
