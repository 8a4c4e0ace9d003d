//! Keys on disk: encrypted Web3 keystores (v3 JSON), or, marked as such, plain development keys.

use std::{
    fs,
    io::{IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use alloy::signers::{
    k256::elliptic_curve::rand_core::OsRng,
    local::{LocalSigner, PrivateKeySigner},
};
use serde::Deserialize;
use tribunal_events::{Address, Signer, SignerFault, SigningKey};
use zeroize::Zeroizing;

use crate::{
    config::MediatorConfig,
    failure::Failure,
    remote_signer::{RemoteSigner, TIMEOUT},
};

/// A key file at most, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Bytes that deriving a keystore's key may take, at most: eight times what wallets use.
const KDF_BYTES_MAX: u64 = 2 << 30;

/// A plain key, for development: the file says so. Never printed; whoever takes the digits wipes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InsecureKey {
    insecure_dev_key: String,
    address: Address,
}

/// The parts of a v3 keystore that decide whether it can be opened at all.
#[derive(Deserialize)]
struct Keystore {
    version: u64,
    crypto: Crypto,
}

#[derive(Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: String,
    kdf: String,
    kdfparams: KdfParams,
    mac: String,
}

#[derive(Deserialize)]
struct CipherParams {
    iv: String,
}

#[derive(Deserialize)]
struct KdfParams {
    dklen: u64,
    n: Option<u64>,
    r: Option<u64>,
    p: Option<u64>,
    c: Option<u64>,
}

/// Reads the key in `path`: a keystore with the password from `password_file`, from the systemd credential
/// `tribunal-password`, or from the prompt; or a file `{"insecure_dev_key": "0x…", "address": "0x…"}`.
///
/// # Errors
/// A sentence that says what to do.
pub fn load(path: &Path, password_file: Option<&Path>) -> Result<SigningKey, Failure> {
    let shown = path.display();
    let bytes = fs::metadata(path).map_err(|error| Failure::config(format!("the key file {shown}: {error}")))?.len();
    if bytes > KEY_FILE_BYTES_MAX {
        return Err(Failure::config(format!("{shown} has {bytes} bytes and is no key file")));
    }
    let text = secret_text(path).map_err(|error| Failure::config(format!("the key file {shown}: {error}")))?;
    if let Ok(plain) = serde_json::from_str::<InsecureKey>(&text) {
        let digits = Zeroizing::new(plain.insecure_dev_key);
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits.trim_start_matches("0x"), &mut *secret)
            .map_err(|_| Failure::config(format!("{shown}: insecure_dev_key is 0x and 64 hex digits")))?;
        let key = SigningKey::new(*secret).map_err(|error| Failure::config(format!("{shown}: {error}")))?;
        if key.address() != plain.address {
            return Err(Failure::config(format!(
                "{shown}: the key is of {:#x}, not {:#x}",
                key.address(),
                plain.address
            )));
        }
        return Ok(key);
    }
    check(&text).map_err(|problem| Failure::config(format!("{shown} {problem}")))?;
    let password = password(password_file, false)?;
    let signer: PrivateKeySigner = LocalSigner::decrypt_keystore(path, password.as_bytes()).map_err(|error| {
        // The library's own words for a checksum that does not fit.
        let wrong = error.to_string().to_lowercase().contains("mac mismatch");
        Failure::config(if wrong {
            format!("wrong password for {shown}")
        } else {
            format!("{shown} cannot be opened: it is damaged or of a kind that is not known here")
        })
    })?;
    let secret = Zeroizing::new(signer.to_bytes().0);
    let key = SigningKey::new(*secret).map_err(|error| Failure::config(format!("{shown}: {error}")))?;
    match named(&text) {
        Some(named) if named != key.address() => {
            Err(Failure::config(format!("{shown}: the key is of {:#x}, not {named:#x}", key.address())))
        }
        _ => Ok(key),
    }
}

/// Whether a keystore can be opened without harm: the library believes every number in it.
fn check(text: &str) -> Result<(), String> {
    let foreign = || "is no Web3 keystore (v3 JSON); make one with `tribunal keys new`".to_owned();
    let json: serde_json::Value = serde_json::from_str(text).map_err(|_| foreign())?;
    let inside = json.get("crypto").is_some();
    let Keystore { version, crypto } =
        serde_json::from_value(json).map_err(|_| if inside { damaged("a field is missing") } else { foreign() })?;
    let hex_bytes = |text: &str| hex::decode(text.trim_start_matches("0x")).map_or(0, |bytes| bytes.len());
    let KdfParams { dklen, n, r, p, c } = crypto.kdfparams;
    let work = match (crypto.kdf.as_str(), n, r, p, c) {
        ("scrypt", Some(n), Some(r), Some(1..=16), _) if n.is_power_of_two() && r > 0 => {
            n.checked_mul(r).and_then(|it| it.checked_mul(128)).is_some_and(|bytes| bytes <= KDF_BYTES_MAX)
        }
        ("pbkdf2", _, _, _, Some(rounds)) => (1..=100_000_000).contains(&rounds),
        _ => return Err(damaged("its kdf is neither scrypt nor pbkdf2 with sane numbers")),
    };
    if version != 3 {
        return Err(format!("is a keystore of version {version}, not 3"));
    }
    if crypto.cipher != "aes-128-ctr" {
        return Err(damaged("its cipher is not aes-128-ctr"));
    }
    if !work {
        return Err(damaged("deriving its key would take more than this program gives"));
    }
    let sizes = (dklen, hex_bytes(&crypto.cipherparams.iv), hex_bytes(&crypto.ciphertext), hex_bytes(&crypto.mac));
    if sizes != (32, 16, 32, 32) {
        return Err(damaged("key, iv, ciphertext and mac have 32, 16, 32 and 32 bytes"));
    }
    Ok(())
}

fn damaged(problem: &str) -> String {
    format!("is a keystore that cannot be opened: {problem}")
}

/// Where a key is: in a keystore here, or at a signer.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // named as the settings are
pub struct Key<'a> {
    pub keystore: &'a Option<PathBuf>,
    pub password_file: &'a Option<PathBuf>,
    pub signer_url: &'a Option<String>,
    pub address: &'a Option<Address>,
}

/// The key that judges: local, remote, or none where neither is named.
///
/// # Errors
/// As [`signer`].
pub fn mediator_signer(config: &MediatorConfig) -> Result<Option<Arc<dyn Signer>>, Failure> {
    let MediatorConfig { keystore, password_file, signer_url, address, .. } = config;
    signer("mediator", &Key { keystore, password_file, signer_url, address })
}

/// The key that a section of the settings names: local, remote, or none where neither is named.
///
/// # Errors
/// 78 where the settings exclude each other or the signer lacks the key, 69 where it does not answer.
pub fn signer(section: &str, key: &Key<'_>) -> Result<Option<Arc<dyn Signer>>, Failure> {
    let wrong = |problem: &str| Err(Failure::config(problem.replace("{section}", section)));
    match *key {
        Key { keystore: Some(_), signer_url: Some(_), .. } => {
            wrong("{section}.keystore and {section}.signer_url exclude each other: the key is here or at the signer")
        }
        Key { signer_url: None, address: Some(_), .. } => {
            wrong("{section}.address goes with {section}.signer_url; a keystore has its own")
        }
        Key { signer_url: Some(_), address: None, .. } => {
            wrong("{section}.signer_url needs {section}.address: the account of the key at the signer")
        }
        Key { signer_url: Some(_), password_file: Some(_), .. } => {
            wrong("{section}.password_file goes with {section}.keystore, not with {section}.signer_url")
        }
        Key { signer_url: Some(url), address: Some(address), .. } => {
            let signer = RemoteSigner::connect(url, *address, TIMEOUT).map_err(|fault| match fault {
                SignerFault::Unreachable { .. } => Failure::unavailable(fault),
                _ => Failure::config(fault),
            })?;
            Ok(Some(Arc::new(signer)))
        }
        Key { keystore: Some(path), password_file, .. } => Ok(Some(Arc::new(load(path, password_file.as_deref())?))),
        Key { keystore: None, signer_url: None, address: None, .. } => Ok(None),
    }
}

/// The account that judges by these settings, without its password where that can be; nothing where nothing judges.
///
/// # Errors
/// A sentence that says what to do.
pub fn mediator_address(config: &MediatorConfig) -> Result<Option<Address>, Failure> {
    match config {
        MediatorConfig { address: Some(address), .. } => Ok(Some(*address)),
        MediatorConfig { keystore: Some(path), password_file, .. } => match address(path)? {
            Some(address) => Ok(Some(address)),
            None => Ok(Some(load(path, password_file.as_deref())?.address())),
        },
        _ => Ok(None),
    }
}

/// Makes a new random key in a keystore at `path`, which must not exist.
///
/// # Errors
/// A sentence that says what to do.
pub fn create(path: &Path, password_file: Option<&Path>, insecure: bool) -> Result<Address, Failure> {
    let shown = path.display();
    if path.exists() {
        return Err(Failure::usage(format!("{shown} exists already; keys are never overwritten")));
    }
    let failed = |error: &dyn std::fmt::Display| Failure::config(format!("{shown} cannot be written: {error}"));
    let (folder, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().and_then(|name| name.to_str()));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Some(name) = name else { return Err(Failure::usage(format!("{shown} is no file name"))) };
    let password = if insecure { None } else { Some(password(password_file, true)?) };
    let signer = PrivateKeySigner::random_with(&mut OsRng);
    let secret = Zeroizing::new(signer.to_bytes().0);
    // Made for its owner alone before anything is in it, and only if it is not there.
    let mut file = private(path).map_err(|error| failed(&error))?;
    let written = match password {
        None => {
            let digits = Zeroizing::new(hex::encode(*secret));
            let text = Zeroizing::new(format!(
                "{{\n  \"insecure_dev_key\": \"0x{}\",\n  \"address\": \"{:#x}\"\n}}",
                *digits,
                signer.address()
            ));
            file.write_all(text.as_bytes()).map_err(|error| failed(&error))
        }
        Some(password) => LocalSigner::encrypt_keystore(folder, &mut OsRng, *secret, password.as_bytes(), Some(name))
            .map_err(|error| failed(&error))
            .and_then(|_| name_account(path, &mut file, signer.address()).map_err(|error| failed(&error))),
    };
    // A key that is not on the disk is no key: whoever sees its account must be able to rely on it.
    let kept = written.and_then(|()| file.sync_all().map_err(|error| failed(&error)));
    if kept.is_err() {
        let _ = fs::remove_file(path);
    }
    kept.map(|()| signer.address())
}

/// Writes the account into a new keystore, so that reading about it takes no password.
fn name_account(path: &Path, file: &mut fs::File, address: Address) -> std::io::Result<()> {
    let mut keystore: serde_json::Value = serde_json::from_str(&secret_text(path)?)?;
    keystore["address"] = format!("{address:#x}").into();
    // This handle has not written yet: it stands at the beginning.
    file.set_len(0)?;
    file.write_all(keystore.to_string().as_bytes())
}

/// What a key file tells about itself. All else stays unread: a plain key must not be copied to be looked at.
#[derive(Deserialize)]
struct Named {
    address: Option<String>,
}

fn named(text: &str) -> Option<Address> {
    serde_json::from_str::<Named>(text).ok()?.address?.parse().ok()
}

/// The account of a key file, without its password.
///
/// # Errors
/// A sentence that says what to do.
pub fn address(path: &Path) -> Result<Option<Address>, Failure> {
    let text = secret_text(path).map_err(|error| Failure::config(format!("{}: {error}", path.display())))?;
    let it: Named =
        serde_json::from_str(&text).map_err(|_| Failure::config(format!("{} is no key file", path.display())))?;
    Ok(it.address.and_then(|text| text.parse().ok()))
}

/// A new file that only its owner can read.
fn private(path: &Path) -> std::io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A small secret file in memory that is wiped: the buffer never moves, so that no copy of it stays behind.
fn secret_text(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
    fs::File::open(path)?.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn password(file: Option<&Path>, new: bool) -> Result<Zeroizing<String>, Failure> {
    let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
        .map(|folder| Path::new(&folder).join("tribunal-password"))
        .filter(|path| path.is_file());
    if let Some(path) = file.map(Path::to_owned).or(credential) {
        let text = secret_text(&path)
            .map_err(|error| Failure::config(format!("the password file {}: {error}", path.display())))?;
        let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        if new && password.is_empty() {
            return Err(Failure::config(format!("the password file {} is empty", path.display())));
        }
        return Ok(password);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("a password is needed: give --password-file FILE"));
    }
    let read = |prompt: &str| {
        rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| Failure::usage(error.to_string()))
    };
    let first = read("Password: ")?;
    if new && first.is_empty() {
        return Err(Failure::usage("an empty password protects nothing"));
    }
    if new && *read("Again: ")? != *first {
        return Err(Failure::usage("the two passwords differ"));
    }
    Ok(first)
}
