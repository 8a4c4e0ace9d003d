use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use tribunal_events::{Address, B256, Digest};

/// The seed of a round's draw: BLAKE3 `derive_key("tribunal.v1 draw", client's seed, provider's seed, terms hash,
/// round as 4 bytes big-endian)`. Both seeds were committed to before any result was known.
pub fn draw_seed(client: &[u8; 32], provider: &[u8; 32], terms_hash: B256, round: u32) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("tribunal.v1 draw");
    hasher.update(client).update(provider).update(terms_hash.as_slice()).update(&round.to_be_bytes());
    Digest::new(*hasher.finalize().as_bytes())
}

/// Who can be drawn: the allowed mediators without those who were silent in an earlier round, unless too few remain.
pub fn candidates(allowed: &[Address], silent: &[Address], panel_size: usize) -> Vec<Address> {
    let heard: Vec<_> = allowed.iter().copied().filter(|mediator| !silent.contains(mediator)).collect();
    if heard.len() >= panel_size { heard } else { allowed.to_vec() }
}

/// Draws `panel_size` of the candidates without replacement, every subset equally likely; the panel is ascending.
///
/// The first steps of a Fisher–Yates shuffle over the candidates in ascending order. A step takes 64-bit words of the
/// ChaCha20 stream keyed by the seed, in order, and rejects those at or above the greatest multiple of the number of
/// candidates left, so that no candidate is favoured; the word modulo that number is the index taken.
///
/// # Panics
/// Where the panel is larger than the candidates, which terms rule out.
pub fn draw(seed: &Digest, candidates: &[Address], panel_size: usize) -> Vec<Address> {
    assert!(panel_size <= candidates.len(), "a panel of {panel_size} from {}", candidates.len());
    let mut stream = ChaCha20Rng::from_seed(*seed.bytes());
    let mut left = candidates.to_vec();
    left.sort_unstable();
    left.dedup();
    for taken in 0..panel_size {
        let count = (left.len() - taken) as u64;
        let limit = u64::MAX - u64::MAX % count;
        let word = loop {
            let word = stream.next_u64();
            if word < limit {
                break word;
            }
        };
        left.swap(taken, taken + (word % count) as usize);
    }
    left.truncate(panel_size);
    left.sort_unstable();
    left
}
