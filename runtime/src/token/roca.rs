//! RSA keys that a widespread library made too predictably (ROCA, CVE-2017-15361): their private part can be computed.

/// The primes by which the tell-tale is looked for.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// The library builds its primes from powers of this.
const GENERATOR: u32 = 65537;

/// Whether a modulus (big-endian) is one of that library's: its rest by every prime is a power of the generator. Of
/// sound keys one in 2^27 looks so by chance.
pub fn is_weak(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|&p| {
        let rest = modulus.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % p);
        let step = GENERATOR % p;
        let mut power = 1;
        // The powers repeat after at most p - 1 of them.
        (1..p).any(|_| {
            let hit = power == rest;
            power = power * step % p;
            hit
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_the_generator_are_told_from_other_numbers() {
        // 65537^15 fits 241 bits and is a power of the generator by every prime.
        let mut power = vec![1_u8];
        for _ in 0..15 {
            let mut carry = 0_u64;
            for byte in power.iter_mut().rev() {
                let n = u64::from(*byte) * u64::from(GENERATOR) + carry;
                *byte = (n & 0xff) as u8;
                carry = n >> 8;
            }
            while carry > 0 {
                power.insert(0, (carry & 0xff) as u8);
                carry >>= 8;
            }
        }
        assert!(is_weak(&power));
        assert!(is_weak(&[1]));
        assert!(!is_weak(&[2]) && !is_weak(&[0]) && !is_weak(&[0xff; 256]));
    }
}
