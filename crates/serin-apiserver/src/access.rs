//! Who may call from outside, and how they know that it is us: a certificate authority, a token, a kubeconfig.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::metadata::random_bytes;

/// Years that the authority is valid. Its key stays in the folder it was made in.
const AUTHORITY_YEARS: i32 = 20;
/// Years that a server's certificate is valid. It is made anew on every start.
const SERVER_YEARS: i32 = 2;
const TOKEN_BYTES: usize = 32;

/// What a server needs to be called over TLS, and its callers to call it.
pub struct Access {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) token: Token,
    authority_pem: String,
}

/// A bearer token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Why access cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read or written.
    #[error("cannot access {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The authority's key or certificate is damaged.
    #[error("{} is no key of a certificate authority; delete its folder to make a new authority and token", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// The token's file is damaged.
    #[error("{} holds no token of at least {TOKEN_BYTES} characters; delete it to make a new one", path.display())]
    Token {
        /// The file.
        path: PathBuf,
    },
    /// The kubeconfig cannot be written down.
    #[error("cannot write the kubeconfig as YAML: {0}")]
    Yaml(String),
}

/// Sets up access in a folder: on the first run it makes an authority (`ca.crt`, `ca.key`) and a token (`token`), each
/// readable by their owner only; later runs load them. The server's certificate, for loopback names and addresses, is
/// made on every run.
///
/// # Errors
/// [`AccessError`].
pub fn bootstrap(folder: &Path) -> Result<Access, AccessError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| AccessError::File { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
    let (certificate_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
    let authority = authority_params().map_err(AccessError::Certificate)?;
    let (authority_pem, key) = if key_path.exists() && certificate_path.exists() {
        let pem = fs::read_to_string(&key_path).map_err(at(&key_path))?;
        let damaged = |source| AccessError::Authority { path: key_path.clone(), source };
        let key = KeyPair::from_pem(&pem).map_err(damaged)?;
        (fs::read_to_string(&certificate_path).map_err(at(&certificate_path))?, key)
    } else {
        let key = KeyPair::generate().map_err(AccessError::Certificate)?;
        let certificate = authority.self_signed(&key).map_err(AccessError::Certificate)?;
        // The key first: a certificate without its key would be taken for no authority and made anew.
        write_private(&key_path, key.serialize_pem().as_bytes()).map_err(at(&key_path))?;
        write_private(&certificate_path, certificate.pem().as_bytes()).map_err(at(&certificate_path))?;
        (certificate.pem(), key)
    };
    let server_key = KeyPair::generate().map_err(AccessError::Certificate)?;
    let certificate = server_params()
        .and_then(|params| params.signed_by(&server_key, &Issuer::from_params(&authority, &key)))
        .map_err(AccessError::Certificate)?;
    Ok(Access {
        certificate: certificate.der().clone(),
        key: PrivatePkcs8KeyDer::from(server_key.serialize_der()).into(),
        token: load_token(&folder.join("token"))?,
        authority_pem,
    })
}

impl Access {
    /// The authority's certificate, PEM.
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// The token that callers must send.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Writes a kubeconfig for the server at `address`, with the authority and the token inline and one context, `serin`.
    /// The file is readable by its owner only and appears whole or not at all.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn write_kubeconfig(&self, path: &Path, address: SocketAddr) -> Result<(), AccessError> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "serin", "cluster": {
                "server": format!("https://{address}"),
                "certificate-authority-data": STANDARD.encode(&self.authority_pem),
            }}],
            "users": [{"name": "serin", "user": {"token": self.token.0}}],
            "contexts": [{"name": "serin", "context": {"cluster": "serin", "user": "serin", "namespace": "default"}}],
            "current-context": "serin",
        });
        let text = serde_saphyr::to_string(&config).map_err(|error| AccessError::Yaml(error.to_string()))?;
        let failed = |source| AccessError::File { path: path.to_owned(), source };
        write_private(path, text.as_bytes()).map_err(failed)
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Token {
    fn random() -> Self {
        Self(URL_SAFE_NO_PAD.encode(random_bytes::<TOKEN_BYTES>()))
    }

    /// Whether this is what a caller sent. The time it takes says nothing about the token: what is compared are digests.
    pub fn matches(&self, sent: &[u8]) -> bool {
        let (ours, theirs) = (Sha256::digest(self.0.as_bytes()), Sha256::digest(sent));
        ours.iter().zip(&theirs).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }

    /// The token's text, to be sent as `Authorization: Bearer ...`.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

fn load_token(path: &Path) -> Result<Token, AccessError> {
    let failed = |source| AccessError::File { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) => {
            let text = text.trim();
            let is_plain = text.len() >= TOKEN_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
            if is_plain { Ok(Token(text.to_owned())) } else { Err(AccessError::Token { path: path.to_owned() }) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = Token::random();
            write_private(path, token.0.as_bytes()).map_err(failed)?;
            Ok(token)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    // What a killed run left behind may have other permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named("Serin local authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_years(&mut params, AUTHORITY_YEARS);
    Ok(params)
}

fn server_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec!["localhost".into()])?;
    params.distinguished_name = named("Serin API");
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_years(&mut params, SERVER_YEARS);
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Valid from a year ago, so that a clock that was set back does not refuse it.
fn set_years(params: &mut CertificateParams, years: i32) {
    let year = i32::from(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year());
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + years, 1, 1);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_first_run_makes_what_later_runs_load() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("access");
        let first = bootstrap(&folder).expect("made");
        let second = bootstrap(&folder).expect("loaded");
        assert_eq!(first.authority_pem, second.authority_pem);
        assert_eq!(first.token, second.token);
        assert_ne!(first.certificate, second.certificate);
        let kubeconfig = folder.join("kubeconfig");
        first.write_kubeconfig(&kubeconfig, "127.0.0.1:6443".parse().expect("an address")).expect("written");
        for file in ["ca.key", "ca.crt", "token", "kubeconfig"] {
            let mode = fs::metadata(folder.join(file)).expect(file).permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let text = fs::read_to_string(kubeconfig).expect("readable");
        assert!(text.contains("current-context: serin") && text.contains(first.token.reveal()), "{text}");
        assert!(!format!("{first:?} {:?}", first.token).contains(first.token.reveal()));
    }

    #[test]
    fn damaged_files_are_named_with_the_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        bootstrap(folder.path()).expect("made");
        fs::write(folder.path().join("token"), "short").expect("written");
        let error = bootstrap(folder.path()).expect_err("the token is too short");
        assert!(error.to_string().contains("delete it"), "{error}");
        fs::write(folder.path().join("ca.key"), "no key").expect("written");
        let error = bootstrap(folder.path()).expect_err("the key is no key");
        assert!(error.to_string().contains("delete its folder"), "{error}");
    }

    #[test]
    fn only_the_token_matches() {
        let token = Token::random();
        assert!(token.matches(token.reveal().as_bytes()));
        for other in ["", "x", &token.reveal()[1..], &format!("{} ", token.reveal())] {
            assert!(!token.matches(other.as_bytes()), "{other:?}");
        }
    }
}
