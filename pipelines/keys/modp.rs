//! The MODP groups of RFC 3526: the integers modulo a safe prime, with generator 2.

use crypto_bigint::{
    Limb, Odd, U320, U448, U512, U2048, U3072, U4096, Uint, Word,
    modular::{FixedMontyForm, FixedMontyParams},
};
use std::{fmt, sync::LazyLock};
use wayfarer_mobility::ike::crypto::{KexSecret, Refused, Secret};
use zeroize::{Zeroize, Zeroizing};

/// A group whose elements have `LIMBS` limbs. Private exponents have `EXPONENT` limbs.
pub(super) struct Group<const LIMBS: usize, const EXPONENT: usize>(FixedMontyParams<LIMBS>);

/// An exponent is twice as long as the group is strong, by the higher estimate of RFC 3526 §8 (320, 420 and 480 bits),
/// in whole limbs. In a group of a safe prime a longer one is only slower.
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

    /// Draws a private exponent.
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

    /// `base` to the power of `exponent`, as long as the prime (RFC 7296 §3.4), in constant time.
    fn power(&self, base: &Uint<LIMBS>, exponent: &Uint<EXPONENT>) -> Secret {
        let mut power = FixedMontyForm::new(base, &self.0).pow(exponent);
        let value = Zeroizing::new(power.retrieve());
        power.zeroize();
        let mut bytes = Secret::new(Vec::with_capacity(LIMBS * Limb::BYTES));
        value.as_limbs().iter().rev().for_each(|limb| bytes.extend_from_slice(&limb.0.to_be_bytes()));
        bytes
    }

    /// A peer's public value: as long as the prime, and from 2 to p-2 (RFC 6989 §2.1).
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
