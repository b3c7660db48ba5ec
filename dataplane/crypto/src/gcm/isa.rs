//! The instruction sets that the kernels are written for, as proofs that the processor has them.

/// Defines a type whose values exist only if the processor has the features named.
macro_rules! isa {
    ($(#[$doc:meta])* $name:ident: $($feature:tt),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub(crate) struct $name(());

        impl $name {
            /// Returns the proof if the processor has the features.
            pub(crate) fn detect() -> Option<Self> {
                ($(is_x86_feature_detected!($feature))&&+).then_some(Self(()))
            }
        }
    };
}

isa! {
    /// AES-NI and PCLMULQDQ: one block at a time.
    AesNi: "aes", "pclmulqdq", "ssse3", "sse4.1"
}
isa! {
    /// VAES and VPCLMULQDQ with AVX2: two blocks at a time.
    Vaes256: "aes", "pclmulqdq", "ssse3", "sse4.1", "avx2", "vaes", "vpclmulqdq"
}
isa! {
    /// VAES and VPCLMULQDQ with AVX-512: four blocks at a time.
    Vaes512: "aes", "pclmulqdq", "ssse3", "sse4.1", "avx2", "vaes", "vpclmulqdq", "avx512f", "avx512bw", "avx512vl"
}

impl From<Vaes256> for AesNi {
    /// Converts the proof: the features of AES-NI are among those of [`Vaes256`].
    fn from(_: Vaes256) -> Self {
        Self(())
    }
}

impl From<Vaes512> for AesNi {
    /// Converts the proof: the features of AES-NI are among those of [`Vaes512`].
    fn from(_: Vaes512) -> Self {
        Self(())
    }
}
