//! The flags of an app that lets in clients by tokens: the files with the keys, and what tokens have to claim.

use crate::jwt::{Rules, Verifier};
use crate::os::key_files::KeyFiles;
use clap::Args;
use std::path::PathBuf;

/// Beside the flags of every server.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Tokens")]
pub(super) struct JwtFlags {
    /// File with the secrets of tokens signed with HS256, HS384 or HS512, one a line
    #[arg(long, env = "PERCORE_JWT_SECRET_FILE", value_name = "FILE")]
    #[arg(
        long_help = "File with the secrets of JSON Web Tokens signed with HS256, HS384 or HS512, one a line, of 32 bytes at least. With it \
        a client needs a good token. It is read again when it changes"
    )]
    jwt_secret_file: Option<PathBuf>,
    /// File with a JSON Web Key Set, for tokens signed with RSA, ECDSA or Ed25519
    #[arg(long, env = "PERCORE_JWKS_FILE", value_name = "FILE")]
    #[arg(
        long_help = "File with a JSON Web Key Set (RFC 7517), for tokens signed with RS256, ES256 and the like. With it a client needs a good \
        token. It is read again when it changes"
    )]
    jwks_file: Option<PathBuf>,
    /// Audience of which a token has to name one (aud); repeatable [default: not looked at]
    #[arg(long, env = "PERCORE_JWT_AUDIENCE", value_name = "NAME", value_delimiter = ',')]
    jwt_audience: Vec<String>,
    /// Issuer of which a token has to be (iss); repeatable [default: not looked at]
    #[arg(long, env = "PERCORE_JWT_ISSUER", value_name = "NAME", value_delimiter = ',')]
    jwt_issuer: Vec<String>,
}

impl JwtFlags {
    /// What verifies tokens; `None` where nobody needs one.
    ///
    /// # Errors
    /// When a file has no keys, or a flag needs one that is missing.
    pub(super) fn verifier(&self) -> Result<Option<Verifier>, String> {
        let (secrets, jwks) = (self.jwt_secret_file.as_deref(), self.jwks_file.as_deref());
        if secrets.is_none() && jwks.is_none() {
            let lone = [("audience", &self.jwt_audience), ("issuer", &self.jwt_issuer)];
            let lone = lone.into_iter().find(|(_, names)| !names.is_empty());
            return match lone {
                Some((name, _)) => Err(format!("--jwt-{name} needs --jwt-secret-file or --jwks-file")),
                None => Ok(None),
            };
        }
        let (files, keys) = KeyFiles::open(secrets, jwks)?;
        let rules =
            Rules { audiences: self.jwt_audience.clone(), issuers: self.jwt_issuer.clone(), ..Rules::default() };
        Ok(Some(Verifier::new(keys, rules).watch(files)))
    }
}
