//! Random numbers of one worker, without system calls or locks on the request path.

use std::cell::Cell;

use siphasher::sip128::SipHasher24;

/// Ids that nobody can guess, and numbers that need only be uniform.
#[derive(Debug)]
pub struct Rng {
    ids: SipHasher24,
    next_id: Cell<u64>,
    state: Cell<u64>,
}

impl Rng {
    /// Seeded by the system.
    ///
    /// # Errors
    /// The system's, when it has no randomness.
    pub fn from_system() -> Result<Rng, getrandom::Error> {
        let mut seed = [0; 24];
        getrandom::fill(&mut seed)?;
        let (key, state) = seed.split_at(16);
        let mut bytes = ([0; 16], [0; 8]);
        bytes.0.copy_from_slice(key);
        bytes.1.copy_from_slice(state);
        Ok(Rng::from_seed(bytes.0, u64::from_le_bytes(bytes.1)))
    }

    fn from_seed(key: [u8; 16], state: u64) -> Rng {
        Rng { ids: SipHasher24::new_with_key(&key), next_id: Cell::new(0), state: Cell::new(state) }
    }

    /// A new id: SipHash-2-4 with 128 bits of output, under a secret key, of a counter. A pseudo-random function of the counter,
    /// so that ids seen tell nothing of those to come.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        let count = self.next_id.get();
        self.next_id.set(count.wrapping_add(1));
        self.ids.hash(&count.to_le_bytes()).as_bytes()
    }

    /// A uniform number, by SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): it passes the usual batteries, and can be guessed.
    #[must_use]
    pub fn uniform(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn uniform_numbers_are_those_of_splitmix64() {
        // The reference implementation's first outputs for seed 1234567.
        let rng = Rng::from_seed([0; 16], 1_234_567);
        let got: Vec<u64> = (0..3).map(|_| rng.uniform()).collect();
        assert_eq!(got, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn ids_do_not_repeat_within_a_worker_or_between_two() {
        let (one, two) = (Rng::from_system().unwrap(), Rng::from_system().unwrap());
        let ids: HashSet<[u8; 16]> = (0..1000).flat_map(|_| [one.id(), two.id()]).collect();
        assert_eq!(ids.len(), 2000);
    }
}
