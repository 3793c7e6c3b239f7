//! The flags of an app that admits clients by token: the files with the keys, and the claims that tokens must have.

use crate::jwt::{Rules, Verifier};
use crate::os::key_files::KeyFiles;
use clap::Args;
use std::path::PathBuf;

/// Flags beside those of every server.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Tokens")]
pub(super) struct JwtFlags {
    /// File with secrets, one a line, for tokens signed with HS256, HS384 or HS512
    #[arg(long, env = "PERCORE_JWT_SECRET_FILE", value_name = "FILE")]
    #[arg(
        long_help = "File with secrets, one a line and at least 32 bytes each, for JSON Web Tokens signed with HS256, \
        HS384 or HS512. With it a client needs a valid token. It is reloaded when it changes"
    )]
    jwt_secret_file: Option<PathBuf>,
    /// File with a JSON Web Key Set, for tokens signed with RSA, ECDSA or Ed25519
    #[arg(long, env = "PERCORE_JWKS_FILE", value_name = "FILE")]
    #[arg(
        long_help = "File with a JSON Web Key Set (RFC 7517), for tokens signed with RS256, ES256 and the like. With it a \
        client needs a valid token. It is reloaded when it changes"
    )]
    jwks_file: Option<PathBuf>,
    /// Audience that a token must name (aud); repeatable, one suffices [default: not checked]
    #[arg(long, env = "PERCORE_JWT_AUDIENCE", value_name = "NAME", value_delimiter = ',')]
    jwt_audience: Vec<String>,
    /// Issuer that a token must name (iss); repeatable, one suffices [default: not checked]
    #[arg(long, env = "PERCORE_JWT_ISSUER", value_name = "NAME", value_delimiter = ',')]
    jwt_issuer: Vec<String>,
}

impl JwtFlags {
    /// Returns the verifier of tokens; `None` where clients need no token.
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
