//! The MODP groups of RFC 3526: the integers modulo a safe prime, with generator 2.

use crypto_bigint::{
    Limb, Odd, U320, U448, U512, U2048, U3072, U4096, Uint, Word,
    modular::{FixedMontyForm, FixedMontyParams},
};
use std::{fmt, sync::LazyLock};
use wayfarer_mobility::crypto::{KexSecret, Refused, Secret};
use zeroize::{Zeroize, Zeroizing};

/// A group whose elements have `LIMBS` limbs, and private exponents `EXPONENT` limbs.
pub(super) struct Group<const LIMBS: usize, const EXPONENT: usize>(FixedMontyParams<LIMBS>);

/// An exponent has twice as many bits as the group's strength, by the higher estimate of RFC 3526
/// §8 (320, 420 and 480 bits), rounded up to whole limbs. In a group of a safe prime, longer
/// exponents are only slower.
type Modp2048 = Group<{ U2048::LIMBS }, { U320::LIMBS }>;
type Modp3072 = Group<{ U3072::LIMBS }, { U448::LIMBS }>;
type Modp4096 = Group<{ U4096::LIMBS }, { U512::LIMBS }>;

pub(super) static MODP_2048: LazyLock<Modp2048> = LazyLock::new(|| Group::new(PRIME_2048));
pub(super) static MODP_3072: LazyLock<Modp3072> = LazyLock::new(|| Group::new(PRIME_3072));
pub(super) static MODP_4096: LazyLock<Modp4096> = LazyLock::new(|| Group::new(PRIME_4096));

impl<const LIMBS: usize, const EXPONENT: usize> Group<LIMBS, EXPONENT> {
    fn new(prime: &str) -> Self {
        Self(FixedMontyParams::new_vartime(Odd::<Uint<LIMBS>>::from_be_hex(prime)))
    }

    /// Draws a private exponent and computes the public value.
    pub(super) fn begin(&'static self) -> Result<(Box<dyn KexSecret>, Vec<u8>), Refused> {
        let mut exponent = Zeroizing::new(Uint::<EXPONENT>::ZERO);
        for limb in exponent.as_mut_limbs() {
            let mut bytes = Zeroizing::new([0; Limb::BYTES]);
            aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| Refused)?;
            limb.0 = Word::from_le_bytes(*bytes);
        }
        let public = self.power(&Uint::from(2u8), &exponent);
        let private = Exponent { group: self, exponent };
        Ok((Box::new(private), public.to_vec()))
    }

    /// Returns `base` to the power of `exponent`, in constant time, as many bytes as the prime (RFC
    /// 7296 §3.4).
    fn power(&self, base: &Uint<LIMBS>, exponent: &Uint<EXPONENT>) -> Secret {
        let mut power = FixedMontyForm::new(base, &self.0).pow(exponent);
        let value = Zeroizing::new(power.retrieve());
        power.zeroize();
        let mut bytes = Secret::new(Vec::with_capacity(LIMBS * Limb::BYTES));
        value.as_limbs().iter().rev().for_each(|limb| bytes.extend_from_slice(&limb.0.to_be_bytes()));
        bytes
    }

    /// Parses a peer's public value, which must have the prime's length and be from 2 to p-2 (RFC
    /// 6989 §2.1).
    fn parse(&self, data: &[u8]) -> Result<Uint<LIMBS>, Refused> {
        if data.len() != LIMBS * Limb::BYTES {
            return Err(Refused);
        }
        let value = Uint::from_be_slice(data);
        let greatest = self.0.modulus().as_ref().wrapping_sub(&Uint::from(2u8));
        (value > Uint::ONE && value <= greatest).then_some(value).ok_or(Refused)
    }
}

struct Exponent<const LIMBS: usize, const EXPONENT: usize> {
    group: &'static Group<LIMBS, EXPONENT>,
    exponent: Zeroizing<Uint<EXPONENT>>,
}

impl<const LIMBS: usize, const EXPONENT: usize> KexSecret for Exponent<LIMBS, EXPONENT> {
    fn finish(self: Box<Self>, data: &[u8]) -> Result<Secret, Refused> {
        Ok(self.group.power(&self.group.parse(data)?, &self.exponent))
    }
}

impl<const LIMBS: usize, const EXPONENT: usize> fmt::Debug for Exponent<LIMBS, EXPONENT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MODP of {} bits", Uint::<LIMBS>::BITS)
    }
}

const PRIME_2048: &str = "\
    ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd\
    ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed\
    ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f\
    83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b\
    e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510\
    15728e5a8aacaa68ffffffffffffffff";

const PRIME_3072: &str = "\
    ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd\
    ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed\
    ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f\
    83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b\
    e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510\
    15728e5a8aaac42dad33170d04507a33a85521abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7\
    abf5ae8cdb0933d71e8c94e04a25619dcee3d2261ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200c\
    bbe117577a615d6c770988c0bad946e208e24fa074e5ab3143db5bfce0fd108e4b82d120a93ad2caffffffffffffffff";

const PRIME_4096: &str = "\
    ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd\
    ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed\
    ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f\
    83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b\
    e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510\
    15728e5a8aaac42dad33170d04507a33a85521abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7\
    abf5ae8cdb0933d71e8c94e04a25619dcee3d2261ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200c\
    bbe117577a615d6c770988c0bad946e208e24fa074e5ab3143db5bfce0fd108e4b82d120a92108011a723c12a787e6d7\
    88719a10bdba5b2699c327186af4e23c1a946834b6150bda2583e9ca2ad44ce8dbbbc2db04de8ef92e8efc141fbecaa6\
    287c59474e6bc05d99b2964fa090c3a2233ba186515be7ed1f612970cee2d7afb81bdd762170481cd0069127d5b05aa9\
    93b4ea988d8fddc186ffb7dc90a6c08f4df435c934063199ffffffffffffffff";

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::digest;
    use crypto_bigint::NonZero;

    /// An integer with room for a prime of 4096 bits, guard bits for a series, and a small factor.
    type Wide = Uint<{ U4096::LIMBS + 4 }>;

    /// Number of fraction bits in a [`Wide`].
    const FRACTION: u32 = 4224;

    /// Returns arctan(1/x), by its series.
    fn arctan_inverse(x: u32) -> Wide {
        let divide = |n: &Wide, by: u32| n.wrapping_div(&NonZero::new(Wide::from(by)).unwrap());
        let mut power = divide(&Wide::ONE.shl(FRACTION), x);
        let (mut sum, mut n) = (power, 1);
        while power != Wide::ZERO {
            power = divide(&power, x * x);
            n += 2;
            let term = divide(&power, n);
            sum = if n % 4 == 3 { sum.wrapping_sub(&term) } else { sum.wrapping_add(&term) };
        }
        sum
    }

    /// RFC 3526 §3 to §5: 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + k), with pi by Machin's
    /// formula.
    #[test]
    fn primes_are_those_of_the_formula() {
        let quarter = arctan_inverse(5).wrapping_mul(&Wide::from(4u8)).wrapping_sub(&arctan_inverse(239));
        for (prime, n, k) in
            [(PRIME_2048, 2048, 124_476u32), (PRIME_3072, 3072, 1_690_314), (PRIME_4096, 4096, 240_904)]
        {
            let pi = quarter.shr(FRACTION - (n - 130) - 2);
            let expected = Wide::ONE
                .shl(n)
                .wrapping_sub(&Wide::ONE.shl(n - 64))
                .wrapping_sub(&Wide::ONE)
                .wrapping_add(&pi.wrapping_add(&Wide::from(k)).shl(64));
            assert_eq!(format!("{expected:x}").trim_start_matches('0'), prime);
        }
    }

    /// The exponent is the bytes 1, 2, 3 and so on. The digests are SHA-256 of the public value,
    /// and of the public value to the same power, as Python's `pow` computes them.
    #[test]
    fn powers_are_those_of_another_implementation() {
        check(
            &MODP_2048,
            "3ae26e14ac54744ba175a8b2c76205eebfc4fdb8314c4c40ae2ea47b3c0e28a3",
            "345e958b916f043465124e6406ce4ba8dbb87501d330c6a4dd9d2a21ccc7f156",
        );
        check(
            &MODP_3072,
            "2a9f2a20bd56167b364eac425220fa443f9ffe3381398ac1f5d0d3e1cd83aa0a",
            "425fe541972a3ce7b34b8da0cd6a950c03782ede48f3dd4a09db8aff91dfc3cd",
        );
        check(
            &MODP_4096,
            "0439872574dafc9b300359ea0dd742c3976ccf9fa56883bdb8268462adedf8cf",
            "938889cbb25e10996a2055902d336e6994411a3fe0585cd5bc366b2979f321d0",
        );
    }

    fn check<const LIMBS: usize, const EXPONENT: usize>(
        group: &'static Group<LIMBS, EXPONENT>,
        public: &str,
        shared: &str,
    ) {
        let bytes: Vec<u8> = (1..).take(EXPONENT * Limb::BYTES).collect();
        let exponent = Zeroizing::new(Uint::from_be_slice(&bytes));
        let power = group.power(&Uint::from(2u8), &exponent);
        assert_eq!(digest_of(&power), public);
        let secret = Box::new(Exponent { group, exponent }).finish(&power).unwrap();
        assert_eq!(digest_of(&secret), shared);
    }

    fn digest_of(bytes: &[u8]) -> String {
        let digest = digest::digest(&digest::SHA256, bytes);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 6989 §2.1.
    #[test]
    fn public_values_are_from_2_to_p_minus_2() {
        let prime = *MODP_2048.0.modulus().as_ref();
        let parse = |value: &U2048| {
            let bytes: Vec<u8> =
                value.as_limbs().iter().rev().flat_map(|limb| limb.0.to_be_bytes()).collect();
            MODP_2048.parse(&bytes)
        };
        let below = |n: u8| prime.wrapping_sub(&U2048::from(n));
        for value in [U2048::from(2u8), below(2)] {
            assert_eq!(parse(&value), Ok(value));
        }
        for value in [U2048::ZERO, U2048::ONE, below(1), prime, prime.wrapping_add(&U2048::ONE), U2048::MAX] {
            assert_eq!(parse(&value), Err(Refused));
        }
    }
}
