//! The signature algorithms of RFC 7518 and RFC 8037 that gw knows.

/// A JWS algorithm. `none` is not one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

/// What kind of key an algorithm takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A shared secret.
    Hmac,
    Rsa,
    /// Elliptic curve: P-256, P-384 or P-521.
    Ec,
    /// Ed25519.
    Ed,
}

impl Algorithm {
    /// Every algorithm, in the order of the documentation.
    pub const ALL: &[Self] = &[
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    /// The algorithm that `alg` names, exactly as RFC 7518 writes it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.name() == name)
    }

    /// The value of `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The kind of key.
    pub const fn family(self) -> Family {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => Family::Hmac,
            Self::ES256 | Self::ES384 | Self::ES512 => Family::Ec,
            Self::EdDSA => Family::Ed,
            _ => Family::Rsa,
        }
    }

    /// Whether the same secret signs and verifies.
    pub const fn is_symmetric(self) -> bool {
        matches!(self.family(), Family::Hmac)
    }

    /// What a PEM must hold for this algorithm, in words.
    pub const fn key_kind(self) -> &'static str {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => "a shared secret",
            Self::ES256 => "an EC key on P-256",
            Self::ES384 => "an EC key on P-384",
            Self::ES512 => "an EC key on P-521",
            Self::EdDSA => "an Ed25519 key",
            _ => "an RSA key of 2048 to 8192 bits",
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Algorithm;

    #[test]
    fn names_are_exact() {
        for a in Algorithm::ALL {
            assert_eq!(Algorithm::parse(a.name()), Some(*a));
        }
        for no in ["none", "None", "hs256", "", "ES256K", "EDDSA"] {
            assert_eq!(Algorithm::parse(no), None, "{no}");
        }
    }
}
